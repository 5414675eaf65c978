"""Resource limits of the OCI runtime configuration ("linux.resources") to files of cgroup v1 and v2. Pure.

A limit is a `Setting`: what to write into which file of which controller, and how to see in the file afterwards that it
holds. What a cgroup version has no file for is a Setting without choices: the caller refuses it, and never ignores it.
Zero and negative numbers mean "no limit", and need nothing written in a new cgroup.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How a file shows what was written.
NUMBER = "number"  # one number, perhaps rounded down to a page
WORDS = "words"  # the same words
SET = "set"  # a list of ranges, perhaps written otherwise
TOKENS = "tokens"  # every word is somewhere in the file
_PAGE = 4096

# Controllers are known here by their names in v2.
V1_NAMES = {"io": "blkio"}

_THROTTLES = (
    ("throttleReadBpsDevice", "rbps", "read_bps", "--device-read-bps"),
    ("throttleWriteBpsDevice", "wbps", "write_bps", "--device-write-bps"),
    ("throttleReadIOPSDevice", "riops", "read_iops", "--device-read-iops"),
    ("throttleWriteIOPSDevice", "wiops", "write_iops", "--device-write-iops"),
)


class Setting:
    """One limit: `choices` are (file, value), of which the first file that exists is written."""

    __slots__ = ("choices", "controller", "flag", "lack", "shows")

    def __init__(
        self, controller: str, flag: str, choices: list[tuple[str, str]], shows: str = NUMBER, lack: str = ""
    ) -> None:
        self.controller = controller
        self.flag = flag
        self.choices = choices
        self.shows = shows
        self.lack = lack


def holds(setting: Setting, value: str, text: str) -> bool:
    """Say whether a file's text shows that a value is in force."""
    if setting.shows == NUMBER:
        have, want = text.strip(), value.strip()
        if have == want:
            return True
        if want in ("max", "-1"):
            return have in ("max", "-1") or (have.isdigit() and int(have) >= 1 << 62)
        return have.isdigit() and int(have) in (int(want), int(want) - int(want) % _PAGE)
    if setting.shows == SET:
        return parse_set(text) == parse_set(value)
    if setting.shows == WORDS:
        return text.split()[: len(value.split())] == value.split()
    return set(value.split()) <= set(text.split())


def parse_set(text: str) -> set[int]:
    """Return the numbers of a list such as `0-3,7`; InvalidArgument if it is not one."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not part and not text.strip():
            break
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) >= 1 << 16:
            raise InvalidArgument(f"{text.strip()!r} is not a list of CPUs or memory nodes such as 0-3,7")
        found.update(range(int(first), int(last or first) + 1))
    return found


def weight_of_shares(shares: int) -> int:
    """Return the cpu.weight (1 to 10000) of v1's cpu.shares (2 to 262144): the quadratic in log2 through
    (2, 1), (1024, 100) and (262144, 10000) that current runtimes use, so that both defaults meet."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2

    exponent = log2(shares)
    # Rounded before ceil: at 1024 the result is 100 exactly, not a float's breath above.
    return ceil(round(10 ** ((exponent * exponent + 125 * exponent - 126) / 612), 9))


