"""Try, in a process of its own, what a container's start needs: namespaces, overlay and proc mounts.

A script, run as `python -I -S probe.py MODE DIRECTORY` by `host.try_start`. MODE is `user` to begin with a user
namespace, `root` without, or `proc` in the last step. It prints a line "name errno" for each thing tried, and ends with
its namespaces, so that nothing stays. DIRECTORY is empty, on the file system of the store, and the caller's to remove.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

# linux/sched.h
NAMESPACES = {
    "mount": 0x00020000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "cgroup": 0x02000000,
}
_NEWUSER = 0x10000000
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
_NOSUID_NODEV_NOEXEC = 2 | 4 | 8

_libc = ctypes.CDLL(None, use_errno=True)


def _say(name: str, value: int) -> None:
    print(name, value, flush=True)


def _unshare(flags: int) -> int:
    return ctypes.get_errno() if _libc.unshare(flags) else 0


def _mount(source: bytes, target: str, kind: bytes, flags: int, data: str = "") -> int:
    failed = _libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), os.fsencode(data))
    return ctypes.get_errno() if failed else 0


def _map_own_id(uid: int, gid: int) -> int:
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        return error.errno or -1
    return 0


def _overlay(directory: str, rootless: bool) -> int:
    """Mount an overlay, and delete through it a file of the lower directory: that needs a whiteout."""
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{directory}/{name}")
    with open(f"{directory}/lower/file", "w", encoding="ascii") as file:
        file.write("x")
    data = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
    failed = _mount(b"overlay", f"{directory}/merged", b"overlay", 0, data + (",userxattr" if rootless else ""))
    if failed:
        return failed
    try:
        os.unlink(f"{directory}/merged/file")
    except OSError as error:
        return error.errno or -1
    return 0


def _proc(directory: str) -> int:
    """Start the last step as the first process of the new pid namespace."""
    arguments = [sys.executable, "-I", "-S", os.path.abspath(__file__), "proc", directory]
    pid = os.posix_spawn(sys.executable, arguments, {})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(mode: str, directory: str) -> int:
    """Try everything in order and report each."""
    if mode == "proc":
        return _mount(b"proc", directory, b"proc", _NOSUID_NODEV_NOEXEC)
    rootless, uid, gid = mode == "user", os.geteuid(), os.getegid()
    began = time.perf_counter()
    if rootless:
        failed = _unshare(_NEWUSER) or _map_own_id(uid, gid)
        _say("user", failed)
        if failed:
            return 0
    failures = {name: _unshare(flag) for name, flag in NAMESPACES.items()}
    _say("microseconds", int((time.perf_counter() - began) * 1e6))
    for name, failed in failures.items():
        _say(name, failed)
    if not failures["mount"]:
        _say("private", _mount(b"none", "/", b"", _PRIVATE))
        _say("overlay", _overlay(directory, rootless))
        if not failures["pid"]:
            os.mkdir(f"{directory}/proc")
            _say("proc", _proc(f"{directory}/proc"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
