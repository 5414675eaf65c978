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


def _lines(path: str) -> Iterator[bytes]:
    for number in range(_FILES - 1, -1, -1):
        try:
            with open(f"{path}.{number}" if number else path, "rb") as file:
                yield from file
        except FileNotFoundError:
            continue


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
    position = os.path.getsize(path) if os.path.exists(path) else 0
    lines = _lines(path) if tail in ("", "all") else iter(_tail(_lines(path), int(tail)))
    for line in lines:
        _write(line, first, last, timestamps, stdout_fd, stderr_fd)
    if follow:
        _follow(engine, record.id, path, position, (first, last, timestamps, stdout_fd, stderr_fd))


def _write(line: bytes, first: str, last: str, timestamps: bool, out: int, err: int) -> None:
    if not line.endswith(b"\n"):
        return
    entry = jsontext.loads(line)
    stamp = entry["time"]
    if (first and stamp < first) or (last and stamp > last):
        return
    text = entry["log"].encode("utf-8", "replace")
    data = f"{stamp} ".encode() + text if timestamps else text
    fd = err if entry["stream"] == "stderr" else out
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _follow(engine: Engine, container_id: str, path: str, position: int, how: tuple[str, str, bool, int, int]) -> None:
    pending = b""
    while True:
        try:
            running = engine.containers.get(container_id).status == "running"
        except NotFound:
            return
        if os.path.exists(path):
            if os.path.getsize(path) < position:
                position = 0  # rotated
            with open(path, "rb") as file:
                file.seek(position)
                data = file.read()
            position += len(data)
            pending += data
            *whole, pending = pending.split(b"\n")
            for line in whole:
                _write(line + b"\n", *how)
        if not running:
            return
        time.sleep(0.05)
