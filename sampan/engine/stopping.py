"""`stop`: the stop signal, the wait, the kill, without waiting for what cannot happen.

A PID 1 without a handler never receives the stop signal: the kernel drops it (pid_namespaces(7)), and Docker waits its
ten seconds for nothing. That is the rule for `CMD python app.py`, where PID 1 is a shell. The kernel says so (SigCgt,
SigIgn and SigBlk of /proc/PID/status), so then the signal goes to the container's other processes, which have SETTLE
seconds to end, and the rest is killed. `timeout` as given always wins: with it the wait is exactly Docker's.
"""

from __future__ import annotations

import time

from sampan.engine import members
from sampan.errors import NotFound, Unavailable
from sampan.runtime import cgroup, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.store.containers import Record

DEFAULT = 10.0
SETTLE = 2.0
YOUNG = 0.1
HELD = 1.0  # what has not ended by then is held by something
UTMOST = 9.0


def _mask(status: bytes, name: bytes) -> int:
    for line in status.splitlines():
        if line.startswith(name):
            return int(line.split()[1], 16)
    return 0


def _is_first(status: bytes) -> bool:
    """Say whether a process is PID 1 of its namespace (proc(5): NSpid, kernel >= 4.1)."""
    numbers = next((line.split() for line in status.splitlines() if line.startswith(b"NSpid:")), [b"1"])
    return numbers[-1] == b"1"


def receives(pid: int, number: int) -> bool:
    """Say whether a PID 1 can ever act on a signal: it has a handler for it, or blocks it to wait for it.

    One that shares the host's or another container's process namespace is no PID 1: without a handler it just ends.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            status = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return True
    bit = 1 << (number - 1)
    if _mask(status, b"SigIgn:") & bit:
        return False
    if not _is_first(status):
        return True
    return bool((_mask(status, b"SigCgt:") | _mask(status, b"SigBlk:")) & bit)


def others(record: Record) -> list[int]:
    """List the container's processes other than the first."""
    return [pid for pid in members.found(record) if pid != record.pid]


def stop(record: Record, number: int, timeout: float | None, killing: Callable[[], object] = lambda: None) -> str:
    """Stop a running container; give a note when its first process could not receive the signal.

    `killing` is called before it is killed, where that comes to it.
    """
    _send(record.pid, record.pid_start, record.boot_id, number)
    if record.status == "paused":
        from sampan.engine import ending

        ending.thaw(record)
    note = ""
    if timeout is None and number != 9 and not receives(record.pid, number):  # no handler is needed for KILL
        # A lone program that is only just starting may still install its handler: it has YOUNG seconds.
        young = YOUNG - (time.time_ns() - record.started) / 1e9
        if 0 < young <= YOUNG and not others(record):
            _wait(record, young)
        if process.alive(record.pid, record.pid_start, record.boot_id) and not receives(record.pid, number):
            note = _pass_on(record, number, killing)
            timeout = SETTLE
    seconds = DEFAULT if timeout is None else timeout
    if not _wait(record, None if seconds < 0 else seconds):
        killing()
        kill(record)
    return note


def kill(record: Record) -> None:
    """Kill a container for certain; Unavailable when it has not ended in UTMOST seconds, which names what is left."""
    _send(record.pid, record.pid_start, record.boot_id, 9)
    if record.status != "paused" and _wait(record, HELD):
        return
    cgroup.release(record.id, [record.pid, *others(record)])
    if not _wait(record, UTMOST - HELD):
        left = " ".join([str(pid) for pid in [record.pid, *others(record)][:8]])
        raise Unavailable(
            f"cannot kill container {record.name}: processes {left} do not end", "they may wait for a device or a disk"
        )


def _pass_on(record: Record, number: int, killing: Callable[[], object]) -> str:
    """Signal the other processes; when there are none, nothing will ever happen, so the first one is killed at once."""
    name = process.signal_name(number)
    rest = [(pid, process.start_time(pid)) for pid in others(record)]
    still = others(record)  # what had a pid of theirs when its start was looked up may be none of them
    for pid, start in rest:
        if start is not None and pid in still:
            _send(pid, start, record.boot_id, number)
    if rest:
        return f"container {record.name}: its first process has no handler for {name}, so its other processes got it"
    killing()
    _send(record.pid, record.pid_start, record.boot_id, 9)
    return f"container {record.name}: its only process has no handler for {name}, so it was killed"


def _wait(record: Record, seconds: float | None) -> bool:
    return process.wait(record.pid, record.pid_start, record.boot_id, seconds)


def _send(pid: int, start: int, boot: str, number: int) -> None:
    try:
        process.send(pid, start, boot, number)
    except NotFound:
        return
