"""What helps where a host refuses a part of a start: sampan/runtime/refusals.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sampan.errors import NotSupported
from sampan.oci.spec import RunOptions, config_for
from sampan.runtime import compile, diagnose, host, mounts, refusals
from sampan.runtime import plan as p
from sampan.runtime.launch import StartFailure


def failed(code: int, number: int, label: str = "do it") -> StartFailure:
    return StartFailure(label, code, number, b"")


@pytest.mark.parametrize("code", [p.CLONE, p.DETACH, p.HOSTNAME])
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_filter_of_system_calls_is_named(monkeypatch: pytest.MonkeyPatch, code: int, number: int) -> None:
    monkeypatch.setattr(refusals, "filtered", lambda: True)
    assert "seccomp=unconfined" in refusals.hint(failed(code, number))
    assert refusals.hint(failed(code, errno.ENOSPC)) == ""
    monkeypatch.setattr(refusals, "filtered", lambda: False)
    assert refusals.hint(failed(code, number)) == ""


def test_whether_there_is_a_filter_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "read_text", lambda path: "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1")
    assert refusals.filtered()
    monkeypatch.setattr(host, "read_text", lambda path: "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0")
    assert not refusals.filtered()


def test_a_covered_proc() -> None:
    error = diagnose.explain(failed(p.MOUNT, errno.EPERM, "mount proc at /proc (nosuid)"))
    assert error.message.startswith("cannot mount proc at /proc") and "--pid host" in error.hint
    assert "systempaths=unconfined" in error.hint and "unmask=ALL" in error.hint
    assert refusals.hint(failed(p.MOUNT, errno.EPERM, "mount tmpfs at /proc2")) == ""


def test_an_overlay_on_an_overlay_names_a_better_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "30 1 0:1 / {} rw,nosuid - {} none {}\n"
    monkeypatch.setattr(refusals, "_ENOUGH", 1)
    small, wide, locked = tmp_path / "small", tmp_path / "wide", tmp_path / "locked"
    for place in (small, wide, locked):
        place.mkdir()
    sizes = {str(small): 10, str(wide): 99, str(locked): 1000}
    monkeypatch.setattr(os, "statvfs", lambda path: type("Size", (), {"f_bavail": sizes.get(path, 0), "f_frsize": 1}))
    monkeypatch.setattr(host, "takes_attributes", lambda point: point != str(locked))
    text = "".join(line.format(place, "ext4", "rw") for place in (small, wide, locked))
    assert refusals.candidates(text) == [str(wide), str(small)]
    assert refusals.candidates(text + line.format(wide, "overlay", "rw")) == [str(small)]
    assert refusals.candidates(line.format(wide, "ext4", "ro") + line.format(small, "tmpfs", "rw")) == [str(small)]
    assert refusals.candidates(line.format("/proc", "ext4", "rw") + line.format("/etc/hosts", "ext4", "rw")) == []
    assert refusals.elsewhere(text) == f"export SAMPAN_ROOT={wide}/sampan"
    assert "volume" in refusals.elsewhere(line.format("/", "overlay", "rw"))
    assert "SAMPAN_ROOT" in diagnose.explain(failed(p.OVERLAY, errno.EINVAL)).hint


@pytest.mark.parametrize(
    ("rootless", "name", "optional"), [(True, "", True), (True, "asked", False), (False, "", False)]
)
def test_a_host_name_that_nobody_asked_for_may_be_refused(rootless: bool, name: str, optional: bool) -> None:
    spec = config_for({}, RunOptions(command=["x"], hostname=name), container_id="ab" * 32, rootless=rootless)
    facts = compile.Facts()
    facts.rootless = rootless
    plan = compile.compile_run(spec, facts)
    (flags,) = [op.flags for op in plan.operations if op.code == p.HOSTNAME]
    assert bool(flags & p.OPTIONAL) is optional


def test_more_layers_than_the_kernel_stacks_are_counted() -> None:
    plan, facts = p.Plan(), compile.Facts()
    facts.upper = "upper"
    facts.lowers = [str(number) for number in range(500)]
    mounts.root(plan, facts)
    facts.lowers.append("500")
    with pytest.raises(NotSupported, match="501 layers: the kernel takes 500"):
        mounts.root(plan, facts)
