"""A classic BPF interpreter, and the plain meaning of a seccomp profile: the two sides that the tests compare."""

from __future__ import annotations

import functools
import struct
from typing import Any

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL_PROCESS = 0x80000000
X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028


@functools.lru_cache(8)
def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return the instructions of a program: code, jt, jf, k."""
    return [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]


def run(program: bytes, nr: int, audit: int, args: tuple[int, ...] = ()) -> tuple[int, int]:
    """Return what a program answers, and after how many instructions; refuse what the kernel's checker would."""
    data = struct.pack("<IIQ6Q", nr, audit, 0, *(args + (0,) * (6 - len(args))))
    code = decode(program)
    place = steps = accumulator = 0
    while True:
        opcode, jt, jf, k = code[place]
        place += 1
        steps += 1
        if opcode == 0x20:
            assert k % 4 == 0 and k + 4 <= len(data)
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif opcode == 0x54:
            accumulator &= k
        elif opcode == 0x05:
            place += k
        elif opcode in (0x15, 0x25, 0x35):
            hit = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[opcode]
            place += jt if hit else jf
        elif opcode == 0x06:
            return k, steps
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def in_force(rule: dict[str, Any], capabilities: frozenset[str], arch: str) -> bool:
    """Say whether Docker would use a rule on this architecture (amd64, arm64) with these capabilities."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        all(name in capabilities for name in includes.get("caps", []))
        and not any(name in capabilities for name in excludes.get("caps", []))
        and arch in (includes.get("arches") or [arch])
        and arch not in excludes.get("arches", [])
    )


def holds(argument: dict[str, Any], args: tuple[int, ...]) -> bool:
    """Evaluate one argument test of a JSON profile on 64-bit arguments."""
    have, want, op = args[argument["index"]], argument["value"], argument["op"].removeprefix("SCMP_CMP_")
    results: dict[str, bool] = {
        "EQ": have == want,
        "NE": have != want,
        "LT": have < want,
        "LE": have <= want,
        "GT": have > want,
        "GE": have >= want,
        "MASKED_EQ": have & want == argument.get("valueTwo", 0),
    }
    return results[op]


class Naive:
    """A JSON profile read as it is written: a list of rules, walked for each call."""

    def __init__(self, profile: dict[str, Any], capabilities: frozenset[str], arch: str) -> None:
        self.default = self.value(profile["defaultAction"], profile.get("defaultErrnoRet"))
        self.rules: dict[str, list[tuple[int, list[dict[str, Any]]]]] = {}
        for rule in profile["syscalls"]:
            action = self.value(rule["action"], rule.get("errnoRet"))
            if action == self.default or not in_force(rule, capabilities, arch):
                continue
            for name in rule["names"]:
                self.rules.setdefault(name, []).append((action, rule.get("args") or []))

    @staticmethod
    def value(action: str, errno: int | None) -> int:
        if action == "SCMP_ACT_ERRNO":
            return ERRNO | (1 if errno is None else errno)
        return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS, "SCMP_ACT_LOG": 0x7FFC0000}[action]

    def decide(self, name: str, args: tuple[int, ...]) -> int:
        rules = self.rules.get(name, [])
        for action, tests in rules:
            if not tests:
                return action
        for action, tests in rules:
            if all(holds(test, args) for test in tests):
                return action
        return self.default
