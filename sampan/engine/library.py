"""`Engine.run` for programs: pipes in place of a terminal, a time limit, and everything gone at the end.

What it shares with `Engine.exec` (inside.py) is here: what is given is judged, and bytes are moved.
"""

from __future__ import annotations

import os
import select
import time

from sampan.engine import once
from sampan.errors import InvalidArgument
from sampan.oci.spec import RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.runtime.launch import Child

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Result:
    """Hold how a run ended: `exit_code`, `stdout` and `stderr` in bytes, `oom_killed`, and whether the time limit
    ended it.
    """

    __slots__ = ("exit_code", "oom_killed", "stderr", "stdout", "timed_out")

    def __init__(self, exit_code: int, stdout: bytes, stderr: bytes, oom_killed: bool, timed_out: bool) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.oom_killed = oom_killed
        self.timed_out = timed_out

    def __repr__(self) -> str:
        ended = "".join(f", {name}=True" for name in ("timed_out", "oom_killed") if getattr(self, name))
        return f"Result(exit_code={self.exit_code}, stdout={self.stdout[:60]!r}, stderr={self.stderr[:60]!r}{ended})"


def _bytes(value: int | str) -> int:
    if not isinstance(value, str):
        return value
    text = value.strip().lower().removesuffix("b") or "0"
    unit = _UNITS.get(text[-1], 0)
    try:
        return int(float(text[:-1]) * unit) if unit else int(text)
    except ValueError as error:
        raise InvalidArgument(f"cannot read size {value!r}", "for example 64m or 1.5g") from error


def words(command: Sequence[str | bytes | os.PathLike[str]] | None) -> list[str]:
    """Give a command as a list of texts: paths and bytes are what they are as names of files."""
    if isinstance(command, (str, bytes)):
        raise InvalidArgument("cannot run a command that is one text", "give a list, or shlex.split(text)")
    try:
        return [word if type(word) is str else os.fsdecode(word) for word in command or ()]
    except TypeError as error:
        raise InvalidArgument(f"invalid command: {error}", "give a list of texts") from error


def variables(env: Mapping[str, object] | None) -> list[str]:
    """Give variables as NAME=value."""
    if env is None:
        return []
    if not hasattr(env, "items"):
        raise InvalidArgument(f"cannot read env: it is a {type(env).__name__}", 'give a mapping: env={"NAME": "value"}')
    for name, value in env.items():
        if value is None:
            raise InvalidArgument(f"variable {name} has no value", 'give a text, such as ""')
    return [f"{name}={value}" for name, value in env.items()]


def check(image: object, input: object, timeout: object) -> None:
    """Raise InvalidArgument for what has the wrong type."""
    if not isinstance(image, str):
        raise InvalidArgument(f"cannot use {image!r:.60} as a name", "give a text")
    if isinstance(input, str):
        raise InvalidArgument("cannot give text as input", "give bytes: input=text.encode()")
    if input is not None and not isinstance(input, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"cannot give a {type(input).__name__} as input", "give bytes, of a file: file.read()")
    if timeout is not None and not isinstance(timeout, (int, float)):
        raise InvalidArgument(f"cannot wait for {timeout!r:.60}", "timeout is a number of seconds")


def options(
    command: Sequence[str | bytes | os.PathLike[str]] | None, env: Mapping[str, object] | None, settings: dict[str, Any]
) -> RunOptions:
    """Make RunOptions from keyword settings; an unknown name and a value of another type are an InvalidArgument."""
    result = RunOptions()
    result.command = words(command)
    result.env = variables(env)
    if settings:
        from sampan.oci import optionwords

        for key, value in settings.items():
            if key in ("memory", "memory_swap", "memory_reservation", "shm_size"):
                value = _bytes(value)
            optionwords.check(key, value)
            setattr(result, key, value)
    return result


