"""An image's config and what was asked become a runtime configuration (runtime-spec config.md) with Docker's defaults.

The image is attacker input: an Env entry that is not NAME=value is refused and the host's environment never looked at
(CVE-2026-57231); its labels do not become annotations; the user stays text, resolved later in the container's own root.
Members named `sampan.…` are ours: `process["sampan.init"]`, `linux.seccomp["sampan"]` (default, unconfined or a path).
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, NotSupported
from sampan.oci import capabilities
from sampan.oci import options as defaults
from sampan.oci.mounts import is_path, mounts_for
from sampan.oci.options import RunOptions, options_dict
from sampan.oci.resources import devices_for, resources_for, rlimits_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["RunOptions", "config_for", "host_devices", "options_dict"]

CONTAINER = "container:"  # begins the name of a container whose namespace is shared
SPEC_VERSION = "1.2.0"
_MAX_STRING = 131072 - 1  # MAX_ARG_STRLEN (linux/binfmts.h), with its NUL
_MAX_STRINGS = 2 << 20
_HOSTNAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")
_SYSCTL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_IPC_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")


def config_for(
    image_config: dict[str, Any],
    options: RunOptions,
    *,
    container_id: str = "",
    rootless: bool,
    look: Callable[[str], os.stat_result] = os.stat,
) -> dict[str, Any]:
    """Return the runtime configuration of a container; raise InvalidArgument or NotSupported, naming the option.

    `look` is what examines the host's devices (os.stat); `rootless` is whether the container has a user namespace.
    """
    config = image_config.get("config") or {}
    security = _security(options)
    hostname = _hostname(options, container_id)
    devices = devices_for(options, look)
    if rootless:
        _check_access(devices)
    spec: dict[str, Any] = {
        "ociVersion": SPEC_VERSION,
        "process": _process(config, options, hostname, security),
        "root": {"path": "", "readonly": bool(options.read_only)},
        "mounts": mounts_for(config, options, rootless),
        "linux": _linux(options, security, devices, look),
        "annotations": _annotations(config, options),
    }
    if options.uts != "host":
        spec["hostname"] = hostname
    if options.domainname:
        spec["domainname"] = _domainname(options)
    if container_id:
        spec["linux"]["cgroupsPath"] = f"/sampan/{container_id}"
    return spec


def host_devices(spec: dict[str, Any]) -> list[tuple[str, int, int, int, int, int, str]]:
    """Return the devices asked for: (name below /dev, mode with type, major, minor, uid, gid, path on the host)."""
    types = {"c": 0o020000, "b": 0o060000}
    return [
        (
            device["path"].removeprefix("/dev/"),
            types[device["type"]] | device["fileMode"],
            device["major"],
            device["minor"],
            device["uid"],
            device["gid"],
            device.get("sampan.source") or device["path"],
        )
        for device in spec["linux"].get("devices") or ()
    ]


def arguments(config: dict[str, Any], options: RunOptions) -> list[str]:
    """Return what is executed: entrypoint then command. An entrypoint that was asked for drops the image's Cmd."""
    entrypoint, command = options.entrypoint, list(options.command or ())
    if isinstance(entrypoint, str):
        entrypoint = [entrypoint]
    if entrypoint is None:
        entrypoint = list(config.get("Entrypoint") or ())
        command = command or list(config.get("Cmd") or ())
    args = [*([] if list(entrypoint) == [""] else entrypoint), *command]
    if not args:
        raise InvalidArgument("no command specified: the image has none", "give one after the image's name")
    _check_strings(args, "command")
    return args


def environment(config: dict[str, Any], options: RunOptions, hostname: str = "") -> list[str]:
    """Return the environment: PATH, HOSTNAME and TERM, then the image's, then what was asked; a later one wins."""
    found = {"PATH": defaults.DEFAULT_PATH}
    if hostname:
        found["HOSTNAME"] = hostname
    if options.tty:
        found["TERM"] = "xterm"
    for source, entries in (("Env of the image", config.get("Env") or ()), ("--env", options.env or ())):
        for entry in entries:
            name, equals, value = entry.partition("=")
            if not equals or not name or not name.isprintable() or " " in name or "*" in name:
                raise InvalidArgument(f"invalid entry in {source}: {entry[:100]!r} is not NAME=value")
            found[name] = value
    entries = [f"{name}={value}" for name, value in found.items()]
    _check_strings(entries, "environment")
    return entries


