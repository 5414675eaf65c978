"""The recording disk (recording_disk.py) as a test uses it: mounting, recording, and what a cut leaves of it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recording_disk import FLUSH, MARK, RECORD, WRITE

HERE = Path(__file__).resolve().parent
PIECE = 4096
Log = list[tuple[bytes, int, bytes]]


@contextmanager
def mounted(what: str, point: Path, options: str = "loop") -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "ext4", "-o", options, what, str(point)], check=True)
    try:
        yield point
    finally:
        unmount(point)


def unmount(point: Path) -> None:
    """Unmount, once what ended there has let go of it."""
    for _ in range(200):
        if subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    subprocess.run(["umount", str(point)], check=True)


class Recorder:
    """The recording disk as a child process."""

    def __init__(self, directory: Path, image: Path) -> None:
        self.point = directory / "recorder"
        self.point.mkdir()
        self.log = directory / "log"
        argv = [sys.executable, "-S", str(HERE / "recording_disk.py"), str(image), str(self.point), str(self.log)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def mark(self, name: str) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(name + "\n")
        assert self.process.stdout.readline() == name + "\n"

    def close(self) -> None:
        subprocess.run(["umount", str(self.point)], check=True)
        self.process.communicate(timeout=20)


def read_log(path: Path) -> Log:
    data = path.read_bytes()
    found: Log = []
    at = 0
    while at < len(data):
        kind, offset, length = RECORD.unpack_from(data, at)
        at += RECORD.size
        found.append((kind, offset, data[at : at + length]))
        at += length
    return found


class Remains:
    """What the disk holds as the log goes on: `flushed` for sure, `pending` perhaps."""

    def __init__(self, image: Path, log: Log) -> None:
        self.flushed = bytearray(image.read_bytes())
        self.pending: list[tuple[int, bytes]] = []
        self.log = log
        self.at = 0
        self.marks: list[str] = []

    def advance(self, to: int) -> None:
        for kind, offset, data in self.log[self.at : to]:
            if kind == WRITE:
                self.pending.append((offset, data))
            elif kind == FLUSH:
                for start, piece in self.pending:
                    self.flushed[start : start + len(piece)] = piece
                self.pending.clear()
            elif kind == MARK:
                self.marks.append(data.decode())
        self.at = max(self.at, to)

    def write(self, path: Path, chance: random.Random, share: float) -> None:
        """Write the disk as a cut leaves it, with a `share` of the pieces that were not flushed."""
        with open(path, "wb") as file:
            file.write(self.flushed)
            for start, data in self.pending:
                for at in range(0, len(data), PIECE):
                    if chance.random() < share:
                        file.seek(start + at)
                        file.write(data[at : at + PIECE])
