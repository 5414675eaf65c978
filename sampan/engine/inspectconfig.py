"""The two large parts of `inspect`: HostConfig, what was asked of the host, and Config, what the program is given.

Every key of Docker's API is there, with its own zero where a container has nothing of the kind, so that scripts find
what they look for (moby, api/types/container, as of API 1.50).
"""

from __future__ import annotations

from sampan.engine import matching, restarting
from sampan.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

_RATES = (
    ("BlkioDeviceReadBps", "device_read_bps", "throttleReadBpsDevice"),
    ("BlkioDeviceReadIOps", "device_read_iops", "throttleReadIOPSDevice"),
    ("BlkioDeviceWriteBps", "device_write_bps", "throttleWriteBpsDevice"),
    ("BlkioDeviceWriteIOps", "device_write_iops", "throttleWriteIOPSDevice"),
)


def image_config(engine: Engine, record: Record) -> dict[str, Any]:
    """Return the configuration of the container's image; nothing when the image is gone."""
    try:
        found = engine.store.images.resolve(record.image_id).config.get("config") or {}
    except NotFound:
        return {}
    return dict(found)


def host_config(record: Record) -> dict[str, Any]:
    """Return HostConfig."""
    spec, asked = record.spec, record.options
    linux = spec["linux"]
    return {
        "Binds": _binds(asked),
        "ContainerIDFile": "",
        "LogConfig": {"Type": asked.get("log_driver") or "json-file", "Config": asked.get("log_opts") or {}},
        "NetworkMode": matching.network(record),
        "PortBindings": {},
        "RestartPolicy": dict(zip(("Name", "MaximumRetryCount"), restarting.policy(record), strict=True)),
        "AutoRemove": record.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": asked.get("volumes_from") or None,
        "ConsoleSize": [0, 0],
        **({"Annotations": asked["annotations"]} if asked.get("annotations") else {}),
        "CapAdd": asked.get("cap_add") or None,
        "CapDrop": asked.get("cap_drop") or None,
        "CgroupnsMode": asked.get("cgroupns") or "private",
        "Dns": asked.get("dns") or [],
        "DnsOptions": asked.get("dns_option") or [],
        "DnsSearch": asked.get("dns_search") or [],
        "ExtraHosts": asked.get("add_host") or None,
        "GroupAdd": asked.get("group_add") or None,
        "IpcMode": asked.get("ipc") or "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": spec["process"].get("oomScoreAdj", 0),
        "PidMode": "" if asked.get("pid") in (None, "private") else asked["pid"],
        "Privileged": bool(asked.get("privileged")),
        "PublishAllPorts": False,
        "ReadonlyRootfs": bool(spec["root"].get("readonly")),
        "SecurityOpt": asked.get("security_opt") or None,
        **({"Tmpfs": dict(text.partition(":")[::2] for text in asked["tmpfs"])} if asked.get("tmpfs") else {}),
        "UTSMode": "" if asked.get("uts") in (None, "private") else asked["uts"],
        "UsernsMode": "" if asked.get("userns") in (None, "private") else asked["userns"],
        "ShmSize": asked.get("shm_size") or 64 << 20,
        **({"Sysctls": linux["sysctl"]} if linux.get("sysctl") else {}),
        "Runtime": "sampan",
        "Isolation": "",
        **_resources(linux.get("resources") or {}, asked),
        "MaskedPaths": linux.get("maskedPaths") or [],
        "ReadonlyPaths": linux.get("readonlyPaths") or [],
        **({"Init": True} if spec["process"].get("sampan.init") else {}),
    }


def _binds(asked: dict[str, Any]) -> list[str] | None:
    """Return `-v` words again, as Docker keeps them."""
    found = []
    for kind, source, destination, words in asked.get("mounts") or ():
        shown = [word for word in words if word not in ("create", "rbind", "rprivate", "rw")]
        if kind != "tmpfs" and source:
            found.append(":".join([source, destination, *([",".join(shown)] if shown else [])]))
    return found or None


