"""A program that cannot be executed: what is missing is named, not the program that is there."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from sampan.runtime import diagnose

ELF = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
INTERPRETER = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, 9, 9, 1) + b"/lib/ld.x\0"
MACHINE = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine, 62)
HERE = ELF[:18] + struct.pack("<H", MACHINE) + ELF[20:]
ARM = ELF[:18] + struct.pack("<H", 183) + ELF[20:]


@pytest.mark.parametrize(
    ("number", "head", "words", "hint", "code"),
    [
        (errno.ENOENT, b"", "no such file", "", 127),
        (errno.ENOENT, b"#!/opt/perl -w\n", "its interpreter /opt/perl does not exist", "install", 127),
        (errno.ENOENT, b"#! /bin/sh\r\necho\r\n", "its interpreter /bin/sh does not exist", "Windows line ends", 127),
        (errno.ENOENT, ELF + INTERPRETER, "its ELF interpreter /lib/ld.x does not exist", "libc", 127),
        (errno.ENOENT, ELF[:50], "its ELF interpreter (unknown) does not exist", "libc", 127),
        (errno.ENOEXEC, ARM, "it is built for arm64", "--platform", 126),
        (errno.ENOEXEC, HERE, "its ELF headers are damaged", "again", 126),
        (errno.ENOEXEC, b"echo hi\n", "neither a program nor a script", "#!/bin/sh", 126),
        (errno.EACCES, b"", "Permission denied", "chmod +x", 126),
        (errno.EAGAIN, b"", "temporarily unavailable", "--pids-limit", 126),
    ],
)
def test_what_keeps_a_program_from_running_is_named(number: int, head: bytes, words: str, hint: str, code: int) -> None:
    found = diagnose.program("/bin/x -a", number, head)
    assert found.message.startswith("cannot execute /bin/x: ") and words in found.message
    assert hint in found.hint and found.exit_code == code
