"""Where the supervisor of a detached container lives: in a group that does not end with whoever started it.

systemd kills everything in a unit's group when a service ends, and when a login ends whose session is killed
(KillUserProcesses=). So the supervisor is born in one leaf beside the containers' groups (docs/decisions/0011), or
moves itself there on version 1. Only the start of something detached looks here.
"""

from __future__ import annotations

from sampan.runtime.cgrouphost import PARENT, SUPERVISORS, Layout, parse_own, read

_NAMED = "name=systemd"  # the tree of version 1 in which systemd without cgroup2 keeps its units


def groups(layout: Layout) -> list[tuple[str, bool]]:
    """Return the directories to leave for, each with whether it is of version 1; none where our own group stays.

    Where no group can be made, as after a plain login, there are none: the supervisor ends with what it was started in.
    """
    own = read("/proc/self/cgroup")
    found: list[tuple[str, bool]] = []
    if layout.v2_base and is_passing(parse_own(own)):
        found.append((f"{layout.v2_base}/{PARENT}/{SUPERVISORS}", False))
    if layout.v1:
        trees = own_trees(own)
        if found or unit(trees.get(_NAMED, "")):
            found += _of_version_1(trees, layout)
    return found


def unit(path: str) -> str:
    """Return the unit whose end kills what is in a group: a service or a login's session; "" when there is none.

    A scope that is no login's lives as long as its processes, and is told when the host goes down.
    """
    for part in reversed(path.split("/")):
        if part.endswith(".service"):
            return part
        if part.endswith(".scope"):
            return part if part.startswith("session-") else ""
    return ""


def is_passing(path: str) -> bool:
    """Say whether a group of cgroup2 may end before what is started in it: any but the root, scopes and ours."""
    if path in ("", "/") or path.endswith(f"/{PARENT}/{SUPERVISORS}"):
        return False
    return bool(unit(path)) or ".scope" not in path


def own_trees(text: str) -> dict[str, str]:
    """Return our group in each tree of version 1, by the tree's first controller or name, from /proc/self/cgroup."""
    found = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        if names:
            found[names.split(",")[0]] = path
    return found


def _of_version_1(trees: dict[str, str], layout: Layout) -> list[tuple[str, bool]]:
    """Return the root of each controller's tree, where nothing is limited, and a group in systemd's own."""
    found = [(layout.v1[name], True) for name, path in trees.items() if path != "/" and name in layout.v1]
    if trees.get(_NAMED, "/") != "/" and (mount := _mount_of(_NAMED)):
        found.append((f"{mount}/{PARENT}/{SUPERVISORS}", True))
    return found


def _mount_of(option: str) -> str:
    for line in read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup ") and option in after.rsplit(" ", 1)[-1].split(","):
            return before.split(" ")[4]
    return ""