def _resources(limits: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    memory, cpu, block = (limits.get(key) or {} for key in ("memory", "cpu", "blockIO"))
    nano = int(float(asked.get("cpus") or 0) * 1e9)
    devices = [_device(text) for text in asked.get("devices") or ()]
    return {
        "CpuShares": cpu.get("shares", 0),
        "Memory": memory.get("limit", 0),
        "NanoCpus": nano,
        "CgroupParent": "",
        "BlkioWeight": block.get("weight", 0),
        "BlkioWeightDevice": _rates(asked.get("blkio_weight_device"), block.get("weightDevice"), "Weight"),
        **{key: _rates(asked.get(field), block.get(name), "Rate") for key, field, name in _RATES},
        "CpuPeriod": 0 if nano else cpu.get("period", 0),
        "CpuQuota": 0 if nano else asked.get("cpu_quota") or 0,
        "CpuRealtimePeriod": cpu.get("realtimePeriod", 0),
        "CpuRealtimeRuntime": cpu.get("realtimeRuntime", 0),
        "CpusetCpus": cpu.get("cpus", ""),
        "CpusetMems": cpu.get("mems", ""),
        "Devices": devices,
        "DeviceCgroupRules": asked.get("device_cgroup_rules") or None,
        "DeviceRequests": None,
        "MemoryReservation": memory.get("reservation", 0),
        "MemorySwap": memory.get("swap", 0),
        "MemorySwappiness": memory.get("swappiness"),
        "OomKillDisable": bool(memory.get("disableOOMKiller")),
        "PidsLimit": (limits.get("pids") or {}).get("limit"),
        "Ulimits": [_ulimit(text) for text in asked.get("ulimits") or ()],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _rates(words: list[str] | None, entries: list[dict[str, Any]] | None, key: str) -> list[dict[str, Any]]:
    """Return the paths that were given with the numbers that they mean."""
    pairs = zip(words or (), entries or (), strict=False)
    return [{"Path": word.rpartition(":")[0], key: entry[key.lower()]} for word, entry in pairs]


def _device(text: str) -> dict[str, str]:
    source, _, rest = text.partition(":")
    target, _, access = rest.partition(":")
    if target and not target.startswith("/"):
        target, access = "", target
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": access or "rwm"}


def _ulimit(text: str) -> dict[str, Any]:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    numbers = [-1 if word == "unlimited" else int(word) for word in (soft, hard or soft)]
    return {"Name": name, "Hard": numbers[1], "Soft": numbers[0]}


def _environment(env: list[str], asked: dict[str, Any], image: dict[str, Any]) -> list[str]:
    """Return what was asked for, by the image or at `run`: not what every program is given, as HOSTNAME."""
    names = {entry.partition("=")[0] for entry in (*(image.get("Env") or ()), *(asked.get("env") or ()))}
    return [entry for entry in env if entry.partition("=")[0] in names]


def config(engine: Engine, record: Record) -> dict[str, Any]:
    """Return Config."""
    spec, asked, image = record.spec, record.options, image_config(engine, record)
    process = spec["process"]
    entrypoint = asked.get("entrypoint")
    own = entrypoint is None
    command = asked.get("command") or (image.get("Cmd") if own else None)
    ports = matching.exposed(engine, record)
    signal = (spec.get("annotations") or {}).get("sampan.stop_signal")
    interactive = bool(asked.get("interactive"))
    return {
        "Hostname": spec.get("hostname", ""),
        "Domainname": spec.get("domainname", ""),
        "User": (process.get("user") or {}).get("username", ""),
        "AttachStdin": interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        **({"ExposedPorts": {port: {} for port in sorted(ports)}} if ports else {}),
        "Tty": bool(process.get("terminal")),
        "OpenStdin": interactive,
        "StdinOnce": interactive,
        "Env": _environment(process["env"], asked, image),
        "Cmd": list(command) if command else None,
        **({"Healthcheck": record.config["healthcheck"]} if "healthcheck" in record.config else {}),
        "Image": record.image_reference,
        "Volumes": image.get("Volumes") or None,
        "WorkingDir": process.get("cwd", ""),
        "Entrypoint": (image.get("Entrypoint") or None) if own else entrypoint or None,
        "OnBuild": image.get("OnBuild") or None,
        "Labels": record.labels,
        **({"StopSignal": signal} if signal else {}),
        **({"StopTimeout": asked["stop_timeout"]} if asked.get("stop_timeout") is not None else {}),
        **({"Shell": image["Shell"]} if image.get("Shell") else {}),
    }
