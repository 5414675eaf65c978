"""`Engine.run` for programs: pipes in place of a terminal, a time limit, and everything gone at the end."""

from __future__ import annotations

import os
import select
import time

from sampan.engine import once
from sampan.errors import InvalidArgument
from sampan.oci.spec import RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
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
        return f"Result(exit_code={self.exit_code}, stdout={self.stdout[:60]!r}, stderr={self.stderr[:60]!r})"


def _bytes(value: int | str) -> int:
    if isinstance(value, int):
        return value
    text = value.strip().lower().removesuffix("b") or "0"
    unit = _UNITS.get(text[-1], 0)
    try:
        return int(float(text[:-1]) * unit) if unit else int(text)
    except ValueError as error:
        raise InvalidArgument(f"cannot read size {value!r}", "for example 64m or 1.5g") from error


def options(command: list[str] | None, env: Mapping[str, str] | None, settings: dict[str, Any]) -> RunOptions:
    """Make RunOptions from keyword settings; an unknown name is an InvalidArgument."""
    result = RunOptions()
    result.command = list(command or [])
    result.env = [f"{key}={value}" for key, value in (env or {}).items()]
    for key, value in settings.items():
        if not hasattr(result, key):
            raise InvalidArgument(
                f"Engine.run has no setting {key!r}", "settings are the fields of sampan.oci.spec.RunOptions"
            )
        setattr(result, key, _bytes(value) if key in ("memory", "memory_swap", "shm_size") else value)
    return result


def run(
    engine: Engine,
    image: str,
    command: list[str] | None,
    *,
    input: bytes | None,
    timeout: float | None,
    env: Mapping[str, str] | None,
    settings: dict[str, Any],
) -> Result:
    """Run to the end (see Engine.run)."""
    if isinstance(command, (str, bytes)):
        raise InvalidArgument("cannot run a command that is one text", "give a list, or shlex.split(text)")
    if isinstance(input, str):
        raise InvalidArgument("cannot give text as input", "give bytes: input=text.encode()")
    containers = engine.containers
    chosen = options(command, env, settings)
    chosen.interactive = input is not None
    record = child = ended = None
    fds: list[int] = []
    try:
        out, err = _pipe(fds), _pipe(fds)
        source = _pipe(fds) if input is not None else (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1)
        if input is None:
            fds.append(source[0])
        record, child = once.launch(containers, image, chosen, (source[0], out[1], err[1]), True, sweep=True)
        for fd in (source[0], out[1], err[1]):
            _close(fds, fd)
        deadline = None if timeout is None else time.monotonic() + timeout
        data, timed_out = _pump(child, out[0], err[0], source[1], input or b"", deadline, fds)
        for fd in (out[0], err[0]):
            _close(fds, fd)
        timed_out |= _expired(child, deadline)
        ended = child.wait()
    finally:
        if child is not None and ended is None:
            child.close()  # which ends the program
        for fd in list(fds):
            _close(fds, fd)
        if record is not None and child is not None and ended is not None:
            once.end(containers, record, child)
        elif record is not None:
            containers.discard(record, child)
    return Result(ended.code, data[0], data[1], ended.oom, timed_out)


def _pipe(fds: list[int]) -> tuple[int, int]:
    ends = os.pipe()
    fds += ends
    return ends


def _close(fds: list[int], fd: int) -> None:
    fds.remove(fd)
    os.close(fd)


def _pump(
    child: Child, out: int, err: int, into: int, data: bytes, deadline: float | None, fds: list[int]
) -> tuple[tuple[bytes, bytes], bool]:
    """Move bytes until both outputs are closed; at `deadline` the program is killed."""
    parts: dict[int, list[bytes]] = {out: [], err: []}
    waiting = select.poll()
    for fd in (out, err):
        waiting.register(fd, select.POLLIN)
    rest = memoryview(data)
    if into >= 0:
        os.set_blocking(into, False)
        waiting.register(into, select.POLLOUT)
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
                    _close(fds, into)
                    into = -1
                continue
            part = os.read(fd, 65536)
            if part:
                parts[fd].append(part)
            else:
                waiting.unregister(fd)
                open_fds.discard(fd)
    return (b"".join(parts[out]), b"".join(parts[err])), timed_out


def _expired(child: Child, deadline: float | None) -> bool:
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
