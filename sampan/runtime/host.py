"""What this host is and can do, as plain facts: read from /proc and /sys, or really tried. `doctor` explains them.

Everything here is cold. A fact that cannot be found out is None or "".
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_KERNEL = (5, 12)  # mount_setattr; overlay in a user namespace came with 5.11

# /etc/os-release ID or ID_LIKE -> package manager
_MANAGERS = (
    ("apt-get install -y", ("debian", "ubuntu")),
    ("apk add", ("alpine",)),
    ("dnf install -y", ("fedora", "rhel", "centos", "rocky", "almalinux", "amzn")),
    ("zypper install -y", ("suse", "opensuse", "sles")),
    ("pacman -S --noconfirm", ("arch",)),
)
# File systems that cannot hold a whole store: no extended attributes, or ids that are not the user's to give.
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "fuse.sshfs", "ceph", "lustre", "gpfs", "beegfs")


def read_text(path: str) -> str:
    """Return the stripped text of a small file; "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def sysctl(name: str, proc: str = "/proc") -> int | None:
    """Return a numeric kernel setting; None where this kernel has none."""
    text = read_text(f"{proc}/sys/{name.replace('.', '/')}")
    return int(text) if text.lstrip("-").isdigit() else None


def kernel_version(release: str = "") -> tuple[int, int]:
    """Return (major, minor) of the running kernel, or of a release text such as `6.1.0-18-amd64`."""
    parts = (release or os.uname().release).split(".")
    minor = "".join([c if c.isdigit() else " " for c in parts[1]]).split() if len(parts) > 1 else []
    return (int(parts[0]) if parts[0].isdigit() else 0, int(minor[0]) if minor else 0)


def os_release(text: str) -> dict[str, str]:
    """Return the fields of /etc/os-release (os-release(5))."""
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {key: value.strip().strip("\"'") for key, _, value in pairs}


def install_command(package: dict[str, str], release: dict[str, str]) -> str:
    """Return the command that installs a package, given its name by package manager (the command's first word)."""
    family = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    for command, names in _MANAGERS:
        manager = command.split("-")[0].split()[0]
        if any(word in names or word.split("-")[0] in names for word in family) and manager in package:
            return f"{command} {package[manager]}"
    return ""


class Attempt:
    """What `probe.py` reported: an errno by name (0 is success), and how long making the namespaces took."""

    __slots__ = ("errnos", "microseconds", "trouble")

    def __init__(self, text: str, trouble: str = "") -> None:
        pairs = [line.split() for line in text.splitlines()]
        found = {words[0]: int(words[1]) for words in pairs if len(words) == 2 and words[1].lstrip("-").isdigit()}
        self.microseconds = found.pop("microseconds", 0)
        self.errnos = found
        self.trouble = trouble


def try_start(rootless: bool, directory: str) -> Attempt:
    """Make a container's namespaces and mounts in another process, below an empty directory of the store's disk."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")
    if not sys.executable:
        return Attempt("", "the Python interpreter is not known")
    arguments = [sys.executable, "-I", "-S", script, "user" if rootless else "root", directory]
    reader, writer = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
        pid = os.posix_spawn(sys.executable, arguments, {"PATH": os.defpath}, file_actions=actions)
        os.close(writer)
        writer = -1
        text = b"".join(iter(lambda: os.read(reader, 4096), b""))
    except OSError as error:
        return Attempt("", f"cannot start {sys.executable}: {error.strerror}")
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Attempt(text.decode("ascii", "replace"), f"the probe ended with {code}" if code else "")


def mounts(mountinfo: str) -> Iterator[tuple[str, str, str]]:
    """Yield (mount point, file system type, options) of each line of /proc/PID/mountinfo."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after:
            fields = before.split(" ")
            yield fields[4].replace("\\040", " "), after.split(" ")[0], f"{fields[5]},{after.rsplit(' ', 1)[-1]}"


def file_system(path: str, mountinfo: str) -> tuple[str, str]:
    """Return (type, options) of the file system that holds a path; of mounts at one place the last is on top."""
    best, found = -1, ("", "")
    for point, kind, options in mounts(mountinfo):
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), (kind, options)
    return found


def existing_parent(path: str) -> str:
    """Return the nearest directory of a path that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def takes_attributes(directory: str) -> bool:
    """Say whether files below a directory take user.* attributes, which overlay needs without root."""
    try:
        os.setxattr(directory, "user.sampan.probe", b"1")
        os.removexattr(directory, "user.sampan.probe")
    except OSError:
        return False
    return True


def seccomp_actions() -> list[str]:
    """Return the actions that filters may have; empty where the kernel has no filters."""
    return read_text("/proc/sys/kernel/seccomp/actions_avail").split()


def security_module() -> str:
    """Return `apparmor`, `selinux` or ""."""
    if read_text("/sys/module/apparmor/parameters/enabled") == "Y":
        return "apparmor"
    return "selinux" if read_text("/sys/fs/selinux/enforce") else ""


def has_systemd() -> bool:
    """Say whether systemd manages this host (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def find_program(names: tuple[str, ...]) -> str:
    """Return the first of these programs that the standard directories hold."""
    for name in names:
        for directory in ("/usr/local/bin", "/usr/bin", "/bin"):
            if os.access(f"{directory}/{name}", os.X_OK):
                return f"{directory}/{name}"
    return ""
