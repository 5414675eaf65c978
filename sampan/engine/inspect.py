"""What `ps` and `inspect` show of containers, in Docker's words and shapes."""

from __future__ import annotations

import os
import time

from sampan.engine import ending, health, matching, restarting
from sampan.errors import SampanError
from sampan.runtime import cgroup, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

_FILES = (("ResolvConfPath", "resolv.conf"), ("HostnamePath", "hostname"), ("HostsPath", "hosts"))


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
    if record.status == "restarting":
        return f"Restarting ({record.exit_code}) {age((now_ns - record.finished) / 1e9)} ago"
    if record.status == "exited":
        return f"Exited ({record.exit_code}) {age((now_ns - record.finished) / 1e9)} ago"
    return record.status.capitalize()


def _error(engine: Engine, record: Record) -> str:
    if record.status not in ("created", "exited"):
        return ""
    try:
        with open(ending.error_file(engine, record), encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return _unseen(engine, record)


def _unseen(engine: Engine, record: Record) -> str:
    """Say why nobody saw the end of a container, "" where somebody did or is about to tell it."""
    from sampan.engine import outcome, supervisors

    if record.status != "exited" or record.exit_code != outcome.KILLED:
        return ""
    if outcome.read(engine.store.paths.container(record.id)) is not None:
        return ""
    if supervisors.supervisor(engine.containers.socket(record.id)):
        return ""
    if record.boot_id != process.boot_id():
        return "nobody saw its end: the host went down, or its supervisor was killed before"
    return "nobody saw its end: its supervisor was killed, and it with it"


def _oom(record: Record, running: bool) -> bool:
    """Say whether memory ran out; of a container that runs, its group counts what the kernel killed in it."""
    if not running:
        return bool(record.oom)
    try:
        return cgroup.oom_kills(cgroup.named(record.id)) > 0
    except OSError:  # it has just ended
        return False


def _state(engine: Engine, record: Record, running: bool) -> dict[str, Any]:
    found = health.state(engine, record)
    return {
        **({"Health": found} if found else {}),
        "Status": record.status,
        "Running": running,
        "Paused": record.status == "paused",
        "Restarting": record.status == "restarting",
        "OOMKilled": _oom(record, running),
        "Dead": False,
        "Pid": record.pid if running and record.status != "restarting" else 0,
        "ExitCode": record.exit_code,
        "Error": _error(engine, record),
        "StartedAt": timestamp(record.started),
        "FinishedAt": timestamp(record.finished),
    }


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    """Describe a bind; one of a directory of the store's volumes is that volume."""
    words = mount.get("options", ())
    propagation = next((word for word in words if word.endswith(("private", "slave", "shared"))), "")
    found = {"Type": "volume" if mount["name"] else "bind"}
    if mount["name"]:
        found["Name"] = mount["name"]
    found.update(Source=mount["source"], Destination=mount["destination"])
    if mount["name"]:
        found["Driver"] = "local"
    mode = ",".join(word for word in words if word in ("z", "Z", "ro"))
    return {
        **found,
        "Mode": mode,
        "RW": "ro" not in words,
        "Propagation": "" if mount["name"] else propagation or "rprivate",
    }


def _tmpfs(record: Record) -> list[dict[str, Any]]:
    """Describe the tmpfs of --mount; those of --tmpfs are in HostConfig only, as in Docker."""
    asked = record.options.get("mounts") or ()
    places = [mount[2] for mount in asked if mount[0] == "tmpfs"]
    common = {"Source": "", "Mode": "", "RW": True, "Propagation": ""}
    return [{"Type": "tmpfs", "Destination": place, **common} for place in places]


def _network(record: Record) -> dict[str, Any]:
    """Describe networks in Docker's shape; none and host have no addresses."""
    empty = {"Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": ""}
    empty |= {"GlobalIPv6PrefixLen": 0, "MacAddress": ""}
    joined = {"IPAMConfig": None, "Links": None, "Aliases": None, "DriverOpts": None, "NetworkID": "", "EndpointID": ""}
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        **empty,
        "Networks": {matching.network(record): {**joined, **empty, "DNSNames": None}},
    }


def inspect(engine: Engine, name: str, *, size: bool = False) -> dict[str, Any]:
    """Describe a container in the shape of Docker's API (ContainerInspect); `size` adds SizeRw and SizeRootFs."""
    from sampan.engine import inspectconfig

    record = engine.containers.get(name)
    args = record.spec["process"]["args"]
    home = engine.store.paths.container(record.id)
    running = record.status in ("running", "paused", "restarting")
    own = {mount["destination"]: mount["source"] for mount in record.spec["mounts"] if mount.get("source")}
    # These a start may bind without an entry (hostfiles.add_local, sharing.share_names).
    own.update(("/etc/" + file, path) for _, file in _FILES if os.path.exists(path := os.path.join(home, file)))
    files = {key: own.get("/etc/" + file, "") for key, file in _FILES}
    found = {
        "Id": record.id,
        "Created": timestamp(record.created),
        "Path": args[0],
        "Args": args[1:],
        "State": _state(engine, record, running),
        "Image": record.image_id,
        **files,
        "LogPath": os.path.join(home, "log"),
        "Name": "/" + record.name,
        "RestartCount": restarting.counted(home, record)[0],
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": inspectconfig.host_config(record),
        "GraphDriver": {"Name": "overlay", "Data": _layers(engine, record, home)},
        "Mounts": [_mount(mount) for mount in matching.mounts(engine, record)] + _tmpfs(record),
        "Config": inspectconfig.config(engine, record),
        "NetworkSettings": _network(record),
        "BootId": process.boot_id() if running else record.boot_id,
    }
    if size:
        from sampan.engine import listing

        found["SizeRw"], found["SizeRootFs"] = listing.sizes(engine, record)
    return found


def _layers(engine: Engine, record: Record, home: str) -> dict[str, str]:
    """Return the directories of the container's overlay."""
    try:
        lowers = engine.store.snapshots.lowers(record.config.get("layers") or [])
    except SampanError:
        lowers = []  # the image's layers are gone: the container is still described
    upper = {"UpperDir": os.path.join(home, "upper"), "WorkDir": os.path.join(home, "work")}
    return {"LowerDir": ":".join(engine.store.paths.snapshot(number) for number in lowers), **upper}
