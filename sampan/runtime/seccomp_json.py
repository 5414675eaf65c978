"""Users' seccomp profiles: Docker's JSON, which is also that of the OCI runtime configuration, to decisions. Pure.

What a profile leaves open is settled as runc and libseccomp do: a rule whose action is the default says nothing; a rule
without arguments beats those with; two tests of one argument in a rule are alternatives. Where rules with arguments
overlap, the first in the file wins.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument, NotSupported
from sampan.runtime import bpf
from sampan.runtime.bpf import Condition, Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ACTIONS = {
    "SCMP_ACT_ALLOW": bpf.ALLOW,
    "SCMP_ACT_LOG": bpf.LOG,
    "SCMP_ACT_TRAP": bpf.TRAP,
    "SCMP_ACT_KILL": bpf.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": bpf.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": bpf.KILL_PROCESS,
}
_WITH_DATA = {"SCMP_ACT_ERRNO": bpf.ERRNO, "SCMP_ACT_TRACE": bpf.TRACE}
_OPERATORS = {
    "SCMP_CMP_EQ": "eq",
    "SCMP_CMP_NE": "ne",
    "SCMP_CMP_LT": "lt",
    "SCMP_CMP_LE": "le",
    "SCMP_CMP_GT": "gt",
    "SCMP_CMP_GE": "ge",
    "SCMP_CMP_MASKED_EQ": "masked",
}
_ABIS = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
_FLAGS = {  # linux/seccomp.h SECCOMP_FILTER_FLAG_*
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # nothing to do, as in runc: there is one thread, and execve(2) ends all others
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}
# Those of a profile that lists none, so of the default one too: SPEC_ALLOW, as in runc (its pull request 3588) and crun
# (684). Without it kernels before 5.16 switch speculative store bypass off for whatever has a filter, which slows it
# much; a program that needs that asks for it (Documentation/userspace-api/spec_ctrl.rst).
DEFAULT_FLAGS = _FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
_MOST_ERRNO = 4095  # linux/err.h MAX_ERRNO
# Calls whose first argument the kernel reads as an int: all 64 bits compared, 2^32 + n would pass for another value.
_NARROW = ("socket", "socketpair", "personality")


class Wanted:
    """What a profile is for: the container's capabilities, Go's name of the architecture, the kernel's version."""

    __slots__ = ("architecture", "capabilities", "kernel")

    def __init__(self, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> None:
        self.capabilities = capabilities
        self.architecture = architecture
        self.kernel = kernel


def flags(profile: dict[str, Any]) -> int:
    """Return the flags for seccomp(2) that a profile asks for; without a list the default's."""
    if profile.get("flags") is None:
        return DEFAULT_FLAGS
    found = 0
    for name in _list(profile, "flags"):
        if not isinstance(name, str) or name not in _FLAGS:
            raise InvalidArgument(f"seccomp profile: unknown flag {name}; known are {', '.join(_FLAGS)}")
        found |= _FLAGS[name]
    return found


def abis(profile: dict[str, Any], native: str) -> set[str]:
    """Return the ABIs that a profile covers, in the names of `syscalls.TABLES`; the native one always is."""
    listed = list(_list(profile, "architectures"))
    for entry in _list(profile, "archMap"):
        if _ABIS.get(entry.get("architecture")) == native:
            listed.extend(entry.get("subArchitectures") or [])
    return {native, *[_ABIS[name] for name in listed if name in _ABIS]}


def default(profile: dict[str, Any]) -> int:
    """Return what calls get that no rule names."""
    if "defaultAction" not in profile:
        raise InvalidArgument("seccomp profile: defaultAction is missing")
    return _action(profile["defaultAction"], profile.get("defaultErrnoRet"))


def decisions(profile: dict[str, Any], wanted: Wanted) -> dict[str, int | Rules]:
    """Return the decision for each call that the rules in force name."""
    otherwise = default(profile)
    found: dict[str, int | Rules] = {}
    for rule in _list(profile, "syscalls"):
        action = _action(rule.get("action"), rule.get("errnoRet"))
        if action == otherwise or not _in_force(rule, wanted):
            continue
        alternatives = [(conditions, action) for conditions in _alternatives(rule)]
        for name in rule.get("names") or [rule.get("name", "")]:
            _add(found, name, action, alternatives, otherwise)
    return found


def _add(
    found: dict[str, int | Rules],
    name: str,
    action: int,
    alternatives: list[tuple[list[Condition], int]],
    otherwise: int,
) -> None:
    known = found.get(name)
    if isinstance(known, int):
        return
    if not alternatives:
        found[name] = action
    elif known is None:
        found[name] = Rules(list(alternatives), otherwise, narrow=name in _NARROW)
    else:
        known.alternatives.extend(alternatives)


def _in_force(rule: dict[str, Any], wanted: Wanted) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if any(name not in wanted.capabilities for name in _list(includes, "caps")):
        return False
    if any(name in wanted.capabilities for name in _list(excludes, "caps")):
        return False
    arches = _list(includes, "arches")
    if (arches and wanted.architecture not in arches) or wanted.architecture in _list(excludes, "arches"):
        return False
    if includes.get("minKernel") and wanted.kernel < _version(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and wanted.kernel >= _version(excludes["minKernel"]))


def _alternatives(rule: dict[str, Any]) -> list[list[Condition]]:
    """Return the tests that must hold together, by alternative; none when the rule looks at no argument."""
    conditions = [_condition(argument) for argument in _list(rule, "args")]
    indexes = [condition.index for condition in conditions]
    if len(set(indexes)) < len(indexes):
        return [[condition] for condition in conditions]
    return [conditions] if conditions else []


def _condition(argument: dict[str, Any]) -> Condition:
    op = _OPERATORS.get(argument.get("op", ""))
    index, value, other = argument.get("index", -1), argument.get("value", 0), argument.get("valueTwo", 0)
    for number, limit in ((index, 6), (value, 1 << 64), (other, 1 << 64)):
        if not isinstance(number, int) or not 0 <= number < limit:
            raise InvalidArgument(f"seccomp profile: {number!r} is out of range in argument rule {argument}")
    if op is None:
        raise InvalidArgument(f"seccomp profile: unknown operator {argument.get('op')!r}")
    return Condition(index, op, value, other)


def _action(name: Any, errno: Any) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise NotSupported("seccomp profile: SCMP_ACT_NOTIFY needs a listener, which sampan does not have")
    if name in _WITH_DATA:
        number = 1 if errno is None else errno  # EPERM
        if not isinstance(number, int) or not 0 <= number <= _MOST_ERRNO:
            raise InvalidArgument(f"seccomp profile: {number!r} is not an errno")
        return _WITH_DATA[name] | number
    if name not in _ACTIONS:
        raise InvalidArgument(f"seccomp profile: unknown action {name!r}")
    return _ACTIONS[name]


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0] or "0"
    if not (major.isdigit() and minor.isdigit()):
        raise InvalidArgument(f"seccomp profile: {text!r} is not a kernel version")
    return int(major), int(minor)


def _list(table: dict[str, Any], key: str) -> list[Any]:
    """Return the list under a key; absent and null are empty."""
    value = table.get(key) or []
    if not isinstance(value, list):
        raise InvalidArgument(f"seccomp profile: {key} is not a list")
    return value