def run(
    engine: Engine,
    image: str,
    command: Sequence[str | bytes | os.PathLike[str]] | None,
    *,
    input: bytes | None,
    timeout: float | None,
    env: Mapping[str, object] | None,
    settings: dict[str, Any],
) -> Result:
    """Run to the end (see Engine.run)."""
    check(image, input, timeout)
    containers = engine.containers
    chosen = options(command, env, settings)
    chosen.interactive = input is not None
    record = child = ended = None
    fds: list[int] = []
    try:
        source, out, err = streams(input, fds)
        record, child = once.launch(containers, image, chosen, (source[0], out[1], err[1]), True, sweep=True)
        for fd in (source[0], out[1], err[1]):
            close(fds, fd)
        deadline = None if timeout is None else time.monotonic() + timeout
        data, timed_out = pump(child, out[0], err[0], source[1], input or b"", deadline, fds)
        for fd in (out[0], err[0]):
            close(fds, fd)
        timed_out |= expired(child, deadline)
        ended = child.wait()
    finally:
        if child is not None and ended is None:
            child.close()  # which ends the program
        for fd in list(fds):
            close(fds, fd)
        if record is not None and child is not None and ended is not None:
            once.end(containers, record, child)
        elif record is not None:
            containers.discard(record, child)
    return Result(ended.code, data[0], data[1], ended.oom, timed_out)


def _pipe(fds: list[int]) -> tuple[int, int]:
    ends = os.pipe()
    fds += ends
    return ends


def streams(input: bytes | None, fds: list[int]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Give both ends of what is a program's input, output and errors; they are in `fds` until they are closed."""
    out, err = _pipe(fds), _pipe(fds)
    if input is not None:
        return _pipe(fds), out, err
    fds.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    return (fds[-1], -1), out, err


def close(fds: list[int], fd: int) -> None:
    """Close one of the descriptors that are to be closed at the end."""
    fds.remove(fd)
    os.close(fd)


def pump(
    child: Child, out: int, err: int, into: int, data: bytes, deadline: float | None, fds: list[int], end: int = -1
) -> tuple[tuple[bytes, bytes], bool]:
    """Move bytes until both outputs are closed, or `end` can be read; at `deadline` the program is killed."""
    parts: dict[int, list[bytes]] = {out: [], err: []}
    waiting = select.poll()
    for fd in (out, err):
        waiting.register(fd, select.POLLIN)
    rest = memoryview(data)
    if into >= 0:
        os.set_blocking(into, False)
        waiting.register(into, select.POLLOUT)
    if end >= 0:
        waiting.register(end, select.POLLIN)
    open_fds, timed_out = {out, err}, False
    while open_fds:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = waiting.poll(left)
        if not ready and deadline is not None and time.monotonic() >= deadline:
            child.signal(9)
            timed_out, deadline = True, None
            continue
        for fd, event in ready:
            if fd == into:
                rest = _feed(into, rest, event)
                if not rest:
                    waiting.unregister(into)
                    close(fds, into)
                    into = -1
                continue
            if fd == end:
                for last in open_fds:
                    _drain(last, parts[last])
                open_fds = set()
                break
            part = os.read(fd, 65536)
            if part:
                parts[fd].append(part)
            else:
                waiting.unregister(fd)
                open_fds.discard(fd)
    return (b"".join(parts[out]), b"".join(parts[err])), timed_out


def _drain(fd: int, parts: list[bytes]) -> None:
    """Read what is there, and do not wait for who holds the other end."""
    os.set_blocking(fd, False)
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    except BlockingIOError:
        return


def expired(child: Child, deadline: float | None) -> bool:
    """Kill a program that has closed its output and goes on beyond the deadline."""
    if deadline is None:
        return False
    waiting = select.poll()
    waiting.register(child.reports, select.POLLIN)
    if waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        return False
    child.signal(9)
    return True


def _feed(into: int, rest: memoryview, event: int) -> memoryview:
    if event & (select.POLLERR | select.POLLHUP):
        return rest[len(rest) :]
    try:
        return rest[os.write(into, rest[:65536]) :]
    except BrokenPipeError:
        return rest[len(rest) :]
    except BlockingIOError:
        return rest