def _io_weight(weight: int) -> int:
    """Return the io.weight (1 to 10000) of a blkio weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def _positive(table: dict[str, Any], key: str) -> int:
    """Return a number; 0 when it is absent, null or no limit."""
    value = table.get(key)
    if value is None or isinstance(value, bool):
        return 0
    if not isinstance(value, int):
        raise InvalidArgument(f"limit {key} is {value!r}, not a number")
    return max(value, 0)


def settings(resources: dict[str, Any], v2: bool) -> list[Setting]:
    """Return the settings of "linux.resources" in the order in which they must be written."""
    found = _memory(resources.get("memory") or {}, v2)
    found += _cpu(resources.get("cpu") or {}, v2)
    limit = _positive(resources.get("pids") or {}, "limit")
    if limit:
        found.append(Setting("pids", "--pids-limit", [("pids.max", str(limit))]))
    found += _block(resources.get("blockIO") or {}, v2)
    for entry in resources.get("hugepageLimits") or []:
        name = f"hugetlb.{entry['pageSize']}." + ("max" if v2 else "limit_in_bytes")
        found.append(Setting("hugetlb", "hugepageLimits", [(name, str(entry["limit"]))]))
    found += _network(resources.get("network") or {}, v2)
    for device, values in (resources.get("rdma") or {}).items():
        words = [f"hca_{name}={values[key]}" for name, key in _RDMA if values.get(key) is not None]
        found.append(Setting("rdma", "rdma", [("rdma.max", " ".join([device, *words]))], TOKENS))
    return found + _unified(resources.get("unified") or {}, v2)


# What an update can take away: section, key, flag, then file and text of "no limit" in v2 and in v1.
_LIFTED = (
    ("memory", "swap", "--memory-swap", ("memory.swap.max", "max"), ("memory.memsw.limit_in_bytes", "-1")),
    ("memory", "limit", "--memory", ("memory.max", "max"), ("memory.limit_in_bytes", "-1")),
    ("memory", "reservation", "--memory-reservation", ("memory.low", "0"), ("memory.soft_limit_in_bytes", "-1")),
    ("cpu", "quota", "--cpus", ("cpu.max", "max"), ("cpu.cfs_quota_us", "-1")),
    ("pids", "limit", "--pids-limit", ("pids.max", "max"), ("pids.max", "max")),
)


def lifted(before: dict[str, Any], after: dict[str, Any], v2: bool) -> list[Setting]:
    """Return the settings that end limits which are in `before` and not in `after` any more."""
    found = []
    for section, key, flag, new, old in _LIFTED:
        had, has = _positive(before.get(section) or {}, key), _positive(after.get(section) or {}, key)
        unlimited = (after.get(section) or {}).get(key) == -1  # then it is written as a setting already
        if had and not has and not (unlimited and key == "swap"):
            file, value = new if v2 else old
            found.append(Setting(section, flag, [(file, value)], WORDS if v2 and file == "cpu.max" else NUMBER))
    return found


_RDMA = (("handle", "hcaHandles"), ("object", "hcaObjects"))


def _memory(memory: dict[str, Any], v2: bool) -> list[Setting]:
    limit, swap = _positive(memory, "limit"), memory.get("swap")
    found = []

    def add(flag: str, name: str, value: int | str, shows: str = NUMBER) -> None:
        choices = [(name, str(value))] if name else []
        lack = "" if name else f"cgroup {'v2' if v2 else 'v1'} has no such setting"
        found.append(Setting("memory", flag, choices, shows, lack))

    if limit:
        add("--memory", "memory.max" if v2 else "memory.limit_in_bytes", limit)
    if _positive(memory, "reservation"):
        add("--memory-reservation", "memory.low" if v2 else "memory.soft_limit_in_bytes", memory["reservation"])
    if swap:
        if swap > 0 and swap < limit:
            raise InvalidArgument(f"--memory-swap {swap} is below --memory {limit}: it is the sum of memory and swap")
        if swap > 0 and not limit:
            raise InvalidArgument("--memory-swap needs --memory: it is the sum of memory and swap")
        add("--memory-swap", "memory.swap.max", "max" if swap < 0 else swap - limit) if v2 else add(
            "--memory-swap", "memory.memsw.limit_in_bytes", swap
        )
    if memory.get("swappiness") is not None and memory["swappiness"] != -1:
        add("--memory-swappiness", "" if v2 else "memory.swappiness", memory["swappiness"])
    if memory.get("disableOOMKiller"):
        add("--oom-kill-disable", "" if v2 else "memory.oom_control", 1, TOKENS)
    if _positive(memory, "kernel"):
        add("--kernel-memory", "", 0)
    if _positive(memory, "kernelTCP"):
        add("--kernel-memory-tcp", "" if v2 else "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"])
    return found


def _cpu(cpu: dict[str, Any], v2: bool) -> list[Setting]:
    found = []
    shares, quota, period = (_positive(cpu, key) for key in ("shares", "quota", "period"))
    if shares:
        choice = ("cpu.weight", weight_of_shares(shares)) if v2 else ("cpu.shares", min(max(shares, 2), 262144))
        found.append(Setting("cpu", "--cpu-shares", [(choice[0], str(choice[1]))]))
    if v2 and (quota or period):
        value = f"{quota or 'max'} {period or 100000}"
        found.append(Setting("cpu", "--cpus", [("cpu.max", value)], WORDS))
    if not v2 and (quota or period):  # the period first: a quota alone may be refused for the default one
        found.append(Setting("cpu", "--cpu-period", [("cpu.cfs_period_us", str(period or 100000))]))
    if not v2 and quota:
        found.append(Setting("cpu", "--cpus", [("cpu.cfs_quota_us", str(quota))]))
    if _positive(cpu, "burst"):
        found.append(Setting("cpu", "burst", [("cpu.max.burst" if v2 else "cpu.cfs_burst_us", str(cpu["burst"]))]))
    if cpu.get("idle"):
        found.append(Setting("cpu", "idle", [("cpu.idle", str(cpu["idle"]))]))
    for key, name, flag in (
        ("realtimePeriod", "cpu.rt_period_us", "--cpu-rt-period"),
        ("realtimeRuntime", "cpu.rt_runtime_us", "--cpu-rt-runtime"),
    ):
        if _positive(cpu, key):
            choices = [] if v2 else [(name, str(cpu[key]))]
            found.append(Setting("cpu", flag, choices, lack="cgroup v2 has no limits of real-time scheduling"))
    for key, flag in (("cpus", "--cpuset-cpus"), ("mems", "--cpuset-mems")):
        if cpu.get(key):
            parse_set(cpu[key])
            found.append(Setting("cpuset", flag, [(f"cpuset.{key}", cpu[key])], SET))
    return found


def _block(block: dict[str, Any], v2: bool) -> list[Setting]:
    found = []
    weight = _positive(block, "weight")
    if weight:
        if not 10 <= weight <= 1000:
            raise InvalidArgument(f"--blkio-weight {weight} is not between 10 and 1000")
        choices = [("io.bfq.weight", str(weight)), ("io.weight", str(_io_weight(weight)))]
        if not v2:
            choices = [("blkio.bfq.weight", str(weight)), ("blkio.weight", str(weight))]
        found.append(Setting("io", "--blkio-weight", choices, TOKENS))
    for entry in block.get("weightDevice") or []:
        device, weight = f"{entry['major']}:{entry['minor']}", entry["weight"]
        choices = [("io.bfq.weight", f"{device} {weight}"), ("io.weight", f"{device} {_io_weight(weight)}")]
        if not v2:
            choices = [(name, f"{device} {weight}") for name in ("blkio.bfq.weight_device", "blkio.weight_device")]
        found.append(Setting("io", "--blkio-weight-device", choices, TOKENS))
    for key, word, name, flag in _THROTTLES:
        for entry in block.get(key) or []:
            device, rate = f"{entry['major']}:{entry['minor']}", entry["rate"]
            choice = (
                ("io.max", f"{device} {word}={rate}") if v2 else (f"blkio.throttle.{name}_device", f"{device} {rate}")
            )
            found.append(Setting("io", flag, [choice], TOKENS))
    return found


def _network(network: dict[str, Any], v2: bool) -> list[Setting]:
    found = []
    lack = "cgroup v2 has no network controllers"
    if network.get("classID"):
        choices = [] if v2 else [("net_cls.classid", str(network["classID"]))]
        found.append(Setting("net_cls", "network.classID", choices, lack=lack))
    for entry in network.get("priorities") or []:
        choices = [] if v2 else [("net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")]
        found.append(Setting("net_prio", "network.priorities", choices, TOKENS, lack))
    return found


def _unified(unified: dict[str, str], v2: bool) -> list[Setting]:
    found = []
    for name, value in unified.items():
        if "/" in name or "." not in name:
            raise InvalidArgument(f"unified resource {name!r} is not the name of a cgroup v2 file")
        scale = {"K": 10, "M": 20, "G": 30, "T": 40}.get(value[-1:].upper(), 0)  # memparse() of the kernel
        if scale and value[:-1].isdigit():
            value = str(int(value[:-1]) << scale)
        choices = [(name, value)] if v2 else []
        shows = NUMBER if value.isdigit() else TOKENS
        found.append(Setting(name.partition(".")[0], f"unified {name}", choices, shows, "it is a file of cgroup v2"))
    return found
