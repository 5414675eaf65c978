"""Whatever an archive says, nothing outside of the root is read, written, linked, changed or removed.

Every case is a way out (a vector) with something to do there (a payload).  The naive control must be harmed by each.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import naive
import pytest
from treesupport import OPAQUE, Harness, archive, describe, member, needs_root

from sampan.errors import IntegrityError, SampanError
from sampan.oci.entry import Entry
from sampan.oci.layer import TarReader, to_removals
from sampan.runtime import tree

pytestmark = needs_root

Member = tuple[tarfile.TarInfo, bytes]
LINK, HARD, DIR, FIFO, CHAR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE


def symlink(name: str, target: str) -> Member:
    return member(name, LINK, linkname=target)


# A vector: (members that prepare the way, the prefix that then leads to the outside directory).
VECTORS: dict[str, Callable[[str], tuple[list[Member], str]]] = {
    "dotdot": lambda out: ([], "../outside"),
    "dotdot-after-directory": lambda out: ([member("a", DIR)], "a/../../outside"),
    "dotdot-after-dot": lambda out: ([], "./../outside"),
    "dotdot-deep": lambda out: ([member("a/b/c", DIR)], "a/b/c/../../../../outside"),
    "absolute": lambda out: ([], out),
    "absolute-double-slash": lambda out: ([], "/" + out),
    "absolute-dotdot": lambda out: ([], "/.." + out),
    "symlink-absolute": lambda out: ([symlink("l", out)], "l"),
    "symlink-relative": lambda out: ([symlink("l", "../outside")], "l"),
    "symlink-slash-end": lambda out: ([symlink("l", out + "/")], "l"),
    "symlink-chain": lambda out: ([symlink("one", "two"), symlink("two", out)], "one"),
    "symlink-of-symlink-component": lambda out: ([symlink("up", ".."), symlink("l", "up/outside")], "l"),
    "symlink-up": lambda out: ([symlink("up", "..")], "up/outside"),
    "symlink-to-root": lambda out: ([symlink("r", "/")], "r" + out),
    "symlink-nested": lambda out: ([member("d", DIR), symlink("d/l", "../../outside")], "d/l"),
    "symlink-replaces-directory": lambda out: ([member("d", DIR), symlink("d", out)], "d"),
    "symlink-many-dotdots": lambda out: ([symlink("l", "../" * 40 + out)], "l"),
    "symlink-then-dotdot": lambda out: ([member("a", DIR), symlink("a/l", "../../outside")], "a/./l"),
    "symlink-implied-parent": lambda out: ([symlink("x/y/l", "../../../outside")], "x/y/l"),
    "symlink-through-proc": lambda out: ([symlink("p", "/proc/self/root" + out)], "p"),
    "symlink-long-name": lambda out: ([symlink("n" * 120, out)], "n" * 120),
}


def chmod_through(prefix: str) -> list[Member]:
    """CVE-2021-32760: a hard link to a symbolic link, whose mode is then set through it."""
    return [symlink("s", prefix + "/canary"), member("h", HARD, linkname="s", mode=0o777)]


PAYLOADS: dict[str, Callable[[str], list[Member]]] = {
    "create": lambda p: [member(p + "/new", data=b"x")],
    "overwrite": lambda p: [member(p + "/canary", data=b"x")],
    "directory-mode": lambda p: [member(p + "/dir", DIR, mode=0o777)],
    "whiteout": lambda p: [member(p + "/.wh.canary")],
    "opaque": lambda p: [member(p + "/.wh..wh..opq")],
    "fifo": lambda p: [member(p + "/fifo", FIFO)],
    "device": lambda p: [member(p + "/device", CHAR, devmajor=1, devminor=3)],
    "symlink": lambda p: [symlink(p + "/dir/link", "x")],
    "hard-link-out": lambda p: [member("h", HARD, linkname=p + "/canary"), member("h", data=b"through the link")],
}

CASES = [(vector, payload) for vector in VECTORS for payload in PAYLOADS]


def layout(base: Path) -> tuple[Path, Path]:
    (base / "root").mkdir(parents=True)
    (base / "root-x").mkdir()
    (base / "root-x/canary").write_bytes(b"sibling")
    (base / "outside/dir").mkdir(parents=True)
    (base / "outside/canary").write_bytes(b"alive")
    os.chmod(base / "outside/canary", 0o600)
    return base / "root", base / "outside"


def state(base: Path) -> list[dict[str, tuple[object, ...]]]:
    return [describe(base / "outside"), describe(base / "root-x"), {"": (sorted(os.listdir(base)),)}]


def attack(base: Path, make: Callable[[str], list[Member]], run: Callable[[Path, bytes], object]) -> bool:
    """Run the attack in a fresh place, and tell whether anything outside of the root changed."""
    root, outside = layout(base)
    before = state(base)
    run(root, archive(*make(str(outside))))
    return state(base) != before


def apply_contained(harness: Harness, merged: bool) -> Callable[[Path, bytes], object]:
    def run(root: Path, data: bytes) -> None:
        try:
            if merged:
                harness.apply(root, to_removals(TarReader(io.BytesIO(data).read)), tree.MERGE)
            else:
                harness.apply_tar(root, data, opaque=OPAQUE)
        except SampanError as error:
            assert not isinstance(error, AssertionError)

    return run


def check(tmp_path: Path, harness: Harness, make: Callable[[str], list[Member]]) -> None:
    harmed = attack(tmp_path / "control", make, lambda root, data: naive.extract(str(root), data))
    assert harmed, "the attack is no attack"
    assert not attack(tmp_path / "layer", make, apply_contained(harness, merged=False))
    assert not attack(tmp_path / "merged", make, apply_contained(harness, merged=True))


@pytest.mark.parametrize(("vector", "payload"), CASES, ids=lambda value: str(value))
def test_nothing_outside_is_touched(tmp_path: Path, plain: Harness, vector: str, payload: str) -> None:
    def make(out: str) -> list[Member]:
        members, prefix = VECTORS[vector](out)
        return members + PAYLOADS[payload](prefix)

    check(tmp_path, plain, make)


SPECIALS: dict[str, Callable[[str], list[Member]]] = {
    "sibling-prefix": lambda out: [member("../root-x/canary", data=b"x")],
    "sibling-prefix-symlink": lambda out: [symlink("l", "../root-x"), member("l/canary", data=b"x")],
    "chmod-through-hard-link": lambda out: chmod_through(out),
    "chmod-through-relative-hard-link": lambda out: chmod_through("../outside"),
    "file-over-symlink-to-file": lambda out: [symlink("f", out + "/canary"), member("f", data=b"x")],
    "file-over-dangling-symlink": lambda out: [symlink("f", out + "/made"), member("f", data=b"x")],
    "directory-over-symlink": lambda out: [symlink("d", out + "/dir"), member("d", DIR, mode=0o777)],
    "new-directories-through-symlink": lambda out: [symlink("d", out + "/dir"), member("d/e/f", DIR)],
    "hard-link-to-symlinked-parent": lambda out: [
        symlink("l", out),
        member("h", HARD, linkname="l/canary"),
        member("h", data=b"x"),
    ],
    "hard-link-mode": lambda out: [member("h", HARD, linkname="../outside/canary", mode=0o777)],
    "fifo-over-symlink": lambda out: [symlink("d", out), member("d/dir/fifo", FIFO)],
    "whiteout-dotdot": lambda out: [symlink("l", out), member("l/dir/.wh..."), member("l/dir/new")],
    "whiteout-of-parent": lambda out: [member("a", DIR), member("../.wh.outside")],
    "opaque-of-parent": lambda out: [member("../.wh..wh..opq")],
}


@pytest.mark.parametrize("name", SPECIALS)
def test_special_ways_out_are_closed(tmp_path: Path, checked: Harness, name: str) -> None:
    check(tmp_path, checked, SPECIALS[name])


def test_the_matrix_is_as_large_as_promised() -> None:
    assert len(CASES) + len(SPECIALS) >= 80


def test_another_process_swaps_a_directory_for_a_symlink_meanwhile(tmp_path: Path, plain: Harness) -> None:
    def run_raced(base: Path, extract: Callable[[Path, bytes], object]) -> bool:
        root, outside = layout(base)
        (root / "d").mkdir()
        os.symlink(outside / "dir", root / "evil")
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                for old, new in (("d", "kept"), ("evil", "d"), ("d", "evil"), ("kept", "d")):
                    try:
                        os.rename(root / old, root / new)
                    except OSError:
                        stop.wait(0.0001)

        thread = threading.Thread(target=swap)
        before = state(base)
        thread.start()
        try:
            extract(root, archive(*[member(f"d/{n}/f", data=b"x") for n in range(3000)]))
        finally:
            stop.set()
            thread.join()
        return state(base) != before

    harmed = any(run_raced(tmp_path / f"control{n}", lambda r, d: naive.extract(str(r), d)) for n in range(100))
    assert harmed, "the race is no race"
    for n in range(3):
        assert not run_raced(tmp_path / f"ours{n}", apply_contained(plain, merged=False))


@pytest.mark.parametrize("name", [".wh.", ".wh..", "d/.wh...", ".wh.../x", ".wh.a/x"])
def test_whiteouts_of_nothing_are_refused(root: Path, plain: Harness, name: str) -> None:
    (root / "canary").write_bytes(b"alive")
    with pytest.raises(IntegrityError):
        plain.apply_tar(root, archive(member(name)), opaque=OPAQUE)
    assert os.listdir(root) == ["canary"]


def test_mutated_streams_neither_crash_nor_escape(tmp_path: Path, checked: Harness) -> None:
    base = tmp_path / "place"
    root, _ = layout(base)
    chance = random.Random(7)
    good = stream(
        archive(
            member("d", DIR),
            member("d/f", data=b"some content" * 50, pax_headers={"SCHILY.xattr.user.a": "b"}),
            symlink("l", "../outside"),
            member("l/x", data=b"y"),
            member("h", HARD, linkname="d/f"),
            member("n", CHAR, devmajor=1, devminor=3),
        )
    )
    before = state(base)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x2E, 0x2F, 0x7F, 0xFF, chance.randrange(256)))
        checked.raw(root, bytes(data[: chance.choice((len(data), chance.randrange(len(data))))]), opaque=OPAQUE)
        assert state(base) == before


def stream(data: bytes) -> bytes:
    """The entry stream of an archive."""
    read, write = os.pipe()
    applier = tree.Applier(write)
    applier.feed(TarReader(io.BytesIO(data).read))
    applier.end()
    os.close(write)
    with open(read, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "path", [b"/a", b"a/", b"a//b", b".", b"..", b"a/..", b"a/../b", b"./a", b"a\0b", b"a" * 65536], ids=repr
)
def test_the_helper_itself_refuses_paths_that_are_not_plain(root: Path, checked: Harness, path: bytes) -> None:
    data = tree.encode_entry(Entry("D", path, 0o755)) + tree.encode_entry(Entry("E", b""))
    assert isinstance(checked.raw(root, data), IntegrityError)
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": (1 << 32) - 1},
        {"gid": (1 << 32) - 1},
        {"mode": 0o10000},
        {"mtime_nsec": 1_000_000_000},
        {"major": 4096, "type": "C"},
        {"minor": 1 << 20, "type": "B"},
        {"size": 1 << 63},
        {"link": b"x"},
        {"type": "L"},
        {"type": "H", "link": b"../x"},
        {"type": "S"},
        {"type": "W"},
        {"type": "?"},
        {"xattrs": {b"trusted.overlay.redirect": b"/x"}},
        {"xattrs": {b"security.selinux": b"x"}},
        {"xattrs": {b"user.overlay.opaque": b"y"}},
        {"xattrs": {b"user." + b"n" * 251: b"x"}},
        {"type": "L", "link": b"x" * 4096},
        {"type": "F", "path": b""},
    ],
    ids=repr,
)
def test_the_helper_itself_refuses_values_out_of_range(root: Path, checked: Harness, fields: dict[str, object]) -> None:
    entry = Entry("D", b"x", 0o755)
    for name, value in fields.items():
        setattr(entry, name, value)
    tail = bytes(12) if entry.type == "F" else b""
    data = tree.encode_entry(entry) + tail + tree.encode_entry(Entry("E", b""))
    failed = checked.raw(root, data, opaque=OPAQUE)
    assert failed and "cannot accept the entry" in str(failed), failed
