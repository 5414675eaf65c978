"""Other limits for a container that runs: all of them, or none.

What was written is put back when a later write fails. A limit below what the container uses is refused: v1 says so
itself (EBUSY), v2 would kill the container (memory.max, cgroup-v2.rst), so there its use is looked at first.
"""

from __future__ import annotations

import os

from sampan.errors import Conflict, NotSupported, SampanError, Unavailable
from sampan.runtime import cgroupapply
from sampan.runtime.cgrouphost import Layout, Placement, read, tree_processes, write
from sampan.runtime.limits import lifted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.cgroupapply import Chosen

    Make = Callable[[str, str], str]  # controller and group name to its new v1 directory

_ROUNDS = 100
# What the kernel cannot take back by writing it to its place on a disk (memory.stat, cgroup-v2.rst).
_HELD = frozenset(("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable", "sock", "unevictable"))


def update(
    placement: Placement, before: dict[str, Any], after: dict[str, Any], layout: Layout, make: Make
) -> Callable[[], None]:
    """Apply what differs between two `linux.resources`; return the function that takes it back.

    NotSupported, or Conflict where more is used, and then everything is as it was.
    """
    chosen = _differing(before, after, layout)
    if chosen and not placement.directories():
        raise NotSupported("cannot update limits: the container has no control group", "they hold from the next start")
    for setting, v1 in chosen:
        if setting.flag == "--memory" and not v1:
            _check_room(placement.v2_dir, setting.choices[0][1])
    if any(not v1 for _, v1 in chosen):
        cgroupapply.enable(layout, chosen)
    for controller in sorted({v1 for _, v1 in chosen if v1} - set(placement.v1)):
        _extend(placement, controller, make)
    old: list[tuple[str, str]] = []
    try:
        cgroupapply.apply(placement, chosen, lambda path: old.append((path, read(path))))
    except SampanError:
        _put_back(old)
        raise
    return lambda: _put_back(old)


def _differing(before: dict[str, Any], after: dict[str, Any], layout: Layout) -> Chosen:
    """Return the settings to write: what is new or other, and the end of what is limited no more."""
    held = {(setting.flag, v1, tuple(setting.choices)) for setting, v1 in cgroupapply.choose(before, layout)}
    chosen = [pair for pair in cgroupapply.choose(after, layout) if _key(pair) not in held]
    for v2 in (True, False):
        for setting in lifted(before, after, v2):
            controller = "" if v2 else setting.controller
            if (setting.controller in layout.v2_controllers()) == v2 and (v2 or controller in layout.v1):
                chosen.append((setting, controller))
    return chosen


def _key(pair: Any) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    setting, v1 = pair
    return setting.flag, v1, tuple(setting.choices)


def _check_room(directory: str, value: str) -> None:
    if not value.isdigit():
        return
    used = 0
    if os.path.exists(f"{directory}/memory.stat"):
        for line in read(f"{directory}/memory.stat").splitlines():
            name, _, number = line.partition(" ")
            used += int(number) if name in _HELD and name != "unevictable" else 0
    if used > int(value):
        raise Conflict(
            f"cannot apply limit --memory: the container holds {used} bytes, more than {value}",
            "give it more, or end some of its processes first",
        )


def _extend(placement: Placement, controller: str, make: Make) -> None:
    """Give the container a group of a v1 controller that it had none of, and move it there with all that it forks."""
    source = placement.directories()[0]
    target = make(controller, "/".join(source.split("/")[-2:]))
    for _ in range(_ROUNDS):
        left = set(tree_processes(source)) - set(tree_processes(target))
        if not left:
            placement.v1[controller] = target
            return
        for pid in left:
            _move(target, pid)
    raise Unavailable(f"cannot move the container to {target}: it starts processes faster than they are moved")


def _move(directory: str, pid: int) -> None:
    try:
        write(f"{directory}/cgroup.procs", str(pid))
    except ProcessLookupError:  # it has ended meanwhile
        return


def _put_back(old: list[tuple[str, str]]) -> None:
    failed = []
    for path, text in reversed(old):
        try:
            for line in text.strip().splitlines() or [""]:
                write(path, line + "\n")
        except OSError as error:
            failed.append(f"{path} ({error.strerror})")
    if failed:
        raise Unavailable(f"cannot take changed limits back: {', '.join(failed)}", "stop the container")
