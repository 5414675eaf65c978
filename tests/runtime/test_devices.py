"""Device rules: the eBPF program decides as the rules say, here in an interpreter and in the kernel."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument, NotSupported
from sampan.oci.options import ALLOW_ALL, device_rules
from sampan.runtime import cgroup, devices

MKNOD, READ, WRITE = 1, 2, 4
BLOCK, CHAR = 1, 2
DEFAULT = device_rules()


def run(program: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """Interpret the instructions that a device program uses."""
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers, place = [0] * 11, 0
    while True:
        opcode, both, off, imm = code[place]
        dst, src = both & 15, both >> 4
        place += 1
        if opcode == 0x61:
            assert src == 1
            registers[dst] = context[off]
        elif opcode == 0xBF:
            registers[dst] = registers[src]
        elif opcode == 0xB7:
            registers[dst] = imm
        elif opcode == 0x57:
            registers[dst] &= imm
        elif opcode == 0x77:
            registers[dst] >>= imm
        elif opcode in (0x15, 0x55):
            place += off if (registers[dst] == imm) == (opcode == 0x15) else 0
        elif opcode == 0x16:
            place += off if registers[dst] & 0xFFFFFFFF == imm & 0xFFFFFFFF else 0
        elif opcode == 0x56:
            place += off if registers[dst] & 0xFFFFFFFF != imm & 0xFFFFFFFF else 0
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(hex(opcode))


def plain(rules: list[dict[str, Any]], kind: int, major: int, minor: int, access: int) -> int:
    """Each access by itself: the last rule about it decides."""
    for bit, letter in ((MKNOD, "m"), (READ, "r"), (WRITE, "w")):
        if not access & bit:
            continue
        granted = False
        for rule in rules:
            about = rule.get("type", "a") == "a" or {"b": BLOCK, "c": CHAR}[rule["type"]] == kind
            about = about and rule.get("major", -1) in (-1, major) and rule.get("minor", -1) in (-1, minor)
            if about and letter in rule["access"]:
                granted = rule["allow"]
        if not granted:
            return 0
    return 1


MIXED = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "rw"},
    {"allow": False, "type": "c", "major": 1, "access": "w"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
    {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "w"},
    {"allow": False, "type": "b", "minor": 0, "major": 9, "access": "m"},
    {"allow": True, "type": "c", "major": 0xFFFFFFFE, "minor": 0x80000000, "access": "r"},
]


SIBLINGS = [
    *[{"allow": True, "type": "c", "major": 1, "minor": minor, "access": "rwm"} for minor in (0, 1, 2)],
    {"allow": False, "type": "c", "major": 1, "minor": 1, "access": "rwm"},
    *[{"allow": True, "minor": minor, "access": "rwm"} for minor in (8, 9)],
    *[{"allow": True, "type": "b", "major": 5, "minor": minor, "access": "rwm"} for minor in (3, 0x80000000)],
    {"allow": True, "type": "b", "major": 8, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "b", "major": 8, "minor": 5, "access": "r"},
]


@pytest.mark.parametrize("rules", [DEFAULT, ALLOW_ALL, MIXED, [], MIXED[:3], SIBLINGS])
def test_program_decides_as_the_rules_say(rules: list[dict[str, Any]]) -> None:
    program = devices.program(rules)
    numbers = [0, 1, 2, 3, 5, 8, 9, 136, 0x80000000, 0xFFFFFFFE]
    for kind, major, minor, access in itertools.product((BLOCK, CHAR), numbers, numbers, range(1, 8)):
        want = plain(rules, kind, major, minor, access)
        assert run(program, kind, major, minor, access) == want, (kind, major, minor, access)


def test_default_lets_make_any_node_but_open_harmless_ones_only() -> None:
    program = devices.program(DEFAULT)
    assert run(program, BLOCK, 8, 0, MKNOD) == 1
    assert run(program, BLOCK, 8, 0, READ) == 0
    assert run(program, CHAR, 1, 1, READ) == 0  # /dev/mem
    assert run(program, CHAR, 10, 229, READ | WRITE) == 0  # /dev/fuse
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 0), (136, 77)):
        assert run(program, CHAR, major, minor, READ | WRITE) == 1
    added = [*DEFAULT, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    assert run(devices.program(added), CHAR, 10, 229, READ | WRITE) == 1


@pytest.mark.parametrize(
    "rule", [{"type": "x"}, {"access": "rx"}, {"major": -2}, {"minor": 1 << 32}, {"major": "1"}], ids=str
)
def test_wrong_rule_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="device rule"):
        devices.program([{"allow": True, **rule}])


def test_v1_lines() -> None:
    lines = devices.v1_lines(DEFAULT)
    assert lines[:3] == [("devices.deny", "a"), ("devices.allow", "c *:* m"), ("devices.allow", "b *:* m")]
    assert ("devices.allow", "c 1:3 rwm") in lines and ("devices.allow", "c 136:* rwm") in lines
    assert devices.v1_lines(ALLOW_ALL) == [("devices.allow", "a")]


def test_v1_refuses_what_its_kernel_list_cannot_say() -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "access": "rw"}]
    with pytest.raises(NotSupported, match="cgroup v1"):
        devices.v1_lines([*rules, {"allow": False, "type": "c", "major": 1, "minor": 1, "access": "r"}])
    same = devices.v1_lines([*rules, {"allow": False, "type": "c", "access": "w"}])
    assert same[-1] == ("devices.deny", "c *:* w")


def attach(program: bytes, directory: str) -> None:
    """Load a program and attach it to a group with bpf(2), as the helper does."""
    libc = ctypes.CDLL(None, use_errno=True)
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"Apache-2.0")
    fields = struct.pack("<IIQQ", 15, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence))
    load = ctypes.create_string_buffer(fields.ljust(128, b"\0"), 128)
    loaded = libc.syscall(321, 5, load, 128)
    assert loaded >= 0, os.strerror(ctypes.get_errno())
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        what = ctypes.create_string_buffer(struct.pack("<IIII", group, loaded, 6, 0).ljust(128, b"\0"), 128)
        assert libc.syscall(321, 8, what, 128) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(group)
        os.close(loaded)


def a_disk() -> int:
    """Find a block device that can be opened: a drive may be empty, and others may be taking a loop device away."""
    for entry in os.scandir("/dev"):
        try:
            if stat.S_ISBLK(entry.stat().st_mode) and not entry.name.startswith("loop"):
                os.close(os.open(entry.path, os.O_RDONLY))
                return entry.stat().st_rdev
        except OSError:
            continue
    return 0


@pytest.mark.skipif(os.geteuid() != 0 or os.uname().machine != "x86_64", reason="needs root on x86_64")
def test_kernel_enforces_the_program(tmp_path: Path) -> None:
    if not cgroup.detect().v2_base:
        pytest.skip("no cgroup2 tree to attach to")
    nodes = {"kmsg": (stat.S_IFCHR, os.makedev(1, 11)), "null": (stat.S_IFCHR, os.makedev(1, 3))}
    nodes |= {"disk": (stat.S_IFBLK, disk)} if (disk := a_disk()) else {}
    for name, (kind, device) in nodes.items():
        os.mknod(tmp_path / name, kind | 0o600, device)
        os.close(os.open(tmp_path / name, os.O_RDONLY))  # the control: outside the group each can be opened
    script = f"""
import os, sys
sys.stdin.readline()
for name in {list(nodes)!r}:
    try:
        os.close(os.open({str(tmp_path)!r} + "/" + name, os.O_RDONLY))
        print(0)
    except OSError as error:
        print(error.errno)
os.mknod({str(tmp_path / "made")!r}, 0o20600, os.makedev(1, 1))
"""
    placement = cgroup.create(f"test-devices-{os.getpid()}", {})
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        attach(devices.program(DEFAULT), placement.v2_dir)
        Path(placement.v2_dir, "cgroup.procs").write_text(str(child.pid))
        out, _ = child.communicate("go\n", timeout=60)
    finally:
        child.kill()
        child.wait()
        cgroup.remove(placement)
    assert out.split() == ["0" if name == "null" else str(errno.EPERM) for name in nodes]
    assert (tmp_path / "made").exists()
