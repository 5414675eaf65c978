"""What this process may do, as far as the whole program depends on it: whether its containers need a user namespace."""

from __future__ import annotations

import os

CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SETFCAP = 6, 7, 12, 21, 31  # linux/capability.h
_EVERYTHING = (1 << 64) - 1

_sets: tuple[int, int] | None = None


def parse(status: bytes) -> tuple[int, int]:
    """Return the effective and the bounding set that /proc/PID/status (proc(5)) tells; everything where it does not."""
    found = [_EVERYTHING, _EVERYTHING]
    for line in status.splitlines():
        if line.startswith((b"CapEff:", b"CapBnd:")):
            found[line[3:4] == b"B"] = int(line[7:], 16)
    return found[0], found[1]


def capabilities() -> tuple[int, int]:
    """Return the effective and the bounding set of this process, as masks."""
    global _sets
    if _sets is None:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _sets = parse(os.read(fd, 1 << 16))
        finally:
            os.close(fd)
    return _sets


def holds(*numbers: int) -> bool:
    """Say whether this process has all these capabilities."""
    effective = capabilities()[0]
    return all(effective & 1 << number for number in numbers)


def rootless() -> bool:
    """Say whether containers need a user namespace: an ordinary user's, and those of a root without CAP_SYS_ADMIN.

    Such a root is found inside another container that is not privileged.
    """
    return os.geteuid() != 0 or not holds(CAP_SYS_ADMIN)
