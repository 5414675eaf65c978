"""debian and aptsources: both apt formats, the choice of an archive, and that no word becomes an option."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from sampan.bootstrap import aptsources, debian
from sampan.errors import InvalidArgument, NotSupported, Unavailable

DEB822 = """\
# comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main

Types: deb
URIs: http://inline.example/debian
Suites: sid
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""
LIST = """\
deb http://one.example/debian bookworm main # trailing
deb [arch=amd64 signed-by=/k.gpg] http://two.example/debian trixie main contrib
deb [ signed-by=/k2.gpg ] http://three.example/debian sid main
deb-src http://src.example/debian bookworm main
# deb http://off.example/debian bookworm main
deb http://flat.example/ ./
"""


def test_deb822_keeps_enabled_binary_sources() -> None:
    first, second = aptsources.parse_deb822(DEB822)
    assert (first.uris, first.suites) == (["http://mirror.example/debian"], ["bookworm", "bookworm-updates"])
    assert first.signed_by == "/usr/share/keyrings/debian.gpg"
    assert second.suites == ["sid"]
    assert second.signed_by == ""


def test_one_line_style() -> None:
    found = [(source.uris[0], source.suites[0], source.signed_by) for source in aptsources.parse_list(LIST)]
    assert found == [
        ("http://one.example/debian", "bookworm", ""),
        ("http://two.example/debian", "trixie", "/k.gpg"),
        ("http://three.example/debian", "sid", "/k2.gpg"),
    ]


def host_with(tmp_path: Path, text: str) -> str:
    parts = tmp_path / "etc/apt/sources.list.d"
    parts.mkdir(parents=True)
    (parts / "debian.sources").write_text(text)
    (parts / "z.list").write_text("deb http://other.example/tool any main\n")
    return str(tmp_path)


def test_the_command_uses_the_hosts_mirror_and_key(tmp_path: Path) -> None:
    root = host_with(tmp_path, DEB822)
    argv = debian.command("bookworm", ["make", "python3"], root)
    assert argv[-3:-1] == ["bookworm", "-"]
    assert (
        argv[-1] == "deb [signed-by=/usr/share/keyrings/debian.gpg] http://mirror.example/debian bookworm main contrib"
    )
    assert "--include=make,python3" in argv
    assert debian.command("trixie", root=root)[-1].endswith("http://mirror.example/debian trixie main contrib")
    assert debian.command("any", root=str(tmp_path / "none"))[-1] == "-"


@pytest.mark.parametrize("word", ["", "-x", "--hook-dir=/x", "a b", "../x", "a,b", "book\n"])
def test_no_word_becomes_an_option(word: str) -> None:
    with pytest.raises(InvalidArgument, match="not the name"):
        debian.command(word)
    with pytest.raises(InvalidArgument, match="not the name"):
        debian.command("bookworm", [word])


def program(tmp_path: Path, text: str) -> str:
    directory = tmp_path / "bin"
    directory.mkdir()
    file = directory / "mmdebstrap"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(directory)


def test_missing_mmdebstrap_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotSupported) as caught:
        debian.make("bookworm")
    assert "mmdebstrap" in caught.value.hint


def test_the_tar_is_passed_on_and_a_failure_has_the_last_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(
        tmp_path,
        'if [ "$FAIL" ]; then echo a; printf "E: no mirror\\nE: mmdebstrap failed to run\\n" >&2; exit 1; fi; echo tar',
    )
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    assert b"".join(debian.make("bookworm")) == b"tar\n"
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(Unavailable, match="E: no mirror") as caught:
        list(debian.make("bookworm"))
    assert "bookworm" in caught.value.hint


def test_a_user_without_a_range_is_told_what_mmdebstrap_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, 'echo "E: unable to pick chroot mode automatically" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable) as caught:
        list(debian.make("bookworm"))
    assert "/etc/subuid" in caught.value.hint


def test_names_of_this_host_are_not_packed_but_localhost_is(tmp_path: Path) -> None:
    words = debian.command("any", root=str(tmp_path))
    hooks = [word.partition("=")[2] for word in words if word.startswith("--customize-hook=")]
    (tmp_path / "etc").mkdir()
    for name in ("hostname", "resolv.conf"):
        (tmp_path / "etc" / name).touch()
    for hook in hooks:
        subprocess.run(["sh", "-c", hook, "sh", str(tmp_path)], check=True)
    assert os.listdir(tmp_path / "etc") == ["hosts"]
    assert (tmp_path / "etc/hosts").read_text().startswith("127.0.0.1\tlocalhost\n::1\tlocalhost")
