"""Runs a command and kills one of its processes right before its n-th system call that changes anything.

    tracer.py ROLE N PROGRAM [ARG...]

ROLE is `command` (the interpreter), `supervisor` (the helper) or `child` (the helper's child, until it becomes the
program). With N = 0 nothing is killed. Prints, as JSON, the number of such calls of each role and the exit status.

A kill between two calls that change nothing is the same fault twice, so reading, mapping and looking are not counted.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys

from sampan.runtime import syscalls

SEIZE, CONT_SYSCALL, DETACH, SYSCALL_INFO, LISTEN = 0x4206, 24, 17, 0x420E, 0x4208
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10  # TRACESYSGOOD, FORK, VFORK, CLONE, EXEC
EVENT_EXEC, EVENT_STOP = 4, 128
WALL = 0x40000000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_WORDS = (
    "write pwrite64 writev pwritev sendto sendmsg sendfile copy_file_range ftruncate fallocate fsync fdatasync "
    "syncfs mkdir mkdirat rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat mknod "
    "mknodat chmod fchmod fchmodat chown fchown fchownat lchown setxattr fsetxattr lsetxattr utimensat flock "
    "bind connect listen clone clone3 fork vfork execve execveat kill pidfd_send_signal mount umount2 "
    "move_mount open_tree fsopen fsmount mount_setattr pivot_root setns unshare bpf prctl seccomp capset "
    "setresuid setresgid setgroups exit_group "
)
CHANGING = frozenset(_WORDS.split())
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Calls:
    """Know the numbers of this machine's calls that change something."""

    def __init__(self) -> None:
        self.numbers = syscalls.numbers(os.uname().machine)
        self.names = {number: name for name, number in self.numbers.items()}
        self.changing = {self.numbers[name] for name in CHANGING if name in self.numbers}

    def changes(self, call: int, arguments: list[int]) -> bool:
        return call in self.changing or (call == self.numbers["openat"] and bool(arguments[2] & WRITING))


class Tracer:
    """Follow a tree of processes and count, or kill."""

    def __init__(self, role: str, number: int) -> None:
        self.role, self.number = role, number
        self.roles: dict[int, str] = {}
        self.counts = {"command": 0, "supervisor": 0, "child": 0}
        self.calls = Calls()
        self.killed = ""

    def ptrace(self, request: int, pid: int, address: int = 0, data: int = 0) -> int:
        return int(libc.ptrace(request, pid, ctypes.c_void_p(address), ctypes.c_void_p(data)))

    def start(self, words: list[str]) -> int:
        waiting = ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *words]
        pid = os.posix_spawn("/bin/sh", waiting, dict(os.environ))
        os.waitpid(pid, os.WUNTRACED)
        if self.ptrace(SEIZE, pid, 0, OPTIONS) != 0:
            raise OSError(ctypes.get_errno(), "cannot trace")
        os.kill(pid, signal.SIGCONT)
        self.roles[pid] = "shell"
        return pid

    def run(self, words: list[str]) -> int:
        root = self.start(words)
        signal.signal(signal.SIGALRM, self.give_up)
        signal.alarm(60)
        while True:
            pid, status = os.waitpid(-1, WALL)
            if os.WIFSTOPPED(status):
                self.stopped(pid, status)
            elif pid == root:
                return os.waitstatus_to_exitcode(status)

    def give_up(self, *_: object) -> None:
        for pid, role in self.roles.items():
            if role in ("shell", "command"):
                os.kill(pid, signal.SIGKILL)
        raise TimeoutError("the command hangs")

    def stopped(self, pid: int, status: int) -> None:
        number, event, deliver = os.WSTOPSIG(status), status >> 16, 0
        role = self.roles.setdefault(pid, "new")
        if number == signal.SIGTRAP | 0x80:
            if self.at_call(pid, role):
                return
        elif event == EVENT_EXEC:
            self.executed(pid, role)
            if self.roles[pid] == "program":
                self.ptrace(DETACH, pid)
                return
        elif event == EVENT_STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            self.ptrace(LISTEN, pid)
            return
        elif event == 0:
            deliver = number
        self.ptrace(CONT_SYSCALL, pid, 0, deliver)

    def executed(self, pid: int, role: str) -> None:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
        if line.startswith(b"sampan-helper"):
            self.roles[pid] = "supervisor"
        elif role == "shell":
            self.roles[pid] = "command"
        elif role in ("new", "child"):
            self.roles[pid] = "program"

    def role_of_new(self, pid: int) -> str:
        """Tell what a task is that was not executed: a thread its process, a child of the helper its child."""
        with open(f"/proc/{pid}/status", "rb") as file:
            group = next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
        if group != pid:
            return self.roles.get(group, "new")
        return {"supervisor": "child"}.get(self.parent_role(pid), "new")

    def parent_role(self, pid: int) -> str:
        with open(f"/proc/{pid}/stat", "rb") as file:
            parent = int(file.read().rsplit(b")", 1)[1].split()[1])
        return self.roles.get(parent, "")

    def at_call(self, pid: int, role: str) -> bool:
        """Count a call that is about to happen; say whether the process was killed instead."""
        info = ctypes.create_string_buffer(88)
        if self.ptrace(SYSCALL_INFO, pid, 88, ctypes.addressof(info)) <= 0 or info.raw[0] != 1:
            return False
        call, *arguments = struct.unpack_from("7Q", info.raw, 24)
        if not self.calls.changes(call, arguments):
            return False
        if role == "new":
            role = self.roles[pid] = self.role_of_new(pid)
        if role not in self.counts:
            return False
        self.counts[role] += 1
        if (role, self.counts[role]) != (self.role, self.number):
            return False
        self.killed = self.calls.names[call]
        os.kill(pid, signal.SIGKILL)
        return True


def main() -> None:
    tracer = Tracer(sys.argv[1], int(sys.argv[2]))
    code = tracer.run(sys.argv[3:])
    print(json.dumps({"counts": tracer.counts, "code": code, "killed": tracer.killed}), file=sys.stderr)


if __name__ == "__main__":
    main()
