"""What a container uses, as its control groups count it; where they do not, as its processes say.

On a hybrid host a container without limits has no v1 groups: its memory is then the sum of its processes' proportional
shares (Pss of /proc/PID/smaps_rollup), which leaves out the page cache.
"""

from __future__ import annotations

import os

from sampan.runtime.cgrouphost import Placement, read, tree_processes

_V1_UNLIMITED = 1 << 62


def stats(placement: Placement) -> dict[str, int]:
    """Return what is used and allowed; a key is absent where nothing on this host counts it.

    cpu_usage, cpu_user, cpu_system, throttled_time (ns), throttled_periods; memory_usage (without inactive page cache,
    as `docker stats` shows it), memory_limit, memory_swap (bytes); pids, pids_limit; io_read, io_write (bytes).
    """
    found: dict[str, int] = {}
    if placement.v2_dir:
        _v2(placement.v2_dir, found)
    _v1(placement.v1, found)
    if "memory_usage" not in found or "pids" not in found:
        _processes(placement, found)
    return found


def _keyed(path: str) -> dict[str, int]:
    pairs = [line.split() for line in _text(path).splitlines()]
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2 and words[1].isdigit()}


def _text(path: str) -> str:
    """Return a file's text; nothing if this group has no such file."""
    try:
        return read(path)
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _put(found: dict[str, int], key: str, value: int | None) -> None:
    if value is not None:
        found[key] = value


def _v2(directory: str, found: dict[str, int]) -> None:
    cpu = _keyed(f"{directory}/cpu.stat")
    for key, name in (("cpu_usage", "usage_usec"), ("cpu_user", "user_usec"), ("cpu_system", "system_usec")):
        _put(found, key, cpu[name] * 1000 if name in cpu else None)
    _put(found, "throttled_time", cpu["throttled_usec"] * 1000 if "throttled_usec" in cpu else None)
    _put(found, "throttled_periods", cpu.get("nr_throttled"))
    usage = _number(f"{directory}/memory.current")
    if usage is not None:
        found["memory_usage"] = max(0, usage - _keyed(f"{directory}/memory.stat").get("inactive_file", 0))
    _put(found, "memory_limit", _number(f"{directory}/memory.max"))
    _put(found, "memory_swap", _number(f"{directory}/memory.swap.current"))
    _put(found, "pids", _number(f"{directory}/pids.current"))
    _put(found, "pids_limit", _number(f"{directory}/pids.max"))
    if os.path.exists(f"{directory}/io.stat"):  # with the io controller; empty before the first byte
        words = _text(f"{directory}/io.stat").split()
        for key, name in (("io_read", "rbytes="), ("io_write", "wbytes=")):
            found[key] = sum([int(word[len(name) :]) for word in words if word.startswith(name)])


def _v1(groups: dict[str, str], found: dict[str, int]) -> None:
    if "cpuacct" in groups:
        _put(found, "cpu_usage", _number(f"{groups['cpuacct']}/cpuacct.usage"))
    if "cpu" in groups:
        cpu = _keyed(f"{groups['cpu']}/cpu.stat")
        _put(found, "throttled_time", cpu.get("throttled_time"))
        _put(found, "throttled_periods", cpu.get("nr_throttled"))
    if "memory" in groups:
        _v1_memory(groups["memory"], found)
    if "pids" in groups:
        _put(found, "pids", _number(f"{groups['pids']}/pids.current"))
        _put(found, "pids_limit", _number(f"{groups['pids']}/pids.max"))
    if "blkio" in groups:
        lines = [line.split() for line in _text(f"{groups['blkio']}/blkio.throttle.io_service_bytes").splitlines()]
        for key, name in (("io_read", "Read"), ("io_write", "Write")):
            found[key] = sum([int(words[2]) for words in lines if len(words) == 3 and words[1] == name])


def _v1_memory(directory: str, found: dict[str, int]) -> None:
    usage, limit = _number(f"{directory}/memory.usage_in_bytes"), _number(f"{directory}/memory.limit_in_bytes")
    counts = _keyed(f"{directory}/memory.stat")
    if usage is not None:
        found["memory_usage"] = max(0, usage - counts.get("total_inactive_file", 0))
    if limit is not None and limit < _V1_UNLIMITED:
        found["memory_limit"] = limit
    _put(found, "memory_swap", counts.get("total_swap"))


def _processes(placement: Placement, found: dict[str, int]) -> None:
    """Add what only the processes tell."""
    directories = placement.directories()
    of_processes(tree_processes(directories[0]) if directories else [], found)


def of_processes(pids: list[int], found: dict[str, int]) -> None:
    """Add what is missing of pids (threads, as the controller counts) and memory_usage, unless one may not be read."""
    if not pids:
        return
    if "pids" not in found:
        found["pids"] = sum([_threads(pid) for pid in pids])
    if "memory_usage" not in found:
        shares = [_share(pid) for pid in pids]
        if None not in shares:
            found["memory_usage"] = sum([share for share in shares if share])


def _share(pid: int) -> int | None:
    """Return the proportional share of a process in bytes, 0 when it has ended; None when it may not be read."""
    try:
        text = read(f"/proc/{pid}/smaps_rollup")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return None
    lines = [line.split() for line in text.splitlines()]
    return sum([int(words[1]) * 1024 for words in lines if words[0] == "Pss:"])


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:  # it has ended meanwhile
        return 0
