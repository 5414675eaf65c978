"""A container's control groups: make, limit, look into, freeze, kill, remove. On v1, v2 and hybrid hosts.

Groups are `sampan/sampan-<id>` below what `cgrouphost.detect` found. The one on cgroup2 is always made when possible:
the process is cloned into it, it costs a mkdir, and it freezes, kills and holds the device program. On v1 a group is
made only for the controllers that a requested limit needs.
Nearly every command loads this: how groups are made (`cgroupmake.py`), limits (`cgroupapply.py`) and the rest of a
group's life (`cgroupcontrol.py`) are imported when they are asked for.
"""

from __future__ import annotations

import os
import time

from sampan.errors import Conflict, InvalidArgument
from sampan.runtime import cgrouphost
from sampan.runtime.cgrouphost import PARENT, PATIENCE, SUPERVISORS, Layout, read, tree_processes
from sampan.runtime.cgrouphost import Placement as Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_layout: Layout | None = None


def detect() -> Layout:
    """Return the host's layout; looked at once in a process's life."""
    global _layout
    if _layout is None:
        _layout = cgrouphost.detect()
    return _layout


def group_name(container_id: str) -> str:
    """Return where a container's group lies below the base of each tree; InvalidArgument for what cannot name one."""
    if not container_id.isascii() or not container_id.replace("-", "").replace("_", "").isalnum():
        raise InvalidArgument(f"{container_id!r} cannot name a control group: only letters, digits, - and _ can")
    return f"{PARENT}/sampan-{container_id}"


def create(
    container_id: str, limits: dict[str, Any], rootless: bool = False, layout: Layout | None = None
) -> Placement:
    """Make a container's groups and apply "linux.resources" to them (`cgroupmake.py`); NotSupported leaves nothing."""
    from sampan.runtime import cgroupmake

    return cgroupmake.create(group_name(container_id), limits, rootless, layout or detect())


def update(
    placement: Placement, limits: dict[str, Any], before: dict[str, Any] | None = None, layout: Layout | None = None
) -> Callable[[], None]:
    """Apply limits to a running container, all or none; return what takes them back (`cgroupupdate.py`).

    `before` are the limits that it has; what they have and `limits` does not is lifted.
    """
    from sampan.runtime import cgroupmake, cgroupupdate

    found = layout or detect()
    return cgroupupdate.update(
        placement, before or {}, limits, found, lambda c, name: cgroupmake.make_group(found.v1[c], name, c == "cpuset")
    )


def named(container_id: str, layout: Layout | None = None) -> Placement:
    """Return the groups that a container has now, found by its id."""
    layout = layout or detect()
    name = group_name(container_id)
    v1 = {controller: f"{mount}/{name}" for controller, mount in layout.v1.items()}
    there = {path for path in set(v1.values()) if os.path.isdir(path)}
    found = {controller: path for controller, path in v1.items() if path in there}
    return Placement(_find(name, layout), found)


def _find(name: str, layout: Layout) -> str:
    for base in cgrouphost.homes(layout):
        if os.path.isdir(f"{base}/{name}"):
            return f"{base}/{name}"
    return ""


def can_join(placement: Placement) -> bool:
    """Say whether a process of ours can be put into the groups: not from a login whose group is not delegated."""
    base = detect().v2_base
    return not placement.v2_dir or bool(base and placement.v2_dir.startswith(base + "/"))


def away() -> list[tuple[str, bool]]:
    """Return the groups that the supervisor of something detached leaves for (`cgroupaway.py`)."""
    from sampan.runtime import cgroupaway

    return cgroupaway.groups(detect())


def tidy() -> None:
    """Remove the group of supervisors (`cgroupaway.py`) when none is left in it."""
    base = detect().v2_base
    if base:
        remove_group(f"{base}/{PARENT}/{SUPERVISORS}")


def remove(placement: Placement, patience: float = PATIENCE) -> None:
    """Remove the groups, with those that the container made below; Conflict if processes stay in one."""
    for directory in placement.directories():
        if not remove_group(directory):
            remove_tree(directory, patience)


def forget(container_id: str) -> None:
    """Remove v1 groups of an earlier run of a container that does not run.

    Those that `update` added are unknown to its supervisor and so outlive it. One that no limit of the next run needs
    would have none of that run's processes, and yet count them and be given their limits.
    """
    layout = detect()
    if layout.v1 and (stale := named(container_id, layout).v1):
        remove(Placement("", stale))


def remove_group(path: str) -> bool:
    """Remove one group, if nothing is in it; say whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: processes or groups are in it
        return False
    return True


def remove_tree(path: str, patience: float) -> None:
    """Remove a group and all below it; Conflict if processes stay in one for `patience` seconds."""
    deadline, pause = time.monotonic() + patience, 0.001
    while True:
        for directory, _, _ in os.walk(path, topdown=False):
            remove_group(directory)
        if not os.path.isdir(path):
            return
        if time.monotonic() >= deadline:
            inside = " ".join([str(pid) for pid in tree_processes(path)][:8])
            raise Conflict(f"cannot remove control group {path}: processes are in it ({inside})", "kill them first")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def paused(container_id: str) -> bool:
    """Say whether the kernel holds all of a container's processes still; cheap, for `ps`."""
    layout = detect()
    try:
        if directory := _find(f"{PARENT}/sampan-{container_id}", layout):
            return "frozen 1" in read(f"{directory}/cgroup.events")
        if not layout.v2_base and "freezer" in layout.v1:
            return read(f"{layout.v1['freezer']}/{PARENT}/sampan-{container_id}/freezer.state").strip() == "FROZEN"
    except OSError:  # gone (ENOENT, ENODEV): it has just ended
        return False
    return False


def kill(placement: Placement, patience: float = PATIENCE) -> None:
    """Kill every process of the container, also those that fork meanwhile; Conflict if any is left after `patience`."""
    from sampan.runtime import cgroupcontrol

    cgroupcontrol.kill(placement, patience)


def freeze(placement: Placement, patience: float = PATIENCE) -> None:
    """Stop every process; Unavailable, and nothing stays frozen, if one does not stop in time."""
    from sampan.runtime import cgroupcontrol

    cgroupcontrol.freeze(placement, patience)


def thaw(placement: Placement) -> bool:
    """Let every process go on; False when the group is gone."""
    from sampan.runtime import cgroupcontrol

    return cgroupcontrol.thaw(placement)


def release(container_id: str, pids: list[int]) -> None:
    """Thaw whatever keeps a container's processes `pids` from dying, also groups that it made and froze itself."""
    from sampan.runtime import cgroupcontrol

    layout = detect()
    cgroupcontrol.release(named(container_id, layout), layout.v1.get("freezer", ""), pids)


def oom_kills(placement: Placement) -> int:
    """Return how many processes of the container the kernel killed for lack of memory below its limit."""
    from sampan.runtime import cgroupcontrol

    return cgroupcontrol.oom_kills(placement)


def stats(placement: Placement) -> dict[str, int]:
    """Return what the container uses; see `cgroupstats.stats` for the keys."""
    from sampan.runtime import cgroupstats

    return cgroupstats.stats(placement)
