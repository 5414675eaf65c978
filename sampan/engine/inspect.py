"""What `ps` and `inspect` show of containers, in Docker's words and shapes."""

from __future__ import annotations

import os
import time

from sampan.engine import matching
from sampan.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record


def timestamp(nanoseconds: int) -> str:
    """Give RFC 3339 in UTC with nanoseconds; Docker's zero time for 0."""
    if not nanoseconds:
        return "0001-01-01T00:00:00Z"
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def age(seconds: float) -> str:
    """Say a duration as Docker does: "2 minutes", "About an hour"."""
    s = max(0, int(seconds))
    if s < 1:
        return "Less than a second"
    if s < 60:
        return "1 second" if s == 1 else f"{s} seconds"
    if s < 120:
        return "About a minute"
    if s < 3600:
        return f"{s // 60} minutes"
    hours = (s + 1800) // 3600
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    return (
        f"{days} days"
        if days < 14
        else f"{days // 7} weeks"
        if days < 60
        else f"{days // 30} months"
        if days < 730
        else f"{days // 365} years"
    )


def status(record: Record, now_ns: int) -> str:
    """Give the STATUS column's words."""
    if record.status in ("running", "paused"):
        return f"Up {age((now_ns - record.started) / 1e9)}" + (" (Paused)" if record.status == "paused" else "")
    if record.status == "exited":
        return f"Exited ({record.exit_code}) {age((now_ns - record.finished) / 1e9)} ago"
    return record.status.capitalize()


def _state(record: Record, running: bool) -> dict[str, Any]:
    return {
        "Status": record.status,
        "Running": running,
        "Paused": record.status == "paused",
        "Restarting": False,
        "OOMKilled": bool(record.oom),
        "Dead": False,
        "Pid": record.pid if running else 0,
        "ExitCode": record.exit_code,
        "Error": "",
        "StartedAt": timestamp(record.started),
        "FinishedAt": timestamp(record.finished),
    }


def _host_config(record: Record) -> dict[str, Any]:
    spec, options = record.config["spec"], record.config.get("options") or {}
    config, resources = spec["process"], spec["linux"].get("resources") or {}
    return {
        "NetworkMode": matching.network(record),
        "AutoRemove": record.auto_remove,
        "Privileged": bool(options.get("privileged")),
        "ReadonlyRootfs": bool(spec["root"].get("readonly")),
        "Memory": (resources.get("memory") or {}).get("limit", 0),
        "PidsLimit": (resources.get("pids") or {}).get("limit"),
        "NanoCpus": int(float(options.get("cpus") or 0) * 1e9),
        "Init": bool(config.get("sampan.init")),
    }


def _mount(engine: Engine, mount: dict[str, Any]) -> dict[str, Any]:
    """Describe a bind; one of a directory of the store's volumes is that volume."""
    inside = engine.store.paths.volumes + "/"
    found = {"Type": "bind", "Source": mount["source"], "Destination": mount["destination"]}
    if mount["source"].startswith(inside):
        name = mount["source"][len(inside) :].partition("/")[0]
        found = {
            "Type": "volume",
            "Name": name,
            **{key: found[key] for key in ("Source", "Destination")},
            "Driver": "local",
        }
    return {**found, "Mode": "", "RW": "ro" not in mount.get("options", ())}


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    """Describe a container in the shape of Docker's API (ContainerInspect)."""
    record = engine.containers.get(name)
    spec = record.config["spec"]
    config = spec["process"]
    home = engine.store.paths.container(record.id)
    running = record.status == "running"
    return {
        "Id": record.id,
        "Created": timestamp(record.created),
        "Path": config["args"][0],
        "Args": config["args"][1:],
        "State": _state(record, running),
        "Image": record.image_id,
        "Name": "/" + record.name,
        "LogPath": os.path.join(home, "log"),
        "RestartCount": 0,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": _host_config(record),
        "Mounts": [_mount(engine, m) for m in spec["mounts"] if m["type"] == "bind"],
        "Config": {
            "Hostname": spec.get("hostname", ""),
            "User": (config.get("user") or {}).get("username", ""),
            "Tty": bool(config.get("terminal")),
            "Env": config["env"],
            "Cmd": config["args"],
            "Image": record.image_reference,
            "WorkingDir": config.get("cwd", ""),
            "Labels": record.labels,
        },
        "NetworkSettings": {"Networks": {matching.network(record): {}}, "Ports": {}, "IPAddress": ""},
        "BootId": process.boot_id() if running else record.boot_id,
    }
