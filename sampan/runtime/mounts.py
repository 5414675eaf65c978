"""The mounts of a plan: the root file system, what is opened on the host for it, and everything that is mounted inside.

Pure, and the second piece of a plan, as `confine.py` is the third: `compile.py` says in which order they come. It is
loaded while the helper is at work on the first; an exec does without it.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument, NotSupported, counted
from sampan.runtime import plan as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.compile import Facts, HostDevice
    from sampan.runtime.plan import Plan

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS = 1, 2, 4, 8, 16
MS_NOATIME, MS_NODIRATIME = 1024, 2048
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24

_MOST_LOWERS = 500  # OVL_MAX_STACK (fs/overlayfs/params.h)
_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
}
_CLEAR = {"rw", "suid", "dev", "exec", "defaults", "async"}
# mount_setattr(2): MOUNT_ATTR_*
_ATTRIBUTES = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 0x10, "strictatime": 0x20, "nodiratime": 0x80}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE,
    "shared": MS_SHARED,
    "rshared": MS_SHARED,
}

# The kernel's file systems, which may be bound in place of fresh ones: before anything below them.
_KERNEL = ("/proc", "/sys", "/sys/fs/cgroup", "/dev")
_OWN = ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/core", "/proc/kcore"),
)


def root(plan: Plan, facts: Facts) -> None:
    """Mount the root file system at facts.target: an overlay of layers, or a plain directory."""
    if facts.rootdir:
        plan.add(
            p.ROOTDIR, facts.rootdir, facts.target, flags=1, label=f"take directory {facts.rootdir} as root file system"
        )
        return
    lowers = facts.lowers or ["empty"]  # FROM scratch: overlayfs wants a lower directory
    if len(lowers) > _MOST_LOWERS:
        raise NotSupported(
            f"cannot mount an image of {len(lowers)} layers: the kernel takes {_MOST_LOWERS}",
            "join steps of its Dockerfile with && and here-documents, or `sampan export` a container and import that",
        )
    if not facts.upper and len(lowers) == 1:
        plan.add(p.ROOTDIR, lowers[0], facts.target, label="take the layer as root file system")
        return
    # redirect_dir, metacopy and index are switched off whatever the kernel's defaults, so that the upper directory
    # alone is the exact difference (Documentation/filesystems/overlayfs.rst).
    options = f"lowerdir={':'.join(lowers)},redirect_dir=nofollow,metacopy=off,index=off,xino=off"
    if facts.upper:
        options += f",upperdir={facts.upper},workdir={facts.work}"
        if facts.transient:
            options += ",volatile"
    if facts.rootless:
        options += ",userxattr"
    kind = "a volatile" if facts.transient else "an"
    plan.add(
        p.OVERLAY,
        facts.target,
        options,
        flags=MS_NODEV if facts.nodev else 0,
        label=f"mount {kind} overlay of {counted(len(lowers), 'layer')} as root file system",
    )


def _options(options: list[str]) -> tuple[int, int, int, list[str]]:
    """Split mount options: flags for mount(2), MOUNT_ATTR_* bits, propagation, and data words."""
    flags = attributes = propagation = 0
    data = []
    for word in options:
        if word in _FLAGS:
            flags |= _FLAGS[word]
            attributes |= _ATTRIBUTES.get(word, 0)
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word not in _CLEAR and word not in ("bind", "rbind", "z", "Z"):
            data.append(word)
    return flags, attributes, propagation or MS_PRIVATE, data


def _is_bind(mount: dict[str, Any]) -> bool:
    return mount.get("type") == "bind" or "bind" in mount.get("options", ()) or "rbind" in mount.get("options", ())


def sources(plan: Plan, spec: dict[str, Any], facts: Facts) -> dict[str, int]:
    """Open on the host, before the pivot, what is going to be bound inside."""
    slots: dict[str, int] = {}
    for mount in spec["mounts"]:
        if not _is_bind(mount):
            continue
        slots[mount["destination"]] = len(slots)
        recursive = "bind" not in mount.get("options", ())
        plan.add(p.SOURCE, len(slots) - 1, mount["source"], flags=int(recursive), label=f"open {mount['source']}")
    if facts.rootless and "/dev" not in slots:
        nodes = [("/dev/" + node[0], "/dev/" + node[0]) for node in NODES]
        for target, source in nodes + [("/dev/" + device[0], device[6]) for device in facts.host_devices]:
            slots[target] = len(slots)
            plan.add(p.SOURCE, len(slots) - 1, source, label=f"open {source}")
    if len(slots) > 250:
        raise InvalidArgument(f"cannot start: {len(slots)} bind mounts asked for, at most 250 are possible")
    return slots


def kernel(plan: Plan, spec: dict[str, Any], facts: Facts, slots: dict[str, int]) -> None:
    """Mount the kernel's file systems, or what stands in their place, in the specification's order."""
    for mount in spec["mounts"]:
        if _is_early(mount):
            _mount(plan, mount, facts, slots)


def _is_early(mount: dict[str, Any]) -> bool:
    return mount["destination"] in (_KERNEL if _is_bind(mount) else _OWN) or mount["type"] == "cgroup"


def _mount(plan: Plan, mount: dict[str, Any], facts: Facts, slots: dict[str, int]) -> None:
    target, kind = mount["destination"], mount["type"]
    if _is_bind(mount):
        _attach(plan, mount, slots, facts.nodev)
        return
    flags, _, _, data = _options(mount.get("options", []))
    if kind == "cgroup":
        cgroups(plan, facts, flags)
        return
    if facts.rootless:
        data = [word for word in data if not (facts.single_id and word.startswith("gid="))]
    if facts.nodev and target != "/dev":
        flags |= MS_NODEV
    plan.add(
        p.MOUNT,
        kind,
        mount.get("source", kind),
        target,
        ",".join(data),
        flags=flags | (p.NOFOLLOW if target in _OWN else 0),
        label=f"mount {kind} at {target} ({','.join(mount.get('options', [])) or 'defaults'})",
    )


def cgroups(plan: Plan, facts: Facts, flags: int) -> None:
    """Show the container its own cgroup: v2 as such; on v1 and hybrid hosts the controllers that it is attached to."""
    if facts.cgroup_version == "v2" or (facts.cgroup and not facts.cgroup_v1):
        if facts.cgroup:
            plan.add(
                p.MOUNT, "cgroup2", "cgroup", "/sys/fs/cgroup", "", flags=flags, label="mount cgroup2 at /sys/fs/cgroup"
            )
        return
    if not facts.cgroup_v1:
        return
    place = "/sys/fs/cgroup"
    plan.add(p.MOUNT, "tmpfs", "tmpfs", place, "mode=755", flags=flags & ~MS_RDONLY, label=f"mount tmpfs at {place}")
    seen = set()
    for directory in facts.cgroup_v1:
        controller = directory.split("/sys/fs/cgroup/", 1)[-1].split("/", 1)[0]
        if controller not in seen:
            seen.add(controller)
            place = "/sys/fs/cgroup/" + controller
            label = f"mount cgroup {controller} at {place}"
            plan.add(p.MOUNT, "cgroup", "cgroup", place, controller, flags=flags, label=label)
            for name in controller.split(",") if "," in controller else ():  # as systemd has it: cpu -> cpu,cpuacct
                plan.add(p.SYMLINK, f"/sys/fs/cgroup/{name}", controller, label=f"link cgroup {name} to {controller}")


def _attach(plan: Plan, mount: dict[str, Any], slots: dict[str, int], nodev: bool) -> None:
    _, attributes, propagation, _ = _options(mount.get("options", []))
    attributes |= _ATTRIBUTES["nodev"] if nodev else 0
    target = mount["destination"]
    recursive = "bind" not in mount.get("options", ())
    how = "read-only" if attributes & 1 else "read-write"
    plan.add(
        p.ATTACH,
        slots[target],
        target,
        attributes,
        propagation,
        flags=int(recursive) | (p.NOFOLLOW if target in _KERNEL else 0),
        label=f"bind {mount['source']} at {target} ({how})",
    )


def devices(plan: Plan, facts: Facts, slots: dict[str, int], tty: bool) -> None:
    """Fill /dev: nodes as root, binds of the host's as an ordinary user.

    What is bound there stays as it is, as in runc.
    """
    if tty:
        plan.add(p.FILE, "/dev/console", flags=0o620)
    if "/dev" in slots:
        return
    nodes: list[HostDevice] = [(n, 0o20666, a, b, 0, 0, "/dev/" + n) for n, a, b in NODES]
    nodes += facts.host_devices
    if facts.rootless:
        for name, *_, source in nodes:
            target = "/dev/" + name
            plan.add(p.ATTACH, slots[target], target, 2 | 8, MS_PRIVATE, label=f"bind the host's {source} at {target}")
    else:
        for name, mode, major, minor, uid, gid, _ in nodes:
            plan.add(
                p.MKNOD,
                "/dev/" + name,
                major,
                minor,
                uid,
                gid,
                flags=mode,
                label=f"create device /dev/{name} ({major}:{minor})",
            )
    for place, target in _LINKS:
        plan.add(p.SYMLINK, place, target, label=f"link {place} to {target}")


def volumes(plan: Plan, spec: dict[str, Any], facts: Facts, slots: dict[str, int]) -> None:
    """Mount volumes, host paths and tmpfs, the outer ones first."""
    rest = [mount for mount in spec["mounts"] if not _is_early(mount)]
    for mount in sorted(rest, key=lambda m: m["destination"].count("/")):
        _mount(plan, mount, facts, slots)


def hostname(plan: Plan, spec: dict[str, Any], facts: Facts) -> None:
    """Put the container's name into its /etc/hostname, where that is the image's.

    The file is on the tmpfs of its /dev: so it costs a start no file on a disk, and nothing of it is left at the end.
    Where that is the host's, hostfiles.add_hostname has bound one.
    """
    taken = {mount["destination"]: _is_bind(mount) for mount in spec["mounts"]}
    if not facts.hostname or taken.get("/dev") is not False or "/etc" in taken or "/etc/hostname" in taken:
        return
    read_only = int(bool(spec["root"].get("readonly")))
    label = f"bind the name {facts.hostname} at /etc/hostname"
    plan.add(p.OWN, "/etc/hostname", facts.hostname + "\n", flags=read_only, label=label)
