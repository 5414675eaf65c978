"""Reads a container's log: Docker's json-file lines, oldest rotated file first."""

from __future__ import annotations

import os
import time

from sampan.errors import InvalidArgument, NotFound, NotSupported
from sampan.oci import jsontext, logopts, timestamp
from sampan.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.engine.engine import Engine

_POLL = 0.05  # seconds between two looks at a growing file


def _utc(moment: float | str) -> str:
    """Return a moment as the log writes it; a float of this century tells only every fourth of a microsecond apart."""
    if isinstance(moment, str):
        whole, nanoseconds = divmod(timestamp.parse(moment), 1_000_000_000)
    else:
        whole = int(moment // 1)
        nanoseconds = int((moment - whole) * 1e9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{nanoseconds:09d}Z"


def _inode(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


class Files:
    """Read the files of a log in order, across rotations, nothing twice: `log.2`, `log.1`, `log`.

    A reader that is slower than all files are rotated away misses what went with them.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.pending = b""
        self.fd = -1

    def _look(self) -> list[tuple[str, int]]:
        """List the files that there are, oldest first, with their inodes."""
        directory, name = os.path.split(self.path)
        try:
            older = [word[len(name) + 1 :] for word in os.listdir(directory) if word.startswith(f"{name}.")]
        except FileNotFoundError:
            return []
        numbers = sorted((int(word) for word in older if word.isdecimal()), reverse=True)
        names = [*(f"{self.path}.{number}" for number in numbers), self.path]
        return [(name, inode) for name in names if (inode := _inode(name))]

    def _open_next(self) -> bool:
        """Open the file that follows the one that was read to its end; say whether there is one.

        They may be renamed meanwhile, one after the other (helper/log.c): then it looks again.
        """
        own = os.fstat(self.fd).st_ino if self.fd >= 0 else 0
        while True:
            files = self._look()
            place = next((i for i, (_, inode) in enumerate(files) if inode == own), -1)
            if place == len(files) - 1:
                return False
            try:
                fd = os.open(files[place + 1][0], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            if self._look() == files:
                self.close()
                self.fd = fd
                return True
            os.close(fd)

    def lines(self) -> Iterator[bytes]:
        """Give the whole lines since the last call."""
        while True:
            # Asked first: what is written until then is read below.
            rotated = self.fd < 0 or os.fstat(self.fd).st_ino != _inode(self.path)
            while self.fd >= 0 and (part := os.read(self.fd, 1 << 16)):
                *whole, self.pending = (self.pending + part).split(b"\n")
                yield from (line + b"\n" for line in whole)
            if not rotated or not self._open_next():
                return

    def close(self) -> None:
        """Close the file; half a line in it is none."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.pending = -1, b""


def _tail(lines: Iterator[bytes], count: int) -> list[bytes]:
    kept: list[bytes] = []
    for line in lines:
        kept.append(line)
        if len(kept) > 2 * count + 1000:
            del kept[: len(kept) - count]
    return kept[len(kept) - count :] if count else []


class _Show:
    """Write lines of the log to two descriptors, those between two moments only."""

    def __init__(
        self, since: float | str | None, until: float | str | None, timestamps: bool, details: bool, out: int, err: int
    ) -> None:
        self.first = "" if since is None else _utc(since)
        self.last = "" if until is None else _utc(until)
        self.timestamps, self.details, self.out, self.err = timestamps, b" " if details else b"", out, err

    def wanted(self, entry: dict[str, Any]) -> bool:
        stamp = entry["time"]
        return not (self.first and stamp < self.first) and not (self.last and stamp > self.last)

    def line(self, line: bytes) -> None:
        entry = parse(line)
        if entry is None or not self.wanted(entry):
            return
        text = self.details + entry["log"].encode("utf-8", "replace")
        view = memoryview(f"{entry['time']} ".encode() + text if self.timestamps else text)
        fd = self.err if entry["stream"] == "stderr" else self.out
        try:
            while view:
                view = view[os.write(fd, view) :]
        except BrokenPipeError:
            raise
        except OSError as exc:
            from sampan.store.wholefile import full

            raise full(f"cannot write the log to standard {'error' if fd == self.err else 'output'}", exc) from exc


def parse(line: bytes) -> dict[str, Any] | None:
    """Read one line of the log; None for half a line, which a full disk may leave."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = jsontext.loads(line)
    except InvalidArgument:
        return None
    return entry if isinstance(entry, dict) and {"log", "stream", "time"} <= entry.keys() else None


def logs(
    engine: Engine,
    name: str,
    *,
    follow: bool = False,
    tail: str = "all",
    since: float | str | None = None,
    until: float | str | None = None,
    timestamps: bool = False,
    details: bool = False,
    stdout_fd: int = 1,
    stderr_fd: int = 2,
) -> None:
    """Write the log to the two descriptors; with `follow` until the container ends, or until `until`.

    `since` and `until` are unix seconds, or RFC 3339 times, exact to the nanosecond; a line of either moment is shown.
    `tail` is a number of lines, or `all`; `details` puts what log options add to each line before it, which is nothing,
    and Docker's space.
    """
    record = engine.containers.get(name)
    if not logopts.settings(record.options).kept:
        raise NotSupported(f"cannot show the log of container {record.name}: it keeps none (--log-driver none)")
    if tail not in ("", "all") and not (tail.isascii() and tail.isdigit()):
        raise InvalidArgument(f"cannot show the last {tail!r} lines", "--tail takes a number or `all`")
    show = _Show(since, until, timestamps, details, stdout_fd, stderr_fd)
    files = Files(os.path.join(engine.store.paths.container(record.id), "log"))
    try:
        lines = files.lines()
        if tail not in ("", "all"):
            wanted = (line for line in lines if (entry := parse(line)) is not None and show.wanted(entry))
            lines = iter(_tail(wanted, int(tail)))
        for line in lines:
            show.line(line)
        if follow:
            _follow(engine, record.id, files, show, timestamp.parse(until) / 1e9 if isinstance(until, str) else until)
    finally:
        files.close()


def _follow(engine: Engine, container_id: str, files: Files, show: _Show, until: float | None) -> None:
    running = True
    while running and (until is None or time.time() < until):
        try:
            record = engine.containers.get(container_id)
            running = record.status in ("running", "paused", "restarting")
        except NotFound:
            running = False
        for line in files.lines():
            show.line(line)
        while running and process.alive(record.pid, record.pid_start, record.boot_id):
            time.sleep(_POLL)
            for line in files.lines():
                show.line(line)
            if until is not None and time.time() >= until:
                return
        if running and record.status == "restarting":
            time.sleep(_POLL)