def _process(config: dict[str, Any], options: RunOptions, hostname: str, security: dict[str, Any]) -> dict[str, Any]:
    names = capabilities.settle(options.cap_add, options.cap_drop, options.privileged)
    process: dict[str, Any] = {
        "terminal": bool(options.tty),
        "user": _user(config, options),
        "args": arguments(config, options),
        "env": environment(config, options, hostname),
        "cwd": _cwd(config, options),
        # Inheritable and ambient stay empty (CVE-2022-24769).
        "capabilities": {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []},
        "rlimits": rlimits_for(options),
        "noNewPrivileges": security["no_new_privileges"],
    }
    score = options.oom_score_adj or 0
    if not isinstance(score, int) or not -1000 <= score <= 1000:
        raise InvalidArgument(f"invalid --oom-score-adj {score!r}: it must be between -1000 and 1000")
    if score:
        process["oomScoreAdj"] = score
    if options.init:
        process["sampan.init"] = True
    return process


def _linux(
    options: RunOptions,
    security: dict[str, Any],
    devices: list[dict[str, Any]],
    look: Callable[[str], os.stat_result],
) -> dict[str, Any]:
    open_paths = options.privileged or security["system_paths"]
    return {
        "namespaces": _namespaces(options),
        "resources": resources_for(options, devices, look),
        "devices": devices,
        "sysctl": _sysctls(options),
        "seccomp": {"sampan": security["seccomp"]},
        "maskedPaths": [] if open_paths else [*defaults.MASKED_PATHS, *_throttles(look)],
        "readonlyPaths": [] if open_paths else list(defaults.READONLY_PATHS),
    }


def _throttles(look: Callable[[str], os.stat_result]) -> list[str]:
    """Return the counters that reveal the host's heat, per CPU; hosts have them for all CPUs or for none."""
    try:
        look("/sys/devices/system/cpu/cpu0/thermal_throttle")
    except OSError:
        return []
    count = os.sysconf("SC_NPROCESSORS_CONF")  # also those that are offline now
    return [f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in range(count)]


def _namespaces(options: RunOptions) -> list[dict[str, str]]:
    named = {name: getattr(options, name) for name in ("pid", "network")}
    shared = {name: text for name, text in named.items() if text.startswith(CONTAINER)}
    if options.network not in ("", "none", "host") and "network" not in shared:
        raise NotSupported(
            f"network {options.network[:60]!r} is not supported", "use --network none, host or container:NAME"
        )
    for name in ("pid", "ipc", "uts", "userns", "cgroupns"):
        known = ("private", "host", "none", "shareable") if name == "ipc" else ("private", "host")
        if getattr(options, name) not in ("", *known) and name not in shared:
            raise NotSupported(
                f"--{name} {getattr(options, name)[:60]!r} is not supported", f"use one of: {', '.join(known)}"
            )
    found = ["mount"] if options.cgroupns == "host" else ["mount", "cgroup"]
    found += [name for name in ("pid", "ipc", "uts") if getattr(options, name) != "host"]
    found += [] if options.network == "host" else ["network"]
    return [{"type": name, **({"path": shared[name]} if name in shared else {})} for name in found]


def _security(options: RunOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"no_new_privileges": False, "system_paths": False}
    found["seccomp"] = "unconfined" if options.privileged else "default"
    for text in options.security_opt:
        key, separator, value = text.partition("=" if "=" in text else ":")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            found["no_new_privileges"] = value != "false"
        elif key == "seccomp" and value:
            named = value in ("builtin", "default", "unconfined")
            found["seccomp"] = value.replace("builtin", "default") if named else os.path.abspath(value)
        elif text.replace(":", "=") == "systempaths=unconfined":
            found["system_paths"] = True
        elif text.replace(":", "=") not in ("apparmor=unconfined", "label=disable"):
            kind = NotSupported if key in ("apparmor", "label", "writable-cgroups") and separator else InvalidArgument
            raise kind(f"invalid --security-opt {text[:100]!r}: it is not one of those that sampan knows")
    return found


