"""The default filter in the kernel: what a process that has it is told, against one that has none."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from test_seccomp import DENIED

from sampan.runtime import seccomp, syscalls

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls by the numbers of x86_64")

# Reads a filter and a list of [number, arguments]; loads the filter; makes the calls; answers with their errnos.
CHILD = """
import ctypes, json, sys
task = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
program = bytes.fromhex(task["filter"])
class Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
code = ctypes.create_string_buffer(program, len(program))
fprog = Fprog(len(program) // 8, ctypes.addressof(code))
if program:
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(fprog), 0, 0) == 0, ctypes.get_errno()
found = []
for number, args in task["calls"]:
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in args])
    found.append(ctypes.get_errno() if result == -1 else 0)
print(json.dumps(found))
"""
NONSENSE: tuple[int, ...] = (-1,) * 6  # no pointer, no descriptor, no flags: the kernel does nothing with it
ALLOWED = """read write close fstat lseek mprotect ioctl pread64 access madvise dup fcntl fsync ftruncate getdents
getcwd chdir rename mkdir rmdir link unlink symlink readlink chmod chown statfs sched_getparam prlimit64 openat
mknodat unlinkat renameat2 faccessat2 statx copy_file_range epoll_ctl inotify_add_watch timerfd_settime accept4 sendmsg
recvmmsg bind connect listen getsockname memfd_create pidfd_open cachestat chroot name_to_handle_at
setxattr fremovexattr process_mrelease landlock_restrict_self ptrace seccomp mq_open timer_delete splice"""


def ask(program: bytes, calls: list[tuple[int, tuple[int, ...]]]) -> list[int]:
    task = json.dumps({"filter": program.hex(), "calls": calls})
    child = subprocess.run([sys.executable, "-I", "-c", CHILD], input=task, capture_output=True, text=True, check=True)
    return list(json.loads(child.stdout))


NUMBERS = syscalls.numbers("x86_64")
NAMES = [name for name in ALLOWED.split() if name in NUMBERS]
FILTER = seccomp.compile_default(frozenset({"CAP_SYS_CHROOT", "CAP_MKNOD"}), "x86_64")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: without it the kernel refuses most of these anyway"
)


@needs_root
def test_dangerous_calls_are_refused_that_the_control_may_make() -> None:
    names = [name for name in DENIED.split() if name != "vhangup"]  # the one without arguments to get wrong
    calls = [(NUMBERS[name], NONSENSE) for name in names]
    answers, control = ask(FILTER, calls), ask(b"", calls)
    assert [name for name, answer in zip(names, answers, strict=True) if answer != errno.EPERM] == []
    assert sum(answer == errno.EPERM for answer in control) <= 2


@needs_root
def test_ordinary_calls_are_answered_as_without_a_filter() -> None:
    calls = [(NUMBERS[name], NONSENSE) for name in NAMES]
    answers, control = ask(FILTER, calls), ask(b"", calls)
    differ = [name for name, *pair in zip(NAMES, answers, control, strict=True) if pair[0] != pair[1]]
    assert differ == [] and len(NAMES) > 40


def test_arguments_are_looked_at() -> None:
    calls = [
        (NUMBERS["clone3"], NONSENSE),
        (NUMBERS["socket"], (38, 5, 0)),
        (NUMBERS["socket"], ((1 << 32) + 38, 5, 0)),
        (NUMBERS["socket"], (40, 1, 0)),
        (NUMBERS["socket"], (1, 1, 0)),
        (NUMBERS["personality"], (0x0040000,)),
        (NUMBERS["personality"], (0xFFFFFFFF,)),
        (NUMBERS["clone"], (0x10000000 | 17, 0, 0, 0, 0)),
        (NUMBERS["clone"], (0x00000800 | 17, 0, 0, 0, 0)),  # CLONE_SIGHAND without CLONE_VM: invalid, so harmless
        (999, ()),
        (0xFFFFFFF, ()),
    ]
    refused, missing = errno.EPERM, errno.ENOSYS
    want = [missing, refused, refused, refused, 0, refused, 0, refused, errno.EINVAL, missing, missing]
    assert ask(FILTER, calls) == want


def test_32_bit_calls_by_the_old_gate_are_filtered(tmp_path: object) -> None:
    source = f"""
    #include <stdio.h>
    static long gate(long n, long a, long b, long c) {{
        long r; __asm__ volatile("int $0x80" : "=a"(r) : "0"(n), "b"(a), "c"(b), "d"(c) : "memory"); return r; }}
    int main(void) {{
        printf("%ld %ld %ld %ld", gate(20, 0, 0, 0) > 0, gate({syscalls.numbers("i386")["mount"]}, 0, 0, 0),
            gate({syscalls.numbers("i386")["socket"]}, 38, 5, 0), gate(102, 1, 0, 0));
        return 0; }}
    """
    binary = f"{tmp_path}/gate"
    built = subprocess.run(["cc", "-x", "c", "-", "-o", binary, "-static"], input=source.encode(), check=False)
    if built.returncode:
        pytest.skip("no C compiler")
    bare = subprocess.run([binary], capture_output=True, text=True, check=False)
    if bare.returncode or not bare.stdout.startswith("1"):
        pytest.skip("this kernel has no 32-bit gate")
    run = "\nimport os; os.execv(sys.argv[1], sys.argv[1:])"
    task = json.dumps({"filter": FILTER.hex(), "calls": []})
    code = CHILD.replace("print(json.dumps(found))", run)
    child = subprocess.run([sys.executable, "-c", code, binary], input=task, capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["1", str(-errno.EPERM), str(-errno.EPERM), str(-errno.ENOSYS)]
    assert bare.stdout.split()[1] != str(-errno.EPERM)
