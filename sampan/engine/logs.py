"""Reads a container's log: Docker's json-file lines, oldest rotated file first."""

from __future__ import annotations

import os
import time

from sampan.errors import InvalidArgument, NotFound
from sampan.oci import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.engine import Engine

_FILES = 3


def moment(text: str, now: float) -> str:
    """Turn --since/--until (seconds since 1970, a duration such as 10m, or RFC 3339) into a UTC time text."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if not text:
        return ""
    try:
        if text[-1] in units and text[:-1].replace(".", "").isdigit():
            return _utc(now - float(text[:-1]) * units[text[-1]])
        if text.replace(".", "").isdigit():
            return _utc(float(text))
        import datetime

        value = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return _utc(value.timestamp())
    except ValueError as error:
        raise InvalidArgument(
            f"cannot read time {text!r}", "for example 10m, 2026-01-31T10:00:00Z or seconds since 1970"
        ) from error


def _utc(seconds: float) -> str:
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e9):09d}Z"


class _Current:
    """Read a growing log by its descriptor: what is written before a rotation is read to its end, nothing twice."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pending = b""
        self.fd = -1
        self._open()

    def _open(self) -> None:
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self.fd = -1

    def is_file(self, path: str) -> bool:
        """Say whether `path` is the file that is open."""
        try:
            return self.fd >= 0 and os.path.samestat(os.stat(path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def lines(self) -> Iterator[bytes]:
        """Give the whole lines since the last call."""
        while True:
            rotated = not self.is_file(self.path)
            while self.fd >= 0 and (part := os.read(self.fd, 1 << 16)):
                *whole, self.pending = (self.pending + part).split(b"\n")
                yield from (line + b"\n" for line in whole)
            if not rotated:
                return
            self.close()
            self._open()
            if self.fd < 0:
                return

    def close(self) -> None:
        """Close the file; half a line in it is none."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.pending = -1, b""


def _lines(path: str, current: _Current) -> Iterator[bytes]:
    for number in range(_FILES - 1, 0, -1):
        try:
            with open(f"{path}.{number}", "rb") as file:
                if not current.is_file(file.name):
                    yield from file
        except FileNotFoundError:
            continue
    yield from current.lines()


def _tail(lines: Iterator[bytes], count: int) -> list[bytes]:
    kept: list[bytes] = []
    for line in lines:
        kept.append(line)
        if len(kept) > 2 * count + 1000:
            del kept[: len(kept) - count]
    return kept[len(kept) - count :] if count else []


def logs(
    engine: Engine,
    name: str,
    *,
    follow: bool = False,
    tail: str = "all",
    since: str = "",
    until: str = "",
    timestamps: bool = False,
    stdout_fd: int = 1,
    stderr_fd: int = 2,
) -> None:
    """Write the log to the two descriptors; with `follow` until the container ends."""
    record = engine.containers.get(name)
    path = os.path.join(engine.store.paths.container(record.id), "log")
    if tail not in ("", "all") and not tail.isdigit():
        raise InvalidArgument(f"cannot show the last {tail!r} lines", "--tail takes a number or `all`")
    now = time.time()
    first, last = moment(since, now), moment(until, now)
    how = (first, last, timestamps, stdout_fd, stderr_fd)
    current = _Current(path)
    try:
        lines = _lines(path, current)
        for line in lines if tail in ("", "all") else _tail(lines, int(tail)):
            _write(line, *how)
        if follow:
            _follow(engine, record.id, current, how)
    finally:
        current.close()


def _write(line: bytes, first: str, last: str, timestamps: bool, out: int, err: int) -> None:
    if not line.endswith(b"\n"):
        return
    try:
        entry = jsontext.loads(line)
    except InvalidArgument:
        return  # half a line from a full disk
    stamp = entry["time"]
    if (first and stamp < first) or (last and stamp > last):
        return
    text = entry["log"].encode("utf-8", "replace")
    data = f"{stamp} ".encode() + text if timestamps else text
    fd = err if entry["stream"] == "stderr" else out
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _follow(engine: Engine, container_id: str, current: _Current, how: tuple[str, str, bool, int, int]) -> None:
    running = True
    while running:
        try:
            running = engine.containers.get(container_id).status == "running"
        except NotFound:
            running = False
        for line in current.lines():
            _write(line, *how)
        if running:
            time.sleep(0.05)
