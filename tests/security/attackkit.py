"""Hostile images, and what is needed to see what became of them."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import tarfile
import tempfile
import time

import sampan

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.geteuid() == 0
PROGRAMS = ["sh", "cat", "ls", "id", "sleep", "env", "stat", "head", "sort", "true", "false"]
PROGRAMS += ["mount", "rm", "ln", "mkdir", "touch"]


class Image:
    """Write a tar of one hostile image."""

    def __init__(self, program: str = "") -> None:
        self.file = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.file, mode="w")
        if program:
            with open(program, "rb") as source:
                self.add("attack", source.read(), mode=0o755)

    def add(
        self,
        name: str,
        data: bytes = b"",
        kind: bytes = tarfile.REGTYPE,
        link: str = "",
        mode: int = 0o644,
        xattrs: dict[str, str] | None = None,
    ) -> Image:
        entry = tarfile.TarInfo(name)
        entry.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        entry.type, entry.linkname, entry.size, entry.mode = kind, link, len(data), mode
        self.tar.addfile(entry, io.BytesIO(data))
        return self

    def link(self, name: str, target: str) -> Image:
        return self.add(name, kind=tarfile.SYMTYPE, link=target)

    def load(self, engine: sampan.Engine, name: str, changes: tuple[str, ...] = ()) -> str:
        self.tar.close()
        read, write = os.pipe()
        os.close(write)
        with tempfile.TemporaryFile() as spool:
            spool.write(self.file.getvalue())
            spool.seek(0)
            engine.images.import_(spool.fileno(), name, changes)
        os.close(read)
        return name


def table(data: bytes) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in (line.split() for line in data.decode().splitlines())}


def status(data: bytes) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in data.decode().splitlines() if ":\t" in line)


def command(engine: sampan.Engine, *words: str, **settings: object) -> subprocess.CompletedProcess[bytes]:
    settings.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(engine.command(list(words)), capture_output=True, timeout=120, **settings)  # type: ignore[call-overload, no-any-return]


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def in_terminal(words: list[str]) -> bytes:
    """Run with a terminal of our own as the caller's and give what it shows."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(words[0], words)
    out, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        out += part
    os.close(master)
    os.waitpid(pid, 0)
    return out


def answers(shown: bytes) -> list[int]:
    lines = [line.split() for line in shown.replace(b"\r", b"").splitlines()]
    return [int(words[1]) for words in lines if len(words) == 2 and words[0].endswith(b"sti")]


def descendants(pid: int) -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = open(f"/proc/{name}/stat", encoding="ascii", errors="replace").read()
            except OSError:
                continue
            state, parent = text[text.rindex(")") + 2 :].split()[:2]
            if int(parent) == pid:
                found.append((int(name), state))
    return found


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def gone(pid: int) -> bool:
    """Say whether a process has ended; the host's first process may be slow to collect it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True
