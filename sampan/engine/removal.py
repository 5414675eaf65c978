"""Removes containers: those that have ended, and with `force` those that run."""

from __future__ import annotations

from sampan.engine.alone import Alone
from sampan.errors import Conflict
from sampan.runtime import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.store.containers import Record


def remove(engine: Engine, name: str, *, force: bool = False, volumes: bool = False, ended: bool = False) -> str:
    """Remove a container, a running one only with `force`, which kills it first, and give its id.

    With `ended` a running one is left alone: somebody has restarted it since the end that asked for the removal.
    """
    record_id = engine.store.containers.get(name).id
    with Alone(engine.store.paths.container(record_id)):
        record = engine.containers.get(name, record_id, going=True)
        if record.status in ("running", "paused", "restarting"):
            if ended:
                return record.id
            if not force:
                raise Conflict(
                    f"cannot remove container {record.name}: it is {record.status}",
                    "stop it first, or use `sampan rm -f` to kill it",
                )
            _end(engine, record)
        if force or ended:
            cgroup.kill(cgroup.named(record.id))  # what shared the host's pid namespace, or lost its supervisor
        engine.containers.delete(record, volumes=volumes or record.auto_remove)
    cgroup.tidy()
    return record.id


def _end(engine: Engine, record: Record) -> None:
    """Kill a container, or call off its restart."""
    from sampan.engine import restarting, stopping

    restarting.forbid(engine.store.paths.container(record.id))
    if record.status == "restarting":
        restarting.call_off(engine, record)
    else:
        engine.events.container("kill", record, signal=9)
        stopping.kill(record)
    if not record.auto_remove:
        engine.containers.settled(record, going=True)  # waits until its supervisor has told its end
