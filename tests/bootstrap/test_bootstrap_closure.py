"""closure: the search order of ld.so and of musl, links and scripts, on trees made here and on this host."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elfmaker import make_elf

from sampan.bootstrap.closure import Libraries, expand, parse_cache, shebang
from sampan.errors import InvalidArgument, NotFound

KIND = (62, 64)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """An empty tree that stands for a host."""
    return tmp_path


def put(host: Path, path: str, data: bytes, mode: int = 0o755) -> None:
    file = host / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    file.chmod(mode)


def cache(entries: list[tuple[str, str, int]]) -> bytes:
    strings = b""
    start = 48 + 24 * len(entries)
    table = b""
    for key, value, hwcap in entries:
        table += struct.pack("=iIIIQ", 0x303, start + len(strings), start + len(strings) + len(key) + 1, 0, hwcap)
        strings += key.encode() + b"\0" + value.encode() + b"\0"
    return struct.pack("=20sII20x", b"glibc-ld.so.cache1.1", len(entries), len(strings)) + table + strings


def test_follows_interpreter_and_libraries_of_libraries(host: Path) -> None:
    put(host, "/bin/app", make_elf(["liba.so"], interpreter="/lib64/ld.so"))
    put(host, "/lib64/ld.so", make_elf())
    put(host, "/usr/lib/liba.so", make_elf(["libb.so"]))
    put(host, "/lib/libb.so", make_elf(["liba.so"]))
    found = Libraries(str(host)).closure("/bin/app")
    assert sorted(found) == ["/bin/app", "/lib/libb.so", "/lib64/ld.so", "/usr/lib/liba.so"]


def test_rpath_is_inherited_and_runpath_is_not(host: Path) -> None:
    put(host, "/r/app", make_elf(["liba.so"], rpath="$ORIGIN/private"))
    put(host, "/r/private/liba.so", make_elf(["libb.so"]))
    put(host, "/r/private/libb.so", make_elf())
    put(host, "/n/app", make_elf(["liba.so"], runpath="${ORIGIN}/private"))
    put(host, "/n/private/liba.so", make_elf(["libb.so"]))
    put(host, "/n/private/libb.so", make_elf())
    libraries = Libraries(str(host))
    assert "/r/private/libb.so" in libraries.closure("/r/app")
    with pytest.raises(NotFound, match=r"cannot find library libb.so that /n/private/liba.so needs"):
        libraries.closure("/n/app")
    assert "/n/private/liba.so" in libraries.closure("/n/app", lenient=True)


def test_runpath_makes_rpath_of_the_same_file_void(host: Path) -> None:
    put(host, "/app", make_elf(["liba.so"], rpath="/one", runpath="/two"))
    put(host, "/one/liba.so", make_elf())
    put(host, "/two/liba.so", make_elf())
    assert Libraries(str(host)).closure("/app") == ["/app", "/two/liba.so"]


def test_a_library_of_another_word_size_is_passed_over(host: Path) -> None:
    put(host, "/app", make_elf(["liba.so"]))
    put(host, "/lib64/liba.so", make_elf(bits=32))
    put(host, "/usr/lib/liba.so", make_elf())
    assert Libraries(str(host)).closure("/app") == ["/app", "/usr/lib/liba.so"]


def test_the_cache_comes_before_the_default_directories_and_special_processors_are_left_out(host: Path) -> None:
    put(host, "/app", make_elf(["liba.so"]))
    put(host, "/opt/liba.so", make_elf())
    put(host, "/opt/hwcaps/liba.so", make_elf())
    put(host, "/lib/liba.so", make_elf())
    table = cache([("liba.so", "/opt/hwcaps/liba.so", 1 << 62), ("liba.so", "/opt/liba.so", 0)])
    put(host, "/etc/ld.so.cache", table)
    libraries = Libraries(str(host))
    assert libraries.closure("/app") == ["/app", "/opt/liba.so"]
    assert libraries.from_cache
    assert parse_cache(b"ld.so-1.7.0\0" + bytes(36) + table) == {"liba.so": ["/opt/liba.so"]}


def test_a_damaged_cache_is_refused_or_empty(host: Path) -> None:
    good = cache([("liba.so", "/opt/liba.so", 0)])
    assert parse_cache(b"") == {}
    assert parse_cache(good[:60]) == {}
    with pytest.raises(InvalidArgument, match="cannot read /etc/ld.so.cache"):
        parse_cache(good[:52] + struct.pack("=II", 1 << 31, 1 << 31) + good[60:])


def test_musl_has_its_own_path_file_and_inherits_runpath(host: Path) -> None:
    loader = "/lib/ld-musl-x86_64.so.1"
    put(host, loader, make_elf())
    put(host, "/etc/ld-musl-x86_64.path", b"/m/one\n/m/two\n", 0o644)
    put(host, "/bin/app", make_elf(["liba.so", "libc.so", "libp.so"], interpreter=loader, runpath="/m/run"))
    put(host, "/m/run/libp.so", make_elf(["libq.so"]))
    put(host, "/m/run/libq.so", make_elf())
    put(host, "/m/two/liba.so", make_elf())
    put(host, "/lib/liba.so", make_elf())
    found = Libraries(str(host)).closure("/bin/app")
    assert sorted(found) == ["/bin/app", loader, "/m/run/libp.so", "/m/run/libq.so", "/m/two/liba.so"]


def test_scripts_bring_their_interpreter_and_what_env_looks_up(host: Path) -> None:
    put(host, "/bin/sh", make_elf())
    put(host, "/usr/bin/env", make_elf())
    put(host, "/usr/bin/tool", make_elf())
    put(host, "/one", b"#!/bin/sh -e\n")
    put(host, "/two", b"#! /usr/bin/env -S tool\n")
    libraries = Libraries(str(host))
    assert libraries.closure("/one") == ["/one", "/bin/sh"]
    assert sorted(libraries.closure("/two")) == ["/two", "/usr/bin/env", "/usr/bin/tool"]
    assert shebang(b"\x7fELF") == []


def test_a_missing_program_is_named(host: Path) -> None:
    with pytest.raises(NotFound, match="cannot find program nonesuch on this host"):
        Libraries(str(host)).which("nonesuch", "/opt/bin")
    with pytest.raises(NotFound, match="/bin/nonesuch"):
        Libraries(str(host)).closure("/bin/nonesuch")


def test_expand_knows_origin_and_lib_and_drops_relative_paths() -> None:
    assert expand("$ORIGIN/../lib", "/opt/app/bin/x", KIND) == ["/opt/app/lib"]
    assert "/usr/lib64" in expand("/usr/$LIB", "/x", KIND)
    assert expand("lib", "/x", KIND) == []
    assert expand("", "/x", KIND) == []
    assert expand("/a/$PLATFORM", "/x", KIND) == []


@pytest.mark.skipif(not shutil.which("ldd"), reason="no ldd on this host")
@pytest.mark.parametrize("program", ["ls", "make", "sh"])
def test_agrees_with_ldd(program: str) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} on this host")
    real = os.path.realpath(path)
    listed = subprocess.run(["ldd", real], capture_output=True, text=True, check=True).stdout
    wanted = {os.path.realpath(word) for word in listed.split() if word.startswith("/")}
    found = {os.path.realpath(name) for name in Libraries().closure(real)}
    assert found == wanted | {real}
