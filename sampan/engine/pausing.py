"""`pause` and `unpause`: the kernel stops every process of a container where it stands, and lets it go on.

On cgroup2 through cgroup.freeze (Linux 5.2), on version 1 through the freezer. The state is the kernel's own, so it is
never written down: `ps` reads it.
"""

from __future__ import annotations

from sampan.engine import state
from sampan.engine.alone import Alone
from sampan.errors import NotSupported, SampanError, Unavailable
from sampan.runtime import cgroup
from sampan.runtime.cgrouphost import Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record


def _placement(record: Record, action: str) -> Placement:
    placement = cgroup.named(record.id)
    if placement.v2_dir or "freezer" in placement.v1:
        return placement
    hint = "`sampan doctor` shows what this user may do with control groups"
    why = cgroup.detect().why or "this host has neither cgroup2 nor a freezer"
    raise NotSupported(f"cannot {action} container {record.name}: it has no control group of its own: {why}", hint)


def _change(engine: Engine, record: Record, action: str, change: Callable[[Placement], object]) -> None:
    """Freeze or thaw; where that fails because the container has ended, and its group is gone, that is what is told."""
    failure: SampanError | None = None
    try:
        if change(_placement(record, action)) is not False:
            return
    except (NotSupported, Unavailable) as error:
        failure = error
    state.require(engine.containers.get(record.name, record.id).status, action, record.name)
    if failure is not None:
        raise failure


def pause(engine: Engine, name: str) -> None:
    """Freeze a running container; Conflict when it does not run or is paused already."""
    _alone(engine, name, "pause", cgroup.freeze)


def unpause(engine: Engine, name: str) -> None:
    """Let a paused container go on; Conflict when it is not paused."""
    _alone(engine, name, "unpause", cgroup.thaw)


def _alone(engine: Engine, name: str, action: str, change: Callable[[Placement], object]) -> None:
    """Freeze or thaw while nobody starts it: what a start makes would stand still, and hold it up for ever."""
    record_id = engine.containers.store.get(name).id
    with Alone(engine.store.paths.container(record_id)):
        record = engine.containers.get(name, record_id)
        state.require(record.status, action, record.name)
        _change(engine, record, action, change)
    engine.events.container(action, record)
