"""Which devices a container may make and open: rules of the OCI runtime configuration to what the kernel checks. Pure.

Rules are read in order and the later wins, for each kind of access by itself. On cgroup v2, and on the cgroup2 tree of
a hybrid host, the check is an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE (struct bpf_cgroup_dev_ctx in
linux/bpf.h); on cgroup v1 it is lines for devices.allow and devices.deny. What is not allowed is refused.
"""

from __future__ import annotations

import _struct

from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
_EVERYTHING = 7
_MOST_NUMBER = 1 << 32


class Rule:
    """One rule in numbers: `kind` 0 is both kinds; a major or minor of -1 is any."""

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, rule: dict[str, Any]) -> None:
        self.allow = bool(rule.get("allow"))
        kind = rule.get("type") or "a"
        if kind not in ("a", "b", "c", "u"):
            raise InvalidArgument(f"device rule {rule}: type must be a, b or c")
        self.kind = _TYPES.get("c" if kind == "u" else kind, 0)  # mknod(1): u is an unbuffered character device
        self.major = _number(rule, "major")
        self.minor = _number(rule, "minor")
        self.access = _access(rule)

    def line(self) -> str:
        """Return the rule as devices.allow and devices.deny of cgroup v1 read it."""
        kind = {0: "a", 1: "b", 2: "c"}[self.kind]
        numbers = ":".join(["*" if number < 0 else str(number) for number in (self.major, self.minor)])
        return f"{kind} {numbers} " + "".join([letter for letter in "rwm" if self.access & _ACCESS[letter]])

    def everything(self) -> bool:
        """Say whether it is about all devices and every access."""
        return self.kind == 0 and self.major < 0 and self.minor < 0 and self.access == _EVERYTHING

    def grant(self) -> tuple[bool, int, int, int]:
        """Return what it says but for the minor."""
        return self.allow, self.access, self.kind, self.major

    def device(self) -> tuple[int, int, int]:
        """Return what it is about, without the access."""
        return self.kind, self.major, self.minor


def _number(rule: dict[str, Any], key: str) -> int:
    value = rule.get(key)
    if value is None or value == -1:
        return -1
    if not isinstance(value, int) or not 0 <= value < _MOST_NUMBER:
        raise InvalidArgument(f"device rule {rule}: {key} is out of range")
    return value


def _access(rule: dict[str, Any]) -> int:
    letters = rule.get("access") or "rwm"
    found = 0
    for letter in letters:
        if letter not in _ACCESS:
            raise InvalidArgument(f"device rule {rule}: access may hold r, w and m")
        found |= _ACCESS[letter]
    return found


# struct bpf_insn: code, dst_reg:4 src_reg:4, off, imm. r2: access still to be granted; r3: type; r4: major; r5: minor.
_LDX_W = 0x61
_MOV_REG = 0xBF
_MOV_IMM = 0xB7
_AND_IMM = 0x57
_RSH_IMM = 0x77
_JEQ_IMM = 0x15
_JNE_IMM = 0x55
_JNE32_IMM = 0x56  # 32 bits: an immediate is sign-extended in the 64-bit form (kernel >= 5.1)
_JEQ32_IMM = 0x16
_EXIT = 0x95


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return _struct.pack("<BBhI", code, dst | src << 4, off, imm & 0xFFFFFFFF)


def _answer(value: int) -> list[bytes]:
    return [_instruction(_MOV_IMM, 0, imm=value), _instruction(_EXIT)]


