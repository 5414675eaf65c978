"""What this process may do, as far as the whole program depends on it: whether its containers need a user namespace."""

from __future__ import annotations

import os

CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SETFCAP = 6, 7, 12, 21, 31  # linux/capability.h
_EVERYTHING = (1 << 64) - 1
_INITIAL = "user:[4026531837]"  # PROC_USER_INIT_INO (linux/proc_ns.h)

_found: dict[str, int] = {}
_namespace = ""


def parse(status: bytes) -> dict[str, int]:
    """Return CapEff, CapBnd (masks) and NoNewPrivs of /proc/PID/status (proc(5)); all rights where it says nothing."""
    found = {"CapEff": _EVERYTHING, "CapBnd": _EVERYTHING, "NoNewPrivs": 0}
    for line in status.splitlines():
        name, _, value = line.partition(b":")
        if name in (b"CapEff", b"CapBnd", b"NoNewPrivs"):
            found[name.decode()] = int(value, 16)
    return found


def own() -> dict[str, int]:
    """Return what `parse` finds for this process; it is read once."""
    if not _found:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _found.update(parse(os.read(fd, 1 << 16)))
        finally:
            os.close(fd)
    return _found


def bounding() -> int:
    """Return the capabilities that this process can give to a program, as a mask."""
    return own()["CapBnd"]


def holds(*numbers: int) -> bool:
    """Say whether this process has all these capabilities."""
    effective = own()["CapEff"]
    return all(effective & 1 << number for number in numbers)


def may_gain() -> bool:
    """Say whether a setuid program can help: not after prctl(2) PR_SET_NO_NEW_PRIVS, as in many sandboxes."""
    return not own()["NoNewPrivs"]


def rootless() -> bool:
    """Say whether containers need a user namespace: an ordinary user's, and those of a root who is not the host's.

    That is a root without CAP_SYS_ADMIN, as in a container that is not privileged, or one of a user namespace, who can
    make no device.
    """
    return os.geteuid() != 0 or not holds(CAP_SYS_ADMIN) or namespace() != _INITIAL


def namespace() -> str:
    """Return the name of this process's user namespace (namespaces(7)); the first one's if there is no procfs."""
    global _namespace
    if not _namespace:
        try:
            _namespace = os.readlink("/proc/self/ns/user")
        except OSError:
            _namespace = _INITIAL
    return _namespace
