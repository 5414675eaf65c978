"""`Engine.exec` for programs: another process in a running container, with pipes and a time limit as `Engine.run` has.

What the program left running in the container goes on after it, and its output is nobody's; so the end is that of the
program, not of the pipes.  After the time limit all of its session is killed: only what has begun a session of its own
(setsid(2)) goes on.
"""

from __future__ import annotations

import os
import signal
import time

from sampan.engine import execute, library, starter
from sampan.engine.library import Result
from sampan.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.engine.engine import Engine

_ROUNDS = 50  # of looking for the processes of a session: one that is killed has no time for many children
_SESSION = 3  # its place in /proc/PID/stat behind the name (proc(5))


def run(
    engine: Engine,
    container: str,
    command: Sequence[str | bytes | os.PathLike[str]],
    *,
    input: bytes | None,
    timeout: float | None,
    env: Mapping[str, object] | None,
    workdir: str,
    user: str,
    privileged: bool,
) -> Result:
    """Execute to the end (see Engine.exec)."""
    library.check(container, input, timeout)
    record = engine.containers.get(container)
    if record.status != "running":
        hint = "unpause it first" if record.status == "paused" else "start it first"
        raise Conflict(f"cannot execute in container {record.name}: it is {record.status}", hint)
    args = library.words(command)
    spec = execute.spec_for(record, args, library.variables(env), workdir, user, False, privileged)
    child = ended = None
    fds: list[int] = []
    try:
        source, out, err = library.streams(input, fds)
        inner = (source[0], out[1], err[1])
        flags = starter.stdio_flags(False, input is not None, True, False, inner)
        told = engine.events.for_exec(record, args)
        plan = execute.plan_for(engine, record, spec, flags, "", (0, 0), False, events=told)
        child = execute.start(engine, record, plan, spec, inner)
        for fd in inner:
            library.close(fds, fd)
        deadline = None if timeout is None else time.monotonic() + timeout
        data, late = library.pump(child, out[0], err[0], source[1], input or b"", deadline, fds, child.reports)
        late |= library.expired(child, deadline)
        ended = child.wait()
        if late:
            _end_session(child.pid)
    finally:
        if child is not None and ended is None:
            child.close()
        for fd in list(fds):
            library.close(fds, fd)
    return Result(ended.code, data[0], data[1], ended.oom, late)


def _end_session(leader: int) -> None:
    """Kill what a program, whose number on the host this is, left in its session."""
    for _ in range(_ROUNDS):
        left = [int(name) for name in os.listdir("/proc") if name.isdigit() and _session(name) == leader]
        if not left:
            return
        for pid in left:
            _kill(pid, leader)


def _kill(pid: int, leader: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _session(str(pid)) == leader:  # still this process, which the descriptor now holds
            signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def _session(pid: str) -> int:
    """Give the session of a process as the host numbers it; 0 for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except OSError:
        return 0
    fields = data[data.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[_SESSION])