def program(rules: list[dict[str, Any]]) -> bytes:
    """Return the eBPF program, an array of struct bpf_insn, that enforces these rules.

    The last rule is asked first. One that allows takes its accesses off the wanted ones, and grants when none is left;
    one that denies refuses when it is about a wanted access that no later rule allowed.
    """
    code = [
        _instruction(_LDX_W, 3, 1, 0),
        _instruction(_MOV_REG, 2, 3),
        _instruction(_RSH_IMM, 2, imm=16),
        _instruction(_AND_IMM, 3, imm=0xFFFF),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    waiting = [Rule(rule) for rule in rules]
    while waiting:
        rule = waiting.pop()
        code += _block(rule, _siblings(rule, waiting))
        if rule.everything():  # it ends the program: the kernel refuses instructions that cannot be reached
            return b"".join(code)
    return b"".join(code + _answer(0))


def _siblings(rule: Rule, waiting: list[Rule]) -> list[int]:
    """Take from the end of `waiting` the rules that grant all that this one does for another minor; return those.

    One test of their kind and major serves for all: the kernel takes 0.3 ms to verify the default rules one by one.
    """
    minors: list[int] = []
    if not rule.allow or rule.access != _EVERYTHING or rule.minor < 0:
        return minors
    while waiting and waiting[-1].minor >= 0 and waiting[-1].grant() == rule.grant():
        minors.append(waiting.pop().minor)
    return minors


def _block(rule: Rule, siblings: list[int]) -> list[bytes]:
    tests = [(3, rule.kind)] if rule.kind else []
    tests += [(register, number) for register, number in ((4, rule.major), (5, rule.minor)) if number >= 0]
    body = _allow(rule) if rule.allow else _deny(rule)
    if siblings:  # each of them goes to the answer, the last test stays before it
        hits = [_instruction(_JEQ32_IMM, 5, off=len(siblings) - at, imm=minor) for at, minor in enumerate(siblings)]
        return _checks(tests[:-1], [*hits, *_checks(tests[-1:], body)])
    return _checks(tests, body)


def _checks(tests: list[tuple[int, int]], body: list[bytes]) -> list[bytes]:
    """Put tests before a body: it is passed over when one fails."""
    checks = []
    for place, (register, number) in enumerate(tests):
        remaining = len(tests) - place - 1 + len(body)
        checks.append(_instruction(_JNE32_IMM, register, off=remaining, imm=number))
    return checks + body


def _allow(rule: Rule) -> list[bytes]:
    if rule.access == _EVERYTHING:
        return _answer(1)
    take = _instruction(_AND_IMM, 2, imm=_EVERYTHING & ~rule.access)
    return [take, _instruction(_JNE_IMM, 2, off=2), *_answer(1)]


def _deny(rule: Rule) -> list[bytes]:
    if rule.access == _EVERYTHING:
        return _answer(0)
    copy, keep = _instruction(_MOV_REG, 0, 2), _instruction(_AND_IMM, 0, imm=rule.access)
    return [copy, keep, _instruction(_JEQ_IMM, 0, off=2), *_answer(0)]


def v1_lines(rules: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what to write on cgroup v1, in order: (devices.allow or devices.deny, line).

    The kernel there keeps one list of exceptions and matches them exactly: a rule that takes back a part of an earlier,
    wider one cannot be said, and is NotSupported.
    """
    lines = [("devices.deny", "a")]
    default, exceptions = False, dict[tuple[int, int, int], int]()
    for rule in [Rule(rule) for rule in rules]:
        if rule.everything():
            default, exceptions = rule.allow, {}
            lines = [("devices.allow" if rule.allow else "devices.deny", "a")]
            continue
        known = exceptions.get(rule.device(), 0)
        if rule.allow == default:
            _check_v1(rule, exceptions)
            exceptions[rule.device()] = known & ~rule.access
        else:
            exceptions[rule.device()] = known | rule.access
        lines.append(("devices.allow" if rule.allow else "devices.deny", rule.line()))
    return lines


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    kinds = not one[0] or not other[0] or one[0] == other[0]
    return kinds and all(a < 0 or b < 0 or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _check_v1(rule: Rule, exceptions: dict[tuple[int, int, int], int]) -> None:
    for device, access in exceptions.items():
        if _overlap(device, rule.device()) and device != rule.device() and access & rule.access:
            raise NotSupported(
                f"cannot apply device rule {rule.line()!r}: the devices controller of cgroup v1 has no exceptions"
                " to exceptions",
                "use a host with cgroup v2, or leave out the wider rule",
            )
