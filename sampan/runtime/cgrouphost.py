"""Which cgroups this host has, where, and whether we may make groups there.

Three kinds: v2 (one cgroup2 tree with all controllers), v1 (one tree per controller), hybrid (v1 trees for the
controllers, and a cgroup2 tree that has none but can still freeze, kill, take eBPF programs and be cloned into). Root's
groups lie below the top of each tree. An ordinary user may only use what was delegated: the topmost group above its own
that it may write, on cgroup2 alone (cgroups(7), "Cgroups delegation").
"""

from __future__ import annotations

import os

from sampan import rights

PARENT = "sampan"
SUPERVISORS = "supervisors"  # beside the containers' groups: cgroupaway.py
PATIENCE = 10.0  # seconds to wait for a group to empty, freeze or go
_NOT_CONTROLLERS = ("rw", "ro", "xattr", "noprefix", "clone_children", "none", "cpuset_v2_mode")


class Layout:
    """What was found: `version` is v1, v2, hybrid or none; groups are made below `v2_base` and the directories of `v1`.

    `v2_base` is empty and `why` says so where no group can be made; `v1` maps a controller to the top of its tree.
    """

    __slots__ = ("_controllers", "v1", "v2_base", "v2_mount", "version", "why")

    def __init__(self, version: str, v2_mount: str, v2_base: str, v1: dict[str, str], why: str) -> None:
        self.version = version
        self.v2_mount = v2_mount
        self.v2_base = v2_base
        self.v1 = v1
        self.why = why
        self._controllers: frozenset[str] | None = None

    def v2_controllers(self) -> frozenset[str]:
        """Return the controllers that groups below `v2_base` can have."""
        if self._controllers is None:
            text = read(f"{self.v2_base}/cgroup.controllers") if self.v2_base else ""
            self._controllers = frozenset(text.split())
        return self._controllers


class Placement:
    """A container's groups: `v2_dir` to clone into ("" if there is none), and `v1`, controller to directory."""

    __slots__ = ("v1", "v2_dir")

    def __init__(self, v2_dir: str = "", v1: dict[str, str] | None = None) -> None:
        self.v2_dir = v2_dir
        self.v1 = v1 or {}

    @property
    def v1_dirs(self) -> list[str]:
        """Return the v1 directories to join; controllers mounted together share one."""
        return list(dict.fromkeys(self.v1.values()))

    def directories(self) -> list[str]:
        """Return every directory."""
        return ([self.v2_dir] if self.v2_dir else []) + self.v1_dirs

    def forget(self) -> None:
        """Note that the groups are gone."""
        self.v2_dir, self.v1 = "", {}


def read(path: str) -> str:
    """Return a control file's text."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file object would cost more than the reading
    try:
        parts = [os.read(fd, 1 << 16)]
        while parts[-1]:
            parts.append(os.read(fd, 1 << 16))
    finally:
        os.close(fd)
    return b"".join(parts).decode("ascii", "surrogateescape")


def write(path: str, value: str) -> None:
    """Write a control file in one go, as the kernel takes it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def processes(directory: str) -> list[int]:
    """Return the processes of one group."""
    try:
        return [int(line) for line in read(f"{directory}/cgroup.procs").split()]
    except OSError:  # gone, or a threaded group (EOPNOTSUPP), whose processes its parent lists
        return []


def tree_processes(directory: str) -> list[int]:
    """Return the processes of a group and of all below it."""
    return [pid for path, _, _ in os.walk(directory) for pid in processes(path)]


def _unescape(field: str) -> str:
    """Undo the octal escapes of /proc/PID/mountinfo (proc(5)): of space, tab, newline and backslash."""
    if "\\" not in field:
        return field
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def parse_mounts(mountinfo: str) -> tuple[tuple[str, str], dict[str, str]]:
    """Return (root, mount point) of the first cgroup2 mount, and the mount point of each v1 controller."""
    v2, v1 = ("", ""), dict[str, str]()
    for line in mountinfo.splitlines():
        if " - cgroup" not in line:
            continue
        before, _, after = line.partition(" - ")
        fields, kind, options = before.split(" "), after.split(" ")[0], after.rsplit(" ", 1)[-1]
        if kind == "cgroup2" and not v2[1]:
            v2 = _unescape(fields[3]), _unescape(fields[4])
        elif kind == "cgroup":
            for option in options.split(","):
                if option not in _NOT_CONTROLLERS and "=" not in option:
                    v1.setdefault(option, _unescape(fields[4]))
    return v2, v1


def parse_own(proc_cgroup: str) -> str:
    """Return our own path in the cgroup2 tree from /proc/self/cgroup; "" if it names none."""
    for line in proc_cgroup.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def delegated(mount: str, root: str, own: str) -> str:
    """Return the topmost group above our own, or our own, that we may write; "" if there is none."""
    relative = own[len(root.rstrip("/")) :] if own.startswith(root) else own
    directory, found = mount + relative.rstrip("/"), ""
    while directory.startswith(mount) and ".." not in relative:
        if not (os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)):
            break
        found = directory
        directory = os.path.dirname(directory)
    return found


def homes(layout: Layout, uid: int | None = None) -> list[str]:
    """Return the groups below which this user's containers may be.

    Beside our own that is what systemd delegates to a user's manager (user@.service(5)). From a plain login no
    process can be put there, but what is there can be looked at, frozen, limited, killed and removed.
    """
    found = [layout.v2_base] if layout.v2_base else []
    uid = os.geteuid() if uid is None else uid
    if uid and layout.v2_mount:
        manager = f"{layout.v2_mount}/user.slice/user-{uid}.slice/user@{uid}.service"
        if manager not in found and os.access(manager, os.W_OK):
            found.append(manager)
    return found


def detect(root: str = "", rootless: bool | None = None) -> Layout:
    """Look at this process's mounts and groups; `root` is put before every path, for a tree made elsewhere."""
    if rootless is None:
        rootless = rights.rootless()
    (v2_root, v2_mount), v1 = parse_mounts(read(f"{root}/proc/self/mountinfo"))
    v1 = {controller: root + mount for controller, mount in v1.items()}
    version, why = ("v1", "no cgroup2 file system is mounted") if v1 else ("none", "no cgroup file system is mounted")
    if v1 and not rootless and not os.access(next(iter(v1.values())), os.W_OK):
        v1, why = {}, "the control groups are read-only"  # as in a container: all of them are
    if not v2_mount:
        return Layout(version, "", "", {} if rootless else v1, why)
    v2_mount, base, why = root + v2_mount, "", ""
    if rootless:
        own = parse_own(read(f"{root}/proc/self/cgroup"))
        base = delegated(v2_mount, v2_root, own)
        why = "" if base else f"your group {own} is not delegated to you"
    elif os.access(v2_mount, os.W_OK):
        base = v2_mount
    else:
        why = f"{v2_mount} is read-only"
    return Layout("hybrid" if v1 else "v2", v2_mount, base, {} if rootless else v1, why)
