"""Limits and devices: what was asked, as `linux.resources`, `linux.devices` and `process.rlimits` of the runtime spec.

Whether the host can apply a limit is not known here; what cannot be meant is refused, naming the option.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import InvalidArgument
from sampan.oci import options as defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.oci.options import RunOptions

_PERIOD = 100_000  # microseconds, the kernel's own default
_MIN_MEMORY = 6 << 20  # Docker's: less cannot start a program
_UNLIMITED = (1 << 64) - 1
_RLIMITS = frozenset(
    ("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss")
    + ("rtprio", "rttime", "sigpending", "stack")
)
_CPUSET = frozenset("0123456789,-")


_BLOCK = (
    *("blkio_weight", "blkio_weight_device"),
    *("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"),
)


def resources_for(
    options: RunOptions, devices: list[dict[str, Any]], look: Callable[[str], os.stat_result] = os.stat
) -> dict[str, Any]:
    """Return `linux.resources`; raise InvalidArgument."""
    found: dict[str, Any] = {}
    memory = _memory(options)
    if memory:
        found["memory"] = memory
    cpu = _cpu(options)
    if cpu:
        found["cpu"] = cpu
    if _integer(options.pids_limit, "--pids-limit") > 0:
        found["pids"] = {"limit": options.pids_limit}
    if options.privileged:
        found["devices"] = list(defaults.ALLOW_ALL)
    else:
        rules = defaults.device_rules()
        for device in devices:
            rule = {key: device[key] for key in ("type", "major", "minor")}
            rules.append({"allow": True, **rule, "access": device["sampan.access"]})
        if options.device_cgroup_rules:
            from sampan.oci import blockio

            rules += blockio.rules(options.device_cgroup_rules)
        found["devices"] = rules
    if any(getattr(options, name) for name in _BLOCK):
        from sampan.oci import blockio

        found["blockIO"] = blockio.block_io(options, look)
    return found


def _memory(options: RunOptions) -> dict[str, Any]:
    limit, swap = _integer(options.memory, "--memory"), _integer(options.memory_swap, "--memory-swap")
    reservation = _integer(options.memory_reservation, "--memory-reservation")
    limit = 0 if limit == -1 else limit
    if limit < 0 or 0 < limit < _MIN_MEMORY:
        raise InvalidArgument(f"invalid --memory {limit}: the smallest limit is 6m")
    if swap > 0 and not limit:
        raise InvalidArgument("invalid --memory-swap: it needs --memory as well")
    if swap < -1 or 0 < swap < limit:
        raise InvalidArgument(f"invalid --memory-swap {swap}: it includes --memory ({limit}), so it cannot be less")
    if reservation < 0 or (limit and reservation > limit):
        raise InvalidArgument(f"invalid --memory-reservation {reservation}: it cannot be more than --memory")
    found: dict[str, Any] = {"reservation": reservation} if reservation else {}
    swappiness = options.memory_swappiness
    if swappiness is not None and swappiness != -1:
        if not 0 <= _integer(swappiness, "--memory-swappiness") <= 100:
            raise InvalidArgument(f"invalid --memory-swappiness {swappiness}: it must be between 0 and 100")
        found["swappiness"] = swappiness
    if options.oom_kill_disable:
        found["disableOOMKiller"] = True
    # Docker's rule: without --memory-swap, as much swap as memory.
    return {"limit": limit, "swap": swap or 2 * limit, **found} if limit else found


def _cpu(options: RunOptions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        cpus = float(options.cpus or 0)
    except (TypeError, ValueError) as exc:
        raise InvalidArgument(f"invalid --cpus {options.cpus!r}: it is not a number") from exc
    there = os.cpu_count() or 1 if cpus else 0
    if cpus and not 0.01 <= cpus <= there:
        raise InvalidArgument(f"invalid --cpus {options.cpus}: it must be between 0.01 and the {there} of this host")
    period, quota = _integer(options.cpu_period, "--cpu-period"), _integer(options.cpu_quota, "--cpu-quota")
    if cpus and (period or quota):
        raise InvalidArgument("invalid --cpus: it sets what --cpu-period and --cpu-quota set", "give one or the other")
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidArgument(f"invalid --cpu-period {period}: it must be between 1000 and 1000000 microseconds")
    if quota > 0 and quota < 1000:
        raise InvalidArgument(f"invalid --cpu-quota {quota}: it must be at least 1000 microseconds")
    if cpus:
        found.update(quota=int(cpus * _PERIOD), period=_PERIOD)
    found.update({key: value for key, value in (("period", period), ("quota", quota)) if value > 0})
    shares = _integer(options.cpu_shares, "--cpu-shares")
    if shares and not 2 <= shares <= 262144:
        raise InvalidArgument(f"invalid --cpu-shares {shares}: it must be between 2 and 262144")
    if shares:
        found["shares"] = shares
    for name, key in (("cpu_rt_period", "realtimePeriod"), ("cpu_rt_runtime", "realtimeRuntime")):
        if getattr(options, name):
            found[key] = _integer(getattr(options, name), "--" + name.replace("_", "-"))
    for text, key in ((options.cpuset, "cpus"), (options.cpuset_mems, "mems")):
        if text and not _CPUSET.issuperset(text):
            raise InvalidArgument(f"invalid --cpuset-{key} {text[:100]!r}: write a list such as 0-3,7")
        if text:
            found[key] = text
    return found


def rlimits_for(options: RunOptions) -> list[dict[str, Any]]:
    """Return `process.rlimits` for texts like `nofile=1024:2048`; raise InvalidArgument."""
    found: dict[str, dict[str, Any]] = {}
    for text in options.ulimits:
        name, equals, values = text.partition("=")
        soft, colon, hard = values.partition(":")
        if equals and name not in _RLIMITS:
            known = ", ".join(sorted(_RLIMITS))
            raise InvalidArgument(f"invalid --ulimit {text[:100]!r}: there is no such limit", f"one of: {known}")
        if not equals:
            raise InvalidArgument(f"invalid --ulimit {text[:100]!r}: write NAME=SOFT[:HARD], for example nofile=1024")
        low = _limit(soft, text)
        high = _limit(hard, text) if colon else low
        if low > high:
            raise InvalidArgument(f"invalid --ulimit {text[:100]!r}: the soft limit is above the hard one")
        found[name] = {"type": f"RLIMIT_{name.upper()}", "soft": low, "hard": high}
    return list(found.values())


def _limit(text: str, option: str) -> int:
    if text in ("-1", "unlimited"):
        return _UNLIMITED
    if not (text.isascii() and text.isdecimal()) or len(text) > 20 or int(text) > _UNLIMITED:
        raise InvalidArgument(f"invalid --ulimit {option[:100]!r}: {text[:30]!r} is not a number")
    return int(text)


def devices_for(options: RunOptions, look: Callable[[str], os.stat_result]) -> list[dict[str, Any]]:
    """Return `linux.devices` for texts like `/dev/fuse[:/dev/fuse[:rwm]]`; `look` is os.stat of the host."""
    found = []
    for text in options.devices:
        source, _, rest = text.partition(":")
        target, _, access = rest.partition(":")
        if target and not target.startswith("/") and not access:
            target, access = "", target
        found.append(_device(text, source, target or source, access or "rwm", look))
    return found


def _device(text: str, source: str, target: str, access: str, look: Callable[[str], os.stat_result]) -> dict[str, Any]:
    name = target.removeprefix("/dev/")
    if name == target or not name or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in text:
        raise InvalidArgument(f"invalid --device {text[:200]!r}: inside, a device must have a path below /dev")
    if not access or not set(access) <= set("rwm"):
        raise InvalidArgument(f"invalid --device {text[:200]!r}: {access[:20]!r} is not made of r, w and m")
    try:
        state = look(source)
    except OSError as exc:
        raise InvalidArgument(f"invalid --device {text[:200]!r}: cannot look at {source}: {exc.strerror}") from exc
    kind = "c" if stat.S_ISCHR(state.st_mode) else "b" if stat.S_ISBLK(state.st_mode) else ""
    if not kind:
        raise InvalidArgument(f"invalid --device {text[:200]!r}: {source} is not a device")
    return {
        "path": target,
        "type": kind,
        "major": os.major(state.st_rdev),
        "minor": os.minor(state.st_rdev),
        "fileMode": stat.S_IMODE(state.st_mode),
        "uid": state.st_uid,
        "gid": state.st_gid,
        "sampan.access": access,
        "sampan.source": source,
    }


def _integer(value: object, option: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise InvalidArgument(f"invalid {option} {value!r}: it is not a whole number")
    return value
