"""What helps where this host refuses a part of a start: it may itself be a container, a pod or a sandbox.

Imported only after a failure. What other engines are to be told are options of Docker's and Podman's command lines.
"""

from __future__ import annotations

import errno
import os

from sampan import rights
from sampan.runtime import host
from sampan.runtime import plan as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.launch import StartFailure

_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_FILTERED = (p.CLONE, p.DETACH, p.HOSTNAME, p.DOMAINNAME)
_LOCAL = ("ext4", "xfs", "btrfs", "f2fs", "tmpfs")  # what overlayfs takes for an upper directory
_NOT_THERE = ("/proc", "/sys", "/dev", "/run", "/etc", "/boot")
_ENOUGH = 1 << 30


def hint(failure: StartFailure) -> str:
    """Return what lets a failed operation succeed on this host; "" if nothing is known."""
    code, number = failure.code, failure.errno
    if code in _FILTERED and number in _FORBIDDEN and filtered():
        return (
            "a filter of system calls forbids it here, as in most containers: start the outer one with "
            "--security-opt seccomp=unconfined, or with --privileged"
        )
    if code == p.MOUNT and number == errno.EPERM and failure.label.startswith("mount proc"):
        return (
            "parts of /proc are covered here, as in most containers: use --pid host, or start the outer one with "
            "--security-opt systempaths=unconfined (podman: unmask=ALL)"
        )
    if code == p.OVERLAY and number == errno.EINVAL:
        return f"this file system cannot hold the changes of an overlay: {elsewhere()}"
    if code == p.IDMAP and os.geteuid() == 0 and not rights.holds(rights.CAP_SETFCAP):
        return "root needs CAP_SETFCAP for it (Linux 5.12): give it to this container, or run sampan as another user"
    return ""


def filtered() -> bool:
    """Say whether a filter of system calls is in effect for this process (proc(5), Seccomp: 2)."""
    return "\nSeccomp:\t2" in host.read_text("/proc/self/status")


def elsewhere(mountinfo: str = "") -> str:
    """Return the command that puts the store where containers can start, or what to ask of the outer engine."""
    places = candidates(mountinfo or host.read_text("/proc/self/mountinfo"))
    if places:
        return f"export SAMPAN_ROOT={os.path.join(places[0], 'sampan')}"
    return "start the outer container with a volume there, or export SAMPAN_ROOT=DIRECTORY-IN-A-VOLUME"


def candidates(mountinfo: str) -> list[str]:
    """Return directories that are mounted from a local disk (else in memory) and may be written, the roomiest first."""
    kinds = {point: (kind, options.split(",")) for point, kind, options in host.mounts(mountinfo)}  # the last is on top
    found: dict[str, tuple[bool, int]] = {}
    for point, (kind, options) in kinds.items():
        if kind in _LOCAL and "ro" not in options and _is_free(point):
            state = os.statvfs(point)
            found[point] = (kind == "tmpfs", -state.f_bavail * state.f_frsize)
    return sorted([point for point in found if -found[point][1] >= _ENOUGH], key=lambda point: found[point])


def _is_free(point: str) -> bool:
    """Say whether a mount point is a directory for this process's own files."""
    taken = any(point == top or point.startswith(f"{top}/") for top in _NOT_THERE) and point != "/dev/shm"
    return not taken and os.path.isdir(point) and os.access(point, os.W_OK) and host.takes_attributes(point)