def _hostname(options: RunOptions, container_id: str) -> str:
    name = options.hostname
    if name and options.uts == "host":
        raise InvalidArgument("invalid --hostname: the container shares the host's name (--uts host)")
    letters = name.replace("_", "")  # no DNS name has any, but containers' names and services do
    if name and (len(name) > 64 or not _HOSTNAME.issuperset(letters) or name[0] in "-." or name[-1] in "-."):
        why = "it must be letters, digits, '-', '_' and '.', at most 64"
        raise InvalidArgument(f"invalid --hostname {name[:100]!r}: {why}")
    if container_id and not name and options.network == "host":  # Docker's rule: with the host's network its name too
        return os.uname().nodename
    return name or container_id[:12]


def _check_access(devices: list[dict[str, Any]]) -> None:
    """Refuse narrowed access to a device where only the host's modes decide: device rules need privilege."""
    for device in devices:
        if not {"r", "w"} <= set(device["sampan.access"]):
            raise NotSupported(
                f"cannot narrow access to {device['sampan.source']} to {device['sampan.access']!r}:"
                " device rules are not open to ordinary users",
                "leave the letters out: what your user may do with it on the host holds inside too",
            )


def _domainname(options: RunOptions) -> str:
    name = options.domainname
    if options.uts == "host":
        raise InvalidArgument("invalid --domainname: the container shares the host's name (--uts host)")
    if len(name) > 64 or not _HOSTNAME.issuperset(name) or name[0] in "-." or name[-1] in "-.":
        raise InvalidArgument(f"invalid --domainname {name[:100]!r}: it must be letters, digits, '-' and '.'")
    return name


def _user(config: dict[str, Any], options: RunOptions) -> dict[str, Any]:
    name = options.user or config.get("User") or ""
    groups = [str(group) for group in options.group_add]
    for text in (name, *groups):
        if not text.isprintable() or len(text) > 256:
            raise InvalidArgument(f"invalid user or group {text[:100]!r}")
    return {"username": name, "additionalGids": groups} if groups else {"username": name}


def _cwd(config: dict[str, Any], options: RunOptions) -> str:
    if options.workdir and not options.workdir.startswith("/"):
        raise InvalidArgument(f"invalid --workdir {options.workdir[:200]!r}: it must be an absolute path")
    path = options.workdir or config.get("WorkingDir") or "/"
    if not is_path(path):
        raise InvalidArgument(f"invalid working directory {path[:100]!r}")
    return path if path.startswith("/") else "/" + path


def _sysctls(options: RunOptions) -> dict[str, str]:
    for key, value in options.sysctls.items():
        mine = key.startswith(_IPC_SYSCTLS) and options.ipc != "host"
        mine = mine or (key.startswith("net.") and options.network in ("", "none"))
        mine = mine or (key in ("kernel.hostname", "kernel.domainname") and options.uts != "host")
        if not mine or not _SYSCTL.issuperset(key) or not str(value).isprintable():
            raise InvalidArgument(f"invalid --sysctl {key[:100]!r}: it does not belong to a namespace of the container")
    return {key: str(value) for key, value in options.sysctls.items()}


def _annotations(config: dict[str, Any], options: RunOptions) -> dict[str, str]:
    signal = options.stop_signal or config.get("StopSignal") or ""
    if not (signal.isascii() and signal.replace("+", "").replace("-", "").isalnum() or not signal) or len(signal) > 16:
        raise InvalidArgument(f"invalid stop signal {signal[:60]!r}", "name another with --stop-signal")
    return {"sampan.stop_signal": signal} if signal else {}


def _check_strings(values: Iterable[str], what: str) -> None:
    total = 0
    for value in values:
        try:
            size = len(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as exc:
            raise InvalidArgument(f"invalid {what}: {value[:60]!r} is not text") from exc
        if "\0" in value:
            raise InvalidArgument(f"invalid {what}: {value[:60]!r} has a NUL byte")
        if size > _MAX_STRING:
            raise InvalidArgument(
                f"invalid {what}: {value[:60]!r} … has {size} bytes, at most {_MAX_STRING} are possible"
            )
        total += size + 1
    if total > _MAX_STRINGS:
        raise InvalidArgument(f"invalid {what}: it has {total} bytes, at most {_MAX_STRINGS} are possible")
