"""Who owns something unfinished: one process, told apart from any later one with the same pid.

An owner is text, `<boot>.<pid namespace>.<pid>.<start time>`, all taken from /proc; it can be part of a file name.
A process in another pid namespace cannot be seen from here, so it counts as alive for as long as the boot lasts.
"""

from __future__ import annotations

import os

_this: tuple[int, str] = (0, "")
_boot = ""


def boot_id() -> str:
    """Return the identity of this boot of the host, 32 hex digits."""
    global _boot
    if not _boot:
        try:
            with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
                _boot = file.read(64).strip().replace(b"-", b"").decode()
        except OSError:
            _boot = "unknown"
    return _boot


def start_time(pid: int) -> int:
    """Return when a process started, in ticks after boot (proc(5), stat field 22), or 0 if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return 0
    if not fields or fields[0] in (b"Z", b"X"):
        return 0
    return int(fields[19])


def this_process() -> str:
    """Return the owner text of the calling process."""
    global _this
    pid = os.getpid()
    if _this[0] != pid:
        _this = pid, f"{boot_id()}.{_pid_namespace()}.{pid}.{start_time(pid)}"
    return _this[1]


def is_alive(owner: str) -> bool:
    """Tell whether the process that `owner` names still runs, as far as it can be seen from here."""
    parts = owner.split(".")
    if len(parts) != 4 or parts[0] != boot_id() or not parts[2].isdecimal():
        return False
    if parts[1] != _pid_namespace():
        return True
    return str(start_time(int(parts[2]))) == parts[3] != "0"


def is_visible(owner: str) -> bool:
    """Tell whether the owner lives in this process's pid namespace, so that its end can be seen."""
    return owner.split(".")[1:2] == [_pid_namespace()]


def _pid_namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
