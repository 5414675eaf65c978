"""Runs the C side of the tree protocol through a small harness, and compares trees by what the kernel says of them."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import SampanError
from sampan.oci.entry import Entry
from sampan.oci.layer import TarReader, to_overlay
from sampan.runtime import tree

if TYPE_CHECKING:
    from sampan.oci.entry import Source

HERE = Path(__file__).parent
HELPER = HERE.parent.parent / "helper"
SOURCES = [
    HERE / "harness.c",
    *(HELPER / f"{n}.c" for n in ("stream", "walk", "names", "place", "apply", "record", "send", "pack")),
]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
OPAQUE = "trusted.overlay.opaque"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="sets owners and devices: needs root")


def compile_harness(target: Path, *flags: str) -> Path:
    subprocess.run(["cc", *WARNINGS, "-g", "-O2", *flags, *map(str, SOURCES), "-o", str(target)], check=True)
    return target


class Harness:
    """One compiled harness; `prefix` is a command that starts it as someone else."""

    def __init__(self, program: Path, prefix: Iterable[str] = ()) -> None:
        self.program = program
        self.prefix = list(prefix)

    def start(self, verb: str, root: Path, flags: int, base: str, opaque: str, **how: Any) -> subprocess.Popen[bytes]:
        command = [*self.prefix, str(self.program), verb, str(root), str(flags), base, opaque]
        return subprocess.Popen(command, stderr=subprocess.PIPE, **how)

    def raw(self, root: Path, data: bytes, flags: int = 0, base: str = "", opaque: str = "") -> SampanError | None:
        """Apply bytes as they are; return the failure that the harness reports."""
        process = self.start("apply", root, flags, base, opaque, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        _, text = process.communicate(data)
        return reported(process, text)

    def apply(
        self,
        root: Path,
        source: Source | Callable[[tree.Applier], None],
        flags: int = 0,
        base: str = "",
        opaque: str = "",
    ) -> None:
        """Apply a source, or what a function does with the Applier; raise what went wrong."""
        process = self.start("apply", root, flags, base, opaque, stdin=subprocess.PIPE)
        assert process.stdin and process.stderr
        stdin, stderr = process.stdin, process.stderr

        def reason() -> None:
            stdin.close()
            if failed := reported(process, stderr.read()):
                raise failed

        try:
            applier = tree.Applier(process.stdin.fileno(), reason)
            if callable(source):
                source(applier)
            else:
                applier.feed(source)
            applier.end()
        finally:
            process.stdin.close()
            text = b"" if process.stderr.closed else process.stderr.read()
            process.stderr.close()
            process.wait()
        if failed := reported(process, text):
            raise failed

    def apply_tar(self, root: Path, data: bytes, flags: int = 0, base: str = "", opaque: str = "") -> None:
        reader = TarReader(io.BytesIO(data).read)
        self.apply(root, to_overlay(reader, opaque) if opaque else reader, flags, base, opaque)

    def pack(self, root: Path, flags: int = 0, base: str = "", opaque: str = "") -> list[tuple[Entry, bytes]]:
        """Pack a tree into memory, contents with their holes filled."""
        with Packing(self, root, flags, base, opaque) as packer:
            return gather(packer)

    def pack_tar(self, root: Path, flags: int = 0, opaque: str = "") -> bytes:
        out = io.BytesIO()
        with Packing(self, root, flags, "", opaque) as packer:
            assert tree.entries_to_tar(packer, out.write, opaque) == out.tell()
        return out.getvalue()


class Packing:
    """A running pack; the context value is its Packer."""

    def __init__(self, harness: Harness, root: Path, flags: int = 0, base: str = "", opaque: str = "") -> None:
        pipe = subprocess.PIPE
        self.process = harness.start("pack", root, flags, base, opaque, stdin=pipe, stdout=pipe)

    def __enter__(self) -> tree.Packer:
        assert self.process.stdin and self.process.stdout
        return tree.Packer(self.process.stdout.fileno(), self.process.stdin.fileno())

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()
        self.process.wait()


def reported(process: subprocess.Popen[bytes], text: bytes) -> SampanError | None:
    process.wait()
    if process.returncode == 0:
        assert not text, text
        return None
    assert process.returncode == 1, (process.returncode, text.decode(errors="replace"))
    phase, number, path = text.rstrip(b"\n").split(b" ", 2)
    return tree.failure(int(phase), int(number), path)


def gather(packer: tree.Packer) -> list[tuple[Entry, bytes]]:
    found = []
    for entry, content in packer:
        data = bytearray(entry.size if content else 0)
        for offset, piece in content:
            data[offset : offset + len(piece)] = piece
        found.append((entry, bytes(data)))
    return found


def member(
    name: str | bytes, type: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
    info.type = type
    info.size = len(data)
    info.mode = 0o755 if type == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def describe(root: Path, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a layer carries, by path; files that are linked share their number."""
    found: dict[str, tuple[object, ...]] = {}
    links: dict[tuple[int, int], str] = {}
    for directory, below, files in os.walk(root):
        links_to_directories = [name for name in below if os.path.islink(os.path.join(directory, name))]
        for name in ["", *sorted(files + links_to_directories)]:
            full = os.path.join(directory, name) if name else directory
            path = os.path.relpath(full, root)
            found[path] = _one(full, path, links, times)
    return found


def _one(full: str, path: str, links: dict[tuple[int, int], str], times: bool) -> tuple[object, ...]:
    st = os.lstat(full)
    content: object = None
    if stat.S_ISREG(st.st_mode):
        content = Path(full).read_bytes()
    elif stat.S_ISLNK(st.st_mode):
        content = os.readlink(full)
    elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        content = st.st_rdev
    xattrs = {n: os.getxattr(full, n, follow_symlinks=False) for n in os.listxattr(full, follow_symlinks=False)}
    first = links.setdefault((st.st_dev, st.st_ino), path)
    owner = (st.st_mode, st.st_uid, st.st_gid)
    return (*owner, st.st_mtime_ns if times else 0, content, tuple(sorted(xattrs.items())), first)


def gnu_tar() -> str:
    found = shutil.which("tar")
    if not found or "GNU tar" not in subprocess.run([found, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("GNU tar is the control of this test")
    return found
