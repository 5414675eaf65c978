"""Turns a failed operation into the sentence a user reads: what was missing and the flag or command that helps.

Imported only after a failure.
"""

from __future__ import annotations

import errno
import os
import struct

from sampan.errors import Conflict, InvalidArgument, NotFound, NotSupported, SampanError, Unavailable
from sampan.runtime import plan as p
from sampan.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.launch import StartFailure

# ELF header, e_machine (System V ABI)
MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 21: "ppc64le", 22: "s390x", 258: "loong64"}
_HOSTS = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "loongarch64": "loong64"}


def explain(failure: StartFailure) -> SampanError:
    """Give the error for a failed operation; program errors carry exit codes 126 and 127 as Docker's do."""
    number = failure.errno
    if failure.status:
        return early(failure.status, number == errno.ENOMEM)
    if failure.code == p.EXEC:
        return program(failure.label.removeprefix("execute "), number, failure.head)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            f"cannot {failure.label}: no space left on device", "free some space, or use `sampan rm` and `sampan rmi`"
        )
    from sampan.runtime import refusals

    if hint := refusals.hint(failure):
        return NotSupported(f"cannot {failure.label}: {os.strerror(number)}", hint)
    if failure.code == p.CLONE and number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS, errno.EINVAL):
        return NotSupported(
            f"cannot {failure.label}: {os.strerror(number)}",
            "`sampan doctor` says which namespace this host forbids and how to allow it",
        )
    if failure.code == p.IDMAP:
        return NotSupported(
            f"cannot {failure.label}: {os.strerror(number)}",
            "`sampan doctor` checks /etc/subuid, /etc/subgid and newuidmap",
        )
    if failure.code == p.SOURCE and number == errno.ENOENT:
        return NotFound(f"cannot {failure.label}: no such file or directory", "the source of a bind mount must exist")
    if failure.code == p.CWD:
        return InvalidArgument(
            f"cannot {failure.label}: {os.strerror(number)}", "-w and WORKDIR must name a directory of the image"
        )
    if failure.code in (p.MOUNT, p.ATTACH) and number in (errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EISDIR):
        return Conflict(f"cannot {failure.label}: the image has something else in that place: {os.strerror(number)}")
    if failure.code == p.RLIMIT and number == errno.EPERM:
        return NotSupported(f"cannot {failure.label}: above this host's hard limit", "ask for less with --ulimit")
    if failure.code == p.OOM and number == errno.EACCES:
        return NotSupported(
            f"cannot {failure.label}: only with CAP_SYS_RESOURCE may it be lowered", "leave out --oom-score-adj"
        )
    hint = "`sampan doctor` says what this host can do"
    if number == errno.EAGAIN and failure.code in (p.CLONE, p.ENTER, p.INIT):
        hint = "no more processes may be made (--pids-limit, --ulimit nproc); --init takes one"
    return SampanError(f"cannot {failure.label}: {os.strerror(number)}", hint)


def early(status: int, no_memory: bool) -> SampanError:
    """Explain that the container's process ended while it was being set up: `status` as waitpid(2) gives it."""
    if no_memory:
        return Unavailable("cannot start: memory ran out while the container was set up", "ask for more with --memory")
    if os.WIFSIGNALED(status):
        name = process.signal_name(os.WTERMSIG(status))
        return Unavailable(f"cannot start: {name} ended the process that was to become the program", "start it again")
    return Unavailable("cannot start: the process that was to become the program ended early", "start it again")


def program(words: str, number: int, head: bytes) -> SampanError:
    """Explain a failed execve: the program's interpreter or architecture is named where that is what is wrong."""
    name = words[: words.find("'", 1) + 1] if words.startswith("'") else words.split(" ", 1)[0]
    if number == errno.ENOENT and head[:2] == b"#!":
        interpreter = head[2:].split(b"\n", 1)[0].strip(b" \t").split(b" ", 1)[0].decode("utf-8", "replace")
        hint = (
            "the script has Windows line ends"
            if interpreter.endswith("\r")
            else "install that interpreter in the image"
        )
        return NotFound(
            f"cannot execute {name}: its interpreter {interpreter.strip()} does not exist in the image",
            hint,
            exit_code=127,
        )
    if number == errno.ENOENT and head[:4] == b"\x7fELF":
        return NotFound(
            f"cannot execute {name}: its ELF interpreter {elf_interpreter(head)} does not exist in the image",
            "the program was linked for another libc, or the image lacks its dynamic loader",
            exit_code=127,
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        where = "no such file" if "/" in name else "not found in PATH"
        return NotFound(f"cannot execute {name}: {where} in the image", exit_code=127)
    if number == errno.ENOEXEC:
        return _wrong_format(name, head)
    hint = "it must be a file that may be executed: chmod +x, or COPY --chmod=755" if number == errno.EACCES else ""
    if number == errno.EAGAIN:
        hint = "no more processes may be made: an exec needs two for a moment (--pids-limit, --ulimit nproc)"
    return SampanError(f"cannot execute {name}: {os.strerror(number)}", hint, exit_code=126)


def _wrong_format(name: str, head: bytes) -> SampanError:
    host = _HOSTS.get(os.uname().machine, os.uname().machine)
    if head[:4] != b"\x7fELF" or len(head) <= 20:
        why = "it is neither a program nor a script with #!"
        hint = "a script begins with #! and its interpreter: #!/bin/sh"
    elif (machine := MACHINES.get(struct.unpack("<H", head[18:20])[0], "another machine")) == host:
        why = f"it is built for {host} as this host is, but its ELF headers are damaged"
        hint = "copy or pull it again"
    else:
        why = f"it is built for {machine}, this host is {host}"
        hint = f"use an image for linux/{host} (--platform), or register an emulator such as qemu-user-static"
    return InvalidArgument(f"cannot execute {name}: exec format error: {why}", hint, exit_code=126)


def elf_interpreter(head: bytes) -> str:
    """Read PT_INTERP from an ELF file's first bytes; "(unknown)" when it lies beyond them."""
    try:
        wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
        offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        for i in range(count):
            at = offset + i * size
            if struct.unpack_from(order + "I", head, at)[0] == 3:
                start = struct.unpack_from(order + ("Q" if wide else "I"), head, at + (8 if wide else 4))[0]
                end = head.index(b"\0", start)
                return head[start:end].decode("utf-8", "replace")
    except (struct.error, ValueError, IndexError):
        return "(unknown)"
    return "(unknown)"
