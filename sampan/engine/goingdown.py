"""Before the host goes down: every container is told to end, and none is marked as stopped.

Supervisors live outside of systemd's units (docs/decisions/0011), so nothing tells them in good time unless the unit
of `sampan system boot` does. Each is sent TERM, which it passes on; it gives its container the time of a `stop`, leaves
no restart waiting, and the next `system boot` starts what the policies want. All have their time side by side.
"""

from __future__ import annotations

import time

from sampan.engine import ending, restarting, state, stopping, supervisors
from sampan.engine.alone import Alone
from sampan.errors import NotFound, SampanError, Unavailable
from sampan.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

_TERM = 15
_MARGIN = 5.0  # seconds beyond a container's own time: it is killed by its supervisor, which then unmounts


class _Told:
    """Hold a container that was told: its supervisor as a process, and when it is late (monotonic)."""

    def __init__(self, record: Record, pid: int, start: int, late: float) -> None:
        self.record = record
        self.pid = pid
        self.start = start
        self.late = late


def down(engine: Engine) -> tuple[list[str], dict[str, SampanError]]:
    """Tell all to end and wait for it; give the names of those that have ended, and why others have not."""
    told: list[_Told] = []
    ended: list[str] = []
    failed: dict[str, SampanError] = {}
    for record in engine.containers.store.ls():
        try:
            now = _called_off(engine, engine.containers.refresh(record))
            if now.status in (state.RUNNING, state.PAUSED):
                told.append(_tell(engine, now))
        except NotFound:
            continue  # removed meanwhile
        except SampanError as error:
            failed[record.name] = error
    for one in told:
        try:
            _await(one)
            ended.append(one.record.name)
        except SampanError as error:
            failed[one.record.name] = error
    return ended, failed


def _called_off(engine: Engine, record: Record) -> Record:
    """End what waits to start a container again, without the mark of a stop by hand."""
    if record.status != state.RESTARTING:
        return record
    with Alone(engine.store.paths.container(record.id)):
        now = engine.containers.get(record.id)
        return restarting.call_off(engine, now) if now.status == state.RESTARTING else now


def _tell(engine: Engine, record: Record) -> _Told:
    socket = engine.containers.socket(record.id)
    holder = supervisors.supervisor(socket)
    start = process.start_time(holder) if holder > 0 else None
    if start is None:  # it cannot be known, as where the store's path is too long for a socket
        stopping.stop(record, ending.stop_signal(record), record.options.get("stop_timeout"))
        return _Told(record, record.pid, record.pid_start, time.monotonic() + _MARGIN)
    supervisors.hurry(socket)
    process.send(holder, start, record.boot_id, _TERM)
    if record.status == state.PAUSED:
        ending.thaw(record)
    seconds = record.options.get("stop_timeout")
    own = stopping.DEFAULT if seconds is None else float("inf") if seconds < 0 else seconds
    return _Told(record, holder, start, time.monotonic() + own + _MARGIN)


def _await(told: _Told) -> None:
    left = told.late - time.monotonic()
    if not process.wait(told.pid, told.start, told.record.boot_id, None if left == float("inf") else max(0.0, left)):
        raise Unavailable(
            f"cannot end container {told.record.name}: process {told.pid} has not ended in its time",
            f"sampan rm -f {told.record.name}",
        )
