"""`update` and `rename`: what may be changed of a container that exists, running or not.

Limits are changed in the kernel first and then written down, under the container's lock: what `inspect` shows is what
holds, also after the next start.
"""

from __future__ import annotations

import os

from sampan.engine import alone, restarting
from sampan.engine.alone import Alone
from sampan.errors import Conflict, InvalidArgument
from sampan.oci import resources
from sampan.oci.options import RunOptions, options_dict
from sampan.runtime import cgroup, cgroupapply
from sampan.runtime.cgrouphost import Layout, Placement, parse_own, read
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

LIMITS = (
    *("memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpu_period", "cpu_quota", "cpu_rt_period"),
    *("cpu_rt_runtime", "cpuset", "cpuset_mems", "pids_limit", "blkio_weight"),
)
_DEVICES = ("blkio_weight_device", "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")


def rename(engine: Engine, name: str, new: str) -> None:
    """Give a container another name; Conflict when it is taken, also by itself."""
    record_id, new = engine.containers.store.get(name).id, new.removeprefix("/")
    home = engine.store.paths.container(record_id)
    with Alone(home):  # a start tells its supervisor the name
        record = engine.containers.get(name, record_id)
        if new == record.name:
            raise Conflict(f"cannot rename container {record.name}: that is its name already")
        alone.restore(engine, record, "rename")
        engine.containers.store.rename(record.id, new)
        if record.status in ("running", "paused", "restarting"):
            files.replace(f"{home}/name", new.encode(), durable=False)  # for its supervisor's events
    engine.events.container("rename", engine.containers.store.get(record.id), oldName="/" + record.name)


def update(engine: Engine, name: str, changes: dict[str, Any]) -> None:
    """Change limits (see LIMITS) and `restart` of a container, fields of RunOptions: now, and for its next starts."""
    for field in changes:
        if field not in LIMITS and field != "restart":
            raise InvalidArgument(f"cannot update {field!r} of a container", "limits can be: " + ", ".join(LIMITS))
    record_id = engine.containers.store.get(name).id
    with Alone(engine.store.paths.container(record_id), restore=True):
        record = engine.containers.get(name, record_id)
        alone.restore(engine, record, "update")
        if "restart" in changes:
            restarting.check(changes["restart"], record.auto_remove)
        options, limits = _merged(record, changes)
        before = record.spec["linux"].get("resources") or {}
        undo = _apply(record, before, limits)
        spec = {**record.spec, "linux": {**record.spec["linux"], "resources": limits}}
        try:
            engine.containers.store.reconfigure(record.id, {**record.config, "spec": spec, "options": options})
        except BaseException:
            undo()
            raise
        if "restart" in changes:
            restarting.change(engine, record, changes["restart"])
    engine.events.container("update", record)


def _merged(record: Record, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and `linux.resources` that the container has with the changes."""
    fields = {**record.options, **changes}
    if "cpus" in changes and ("cpu_period" not in changes and "cpu_quota" not in changes):
        fields.update(cpu_period=0, cpu_quota=0)  # the one replaces the other
    elif "cpu_period" in changes or "cpu_quota" in changes:
        fields["cpus"] = changes.get("cpus") or 0
    options = RunOptions(**fields)
    spec = record.spec
    before = spec["linux"].get("resources") or {}
    asked = RunOptions(**{key: value for key, value in fields.items() if key not in _DEVICES})
    made = resources.resources_for(asked, [])
    made["devices"] = before.get("devices", [])
    # Rates of devices cannot be changed, and a device that is gone must not forbid another change.
    block = {**(before.get("blockIO") or {}), **(made.get("blockIO") or {})}
    return options_dict(options), {**made, "blockIO": block} if block else made


def _apply(record: Record, before: dict[str, Any], limits: dict[str, Any]) -> Any:
    """Apply the limits to a running container; of another, see that this host has such limits."""
    if record.status in ("created", "exited", "restarting"):
        cgroupapply.choose(limits, cgroup.detect())
        return lambda: None
    placement, layout = _placement(record)
    return cgroup.update(placement, limits, before, layout)


def _placement(record: Record) -> tuple[Placement, Layout]:
    """Find the groups of a running container; a user's may be below the group of another login than this one."""
    layout = cgroup.detect()
    found = cgroup.named(record.id, layout)
    directory = found.v2_dir if found.directories() else _of_process(record, layout)
    base = os.path.dirname(os.path.dirname(directory))
    if found.v1 or not directory or base == layout.v2_base:
        return found, layout
    return Placement(directory), Layout(layout.version, layout.v2_mount, base, {}, "")


def _of_process(record: Record, layout: Layout) -> str:
    """Give the group that a container's process is in, if it is the container's and we may write it."""
    try:
        own = parse_own(read(f"/proc/{record.pid}/cgroup")) if layout.v2_mount else ""
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile
    directory = layout.v2_mount + own
    return directory if own.endswith(f"/sampan-{record.id}") and os.access(directory, os.W_OK) else ""
