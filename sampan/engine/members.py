"""The processes of a container, as the host numbers them.

Its control group says which; a container without one (an ordinary user's, where no group is delegated) is found by its
pid namespace, and by descent from what is found.
"""

from __future__ import annotations

import os

from sampan.errors import Conflict
from sampan.runtime import cgroup, process
from sampan.runtime.cgrouphost import tree_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.store.containers import Record


def running(record: Record) -> bool:
    """Say whether a container's first process lives; it may be paused."""
    return bool(record.pid) and process.alive(record.pid, record.pid_start, record.boot_id)


def pids(record: Record) -> list[int]:
    """Give the processes of a running container in order; Conflict when it does not run."""
    if not running(record):
        raise Conflict(f"container {record.name} is not running", "start it first")
    return found(record)


def found(record: Record) -> list[int]:
    """Give the processes of a container in order.

    Without a control group, one that shares the process namespace of the host has its first process and what descends
    from that: all others there are not its own.
    """
    for directory in cgroup.named(record.id).directories():
        inside = tree_processes(directory)
        if record.pid in inside:
            return sorted(set(inside))
    return _related(record.pid, _own_namespace(record))


def _own_namespace(record: Record) -> bool:
    return "pid" in {entry["type"] for entry in record.spec["linux"]["namespaces"] if not entry.get("path")}


def _related(first: int, by_namespace: bool) -> list[int]:
    """Give a process, those of its pid namespace, and the descendants of all these."""
    there = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    parents = {pid: parent for pid in there if (parent := _parent(pid)) is not None}
    found = {first}
    if by_namespace:
        own = _namespace(first)
        found |= {pid for pid in parents if own and _namespace(pid) == own}
    for pid in parents:
        line = [pid]
        while line[-1] in parents and line[-1] not in found:
            line.append(parents[line[-1]])
        if line[-1] in found:
            found.update(line)
    return sorted(found)


def _parent(pid: int) -> int | None:
    try:
        fields = process.stat(pid)
    except PermissionError:
        return None  # another user's, on a host that hides those (proc(5), hidepid)
    return int(fields[1]) if fields else None  # none: it has ended meanwhile


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it has ended, or is not ours to look into
        return ""
