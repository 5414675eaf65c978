"""`run --explain`: what a run would do, in words and in order."""

from __future__ import annotations

import os

from sampan.engine import starter
from sampan.oci import spec as specs
from sampan.runtime import compile
from sampan.runtime import plan as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.spec import RunOptions


def explain(engine: Engine, image: str, options: RunOptions) -> list[str]:
    """List the operations of a first start, after notes and limits; nothing is created."""
    found = engine.images.runnable(image)
    spec = specs.config_for(found.config, options, container_id="0" * 64, rootless=engine.host.rootless)
    facts = compile.Facts()
    facts.snapshots = engine.store.paths.snapshots
    facts.lowers = engine.store.snapshots.lowers(found.diff_ids)
    facts.upper, facts.work = "UPPER", "WORK"
    facts.transient = True
    facts.hostname = spec.get("hostname") or os.uname().nodename
    facts.target = engine.store.paths.mount_point
    facts.stdio = p.FOREGROUND
    notes = starter.fill(facts, spec, engine.host) + engine.host.notes
    facts.host_devices = starter.host_devices(spec, options.privileged)
    _show_volumes(spec)
    if options.network == "host":
        from sampan.runtime import hostfiles

        hostfiles.add(spec, "the container's copy of /etc", engine.store.snapshots.directories(found.diff_ids))
    elif starter.lacks_hosts({"network": options.network}, facts.snapshots, facts.lowers):
        from sampan.runtime import hostfiles

        hostfiles.add_local(spec, "the container's copy of /etc", engine.store.snapshots.directories(found.diff_ids))
    words = [f"note: {note}" for note in notes]
    resources = dict(spec["linux"].get("resources") or {})
    if engine.host.rootless:
        resources.pop("devices", None)  # as for the start itself: no node can be made, the binds are all there is
    if resources:
        words += ["start in a cgroup of its own", *limits(resources)]
    return words + compile.compile_run(spec, facts).explain()


def _show_volumes(spec: dict[str, Any]) -> None:
    """Turn volumes into the binds that they become, named in place of their directories."""
    for mount in spec["mounts"]:
        if mount["type"] == "volume":
            name = f"volume {mount['source']}" if mount["source"] else "a new volume"
            mount.update(type="bind", source=name)
            mount["options"] = [*(word for word in mount.get("options", []) if word != "nocopy"), "rbind"]


def limits(resources: dict[str, Any]) -> list[str]:
    """Say in words what the container's cgroup limits."""
    words = []
    for key, value in resources.items():
        if key == "memory":
            words += [f"limit {_MEMORY.get(name, name)} to {size} bytes" for name, size in value.items()]
        elif key == "cpu":
            words += _cpu(value)
        elif key == "devices":
            rules = [_device(rule) for rule in value if rule.get("allow")]
            words.append(f"allow devices: {', '.join(rules)}; no others" if rules else "allow no devices")
        elif key == "pids":
            words.append(f"limit processes to {value['limit']}")
        elif value:
            words.append(f"limit {key}: {value}")
    return words


_MEMORY = {"limit": "memory", "swap": "memory and swap together", "reservation": "memory under pressure"}


def _cpu(value: dict[str, Any]) -> list[str]:
    words = []
    if value.get("quota"):
        words.append(f"limit CPU time to {value['quota'] / value['period']:g} CPUs")
    if value.get("shares"):
        words.append(f"give {value['shares']} CPU shares")
    if value.get("cpus"):
        words.append(f"run on CPUs {value['cpus']}")
    rest = {key: number for key, number in value.items() if key not in ("quota", "period", "shares", "cpus")}
    return words + [f"limit CPU {key}: {number}" for key, number in rest.items()]


def _device(rule: dict[str, Any]) -> str:
    if "type" not in rule or rule["type"] == "a":
        return f"all {rule['access']}"
    numbers = ":".join(str(rule[key]) if rule.get(key) is not None else "*" for key in ("major", "minor"))
    return f"{rule['type']} {numbers} {rule['access']}"
