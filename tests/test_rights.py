"""Whose containers need a user namespace: sampan/rights.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan import rights
from sampan.runtime import idmap

DOCKER = 0xA80425FB  # what a container that is not privileged has


def test_rights_are_read_from_proc_status() -> None:
    text = b"Name:\tCapEff:\nCapPrm:\t000001ffffffffff\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000000000ff\n"
    assert rights.parse(text) == {"CapEff": DOCKER, "CapBnd": 0xFF, "NoNewPrivs": 0}
    assert rights.parse(b"NoNewPrivs:\t1\n")["NoNewPrivs"] == 1
    assert rights.parse(b"Name:\tx\n")["CapEff"] == (1 << 64) - 1
    with open("/proc/self/status", "rb") as file:
        assert rights.parse(file.read()) == rights.own()


def root_with(monkeypatch: pytest.MonkeyPatch, effective: int) -> None:
    monkeypatch.setattr(rights, "_found", {"CapEff": effective, "CapBnd": effective, "NoNewPrivs": 0})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getegid", lambda: 0)
    monkeypatch.setattr(rights, "namespace", lambda: "user:[4026531837]")


def test_root_who_is_not_the_hosts_needs_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    root_with(monkeypatch, DOCKER)
    assert rights.rootless() and rights.holds(rights.CAP_SETUID, rights.CAP_SETGID, rights.CAP_SETFCAP)
    root_with(monkeypatch, DOCKER | 1 << rights.CAP_SYS_ADMIN)
    assert not rights.rootless()
    monkeypatch.setattr(rights, "namespace", lambda: "user:[4026532000]")
    assert rights.rootless()
    monkeypatch.undo()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert rights.rootless()


def test_such_a_root_gives_its_own_ids_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    root_with(monkeypatch, DOCKER)
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ids = [(line.split()[0], line.split()[2]) for line in file]
    found = idmap.detect()
    assert found.uid_lines == [f"{first} {first} {count}" for first, count in ids]
    assert not found.newuidmap and not found.notes
    root_with(monkeypatch, DOCKER & ~(1 << rights.CAP_SETUID))
    assert idmap.detect("/nowhere").uid_lines == ["0 0 1"]


def test_maps_of_a_namespace_with_its_parents_ids() -> None:
    assert idmap.same("         0       1000          1\n         1     100000      65536\n") == ["0 0 1", "1 1 65536"]
    assert idmap.same("") == []


def test_who_may_gain_no_privileges_has_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """newuidmap is setuid: after PR_SET_NO_NEW_PRIVS it starts without its rights."""
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("4321:100000:65536\n")
    monkeypatch.setattr(idmap, "user_name", lambda uid: "someone")  # without an account there is no range either
    monkeypatch.setattr(idmap, "find_tool", lambda name, directories: (f"/usr/bin/{name}", ""))
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(os, "getegid", lambda: 4321)
    monkeypatch.setattr(rights, "_found", {"CapEff": 0, "CapBnd": 0, "NoNewPrivs": 0})
    assert len(idmap.detect(str(tmp_path)).uid_lines) == 2
    monkeypatch.setattr(rights, "_found", {"CapEff": 0, "CapBnd": 0, "NoNewPrivs": 1})
    found = idmap.detect(str(tmp_path))
    assert found.single and "may gain no privileges" in found.notes[0]
