"""What a recording disk (recording_disk.py) has logged, and what a cut leaves of it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from disks import unmount
from recording_disk import FLUSH, MARK, RECORD, WRITE

HERE = Path(__file__).resolve().parent
PIECE, SECTOR = 4096, 512
Log = list[tuple[bytes, int, bytes]]
Writes = list[tuple[int, bytes]]


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
        unmount(self.point)
        self.process.communicate(timeout=60)


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


# ---- which of the writes that were not flushed are on the disk: each in its own way a disk may do it ----


def pieces(writes: Writes, size: int) -> Iterator[tuple[int, bytes]]:
    """Cut writes up, but not the superblock: ext4 trusts that both of its sectors are written, or none."""
    for start, data in writes:
        for at in range(0, len(data), PIECE):
            step = size if start + at >= PIECE else PIECE
            for begin in range(at, min(at + PIECE, len(data)), step):
                yield start + begin, data[begin : min(begin + step, at + PIECE)]


def share(part: float, size: int = PIECE) -> Callable[[Writes, random.Random], Writes]:
    """Any pieces of this size, about so many."""
    return lambda writes, chance: [piece for piece in pieces(writes, size) if chance.random() < part]


def begun(writes: Writes, chance: random.Random) -> Writes:
    """In order, up to any sector."""
    found = list(pieces(writes, SECTOR))
    return found[: chance.randint(0, len(found))]


def all_but_one(writes: Writes, chance: random.Random) -> Writes:
    gone = chance.randrange(len(writes)) if writes else 0
    return writes[:gone] + writes[gone + 1 :]


def last(writes: Writes, chance: random.Random) -> Writes:
    """Those that came last only."""
    return writes[chance.randint(0, len(writes)) :]


WAYS: dict[str, Callable[[Writes, random.Random], Writes]] = {
    "nothing": lambda writes, chance: [],
    "all": lambda writes, chance: writes,
    "half": share(0.5),
    "a tenth": share(0.1),
    "nine tenths": share(0.9),
    "half of the sectors": share(0.5, SECTOR),
    "what came first": begun,
    "what came last": last,
    "all but one write": all_but_one,
}


class Remains:
    """What the disk holds as the log goes on: `flushed` for sure, `pending` perhaps."""

    def __init__(self, image: Path, log: Log) -> None:
        self.flushed = bytearray(image.read_bytes())
        self.pending: Writes = []
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

    def write(self, path: Path, chance: random.Random, way: str) -> None:
        """Write the disk as a cut leaves it, with those of the writes that were not flushed which the way gives it."""
        with open(path, "wb") as file:
            file.write(self.flushed)
            for start, data in WAYS[way](self.pending, chance):
                file.seek(start)
                file.write(data)
