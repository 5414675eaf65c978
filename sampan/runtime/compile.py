"""Turns an OCI runtime configuration and facts about the host into a plan.

Pure: what must be looked up (id maps, cgroup directories, the compiled filter) comes in as `Facts`.  The order is the
security argument, so it stands in one place: root file system, sources opened on the host, pivot, kernel file systems,
devices, volumes, masks, old root away, read-only root, limits, identity, capabilities, filter, program.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument, counted
from sampan.runtime import plan as p
from sampan.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # name below /dev, mode with type, major, minor, uid, gid, path on the host
    HostDevice = tuple[str, int, int, int, int, int, str]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS = 1, 2, 4, 8, 16
MS_NOATIME, MS_NODIRATIME = 1024, 2048
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24

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


class Facts:
    """Hold what the host contributes: paths, maps, cgroup directories, masks and the compiled filter."""

    __slots__ = (
        "accounts",
        "ambient",
        "away",
        "away_at_detach",
        "caps",
        "cgroup",
        "cgroup_v1",
        "cgroup_version",
        "cleanup",
        "detach_keys",
        "devices",
        "events",
        "gid_map",
        "health",
        "host_devices",
        "identity",
        "log",
        "log_limits",
        "lowers",
        "network_begun",
        "newgidmap",
        "newuidmap",
        "record",
        "restart",
        "rootdir",
        "rootless",
        "seccomp",
        "seccomp_flags",
        "single_id",
        "size",
        "snapshots",
        "socket",
        "stdio",
        "target",
        "stop_seconds",
        "sweep",
        "transient",
        "uid_map",
        "upper",
        "work",
    )

    def __init__(self) -> None:
        self.snapshots = ""
        self.lowers: list[str] = []
        self.upper = self.work = self.rootdir = ""
        self.target = ""
        self.stop_seconds = ""
        self.transient = False
        self.sweep: tuple[int, list[str]] | None = None  # what to remove at the end: helper/plan.h
        self.network_begun = False  # the helper was told to make the network namespace: launch.spawn
        self.rootless = self.single_id = False
        self.events: list[tuple[str | bytes, ...]] = []  # helper/events.c
        self.health: list[str | int] = []  # helper/health.c
        self.restart: list[str] = []  # helper/restart.c
        self.uid_map = self.gid_map = self.newuidmap = self.newgidmap = ""
        self.cgroup = ""
        self.cgroup_v1: list[str] = []
        self.away: list[tuple[str, bool]] = []  # cgroupaway.py
        self.away_at_detach = False
        self.cgroup_version = "v2"
        self.devices = b""
        self.host_devices: list[HostDevice] = []
        self.caps = 0
        self.ambient = 0
        self.seccomp = b""
        self.seccomp_flags = 0
        self.accounts = True
        self.identity: tuple[int, int, list[int]] | None = None
        self.stdio = 0
        self.size = (0, 0)
        self.detach_keys = ""
        self.log = ""
        self.log_limits = (10 << 20, 3)  # bytes of a file (0 is without limit), files
        self.record = ""
        self.socket = ""
        self.cleanup: list[str] = []


def compile_run(spec: dict[str, Any], facts: Facts) -> Plan:
    """Give the plan that runs `spec`'s process in its own namespaces."""
    plan = compile_split(spec, facts)
    compile_files(plan, spec, facts)
    compile_process(plan, spec, facts)
    return plan


def compile_split(spec: dict[str, Any], facts: Facts) -> Plan:
    """Give the first piece, up to the new namespaces; of the facts it needs the groups, the maps and the streams."""
    plan = Plan()
    namespaces = {n["type"]: n.get("path", "") for n in spec["linux"]["namespaces"]}
    if facts.rootless:
        namespaces["user"] = ""
    if facts.rootless and any(namespaces.values()):
        facts.uid_map = ""  # it shares a user namespace that has its maps
    supervisor(plan, facts)
    flags = 0
    shared = sorted(name for name, path in namespaces.items() if path)
    if shared:
        joined(plan, namespaces, shared, facts)
    for name in namespaces:
        flags |= p.NAMESPACES[name]
    plan.namespaces = frozenset(namespaces)
    plan.add(p.CLONE, flags=flags, label=f"create namespaces: {' '.join(sorted(namespaces))}")
    return plan


def compile_files(plan: Plan, spec: dict[str, Any], facts: Facts) -> None:
    """Append the second piece: the root, everything that is mounted, and what belongs to the namespaces."""
    namespaces = plan.namespaces
    if facts.rootless:
        become_root(plan, facts)
    root(plan, facts)
    slots = sources(plan, spec, facts)
    plan.add(p.PIVOT, facts.target, label="enter it (chroot)")
    tty = bool(spec["process"].get("terminal"))
    mounts(plan, spec, facts, slots)
    devices(plan, facts, slots, tty)
    volumes(plan, spec, facts, slots)
    linux = spec["linux"]
    if "uts" in namespaces and spec.get("hostname"):
        plan.add(p.HOSTNAME, spec["hostname"], label=f"set hostname {spec['hostname']}")
    if "uts" in namespaces and spec.get("domainname"):
        plan.add(p.DOMAINNAME, spec["domainname"], label=f"set domain name {spec['domainname']}")
    if "network" in namespaces:
        plan.add(p.LOOPBACK, label="bring the loopback interface up")
    for key, value in sorted((linux.get("sysctl") or {}).items()):
        plan.add(p.SYSCTL, "/proc/sys/" + key.replace(".", "/"), value, label=f"set sysctl {key}={value}")
    for path in linux.get("readonlyPaths") or ():
        plan.add(p.READONLY, path, label=f"make {path} read-only")
    for path in linux.get("maskedPaths") or ():
        plan.add(p.MASK, path, label=f"mask {path}")


def compile_process(plan: Plan, spec: dict[str, Any], facts: Facts) -> None:
    """Append the last piece, which needs the rights and the filter."""
    from sampan.runtime import confine

    confine.process(plan, spec, facts, bool(spec["process"].get("terminal")))


def joined(plan: Plan, namespaces: dict[str, str], shared: list[str], facts: Facts) -> None:
    """Share namespaces of another container, whose pidfd the helper is given; they are taken out of `namespaces`.

    A user's container is in a user namespace of its own, which owns the others: that is shared too.
    """
    if facts.rootless:
        shared = [*shared, "user"]
    flags = 0
    for name in shared:
        flags |= p.NAMESPACES[name]
        del namespaces[name]
    plan.add(p.JOIN, flags=flags, label=f"share namespaces of another container: {' '.join(shared)}")


def supervisor(plan: Plan, facts: Facts) -> None:
    """Add what stands before the split."""
    if facts.network_begun:
        plan.operations += p.NETWORK_FIRST.operations
    if facts.snapshots:
        plan.add(p.WORKDIR, facts.snapshots, label=f"work in {facts.snapshots}")
    plan.add(
        p.STDIO, facts.log, *facts.log_limits, facts.detach_keys, flags=facts.stdio, label="set up standard streams"
    )
    if facts.record or facts.socket:
        fields = (facts.record, facts.socket, *([facts.stop_seconds] if facts.stop_seconds else []))
        plan.add(p.SUPERVISE, *fields, flags=int(facts.transient), label="stay as its supervisor")
    for directory, v1 in facts.away:
        later = facts.away_at_detach
        label = f"put its supervisor into cgroup {directory}" + (" when the caller detaches" if later else "")
        plan.add(p.LEAVE, directory, flags=p.LEAVE_V1 * v1 | p.LEAVE_AT_DETACH * later, label=label)
    if facts.cleanup:
        plan.add(p.CLEANUP, *facts.cleanup)
    if facts.health:
        plan.add(p.HEALTH, *facts.health, label="check its health")
    if facts.restart:
        plan.add(p.RESTART, *facts.restart)
    if facts.sweep:
        plan.add(p.SWEEP, *facts.sweep[1], flags=facts.sweep[0])
    for subject in facts.events:
        plan.add(p.EVENTS, *subject)
    if facts.cgroup:
        plan.add(p.CGROUP, facts.cgroup, label=f"start in cgroup {facts.cgroup}")
    for directory in facts.cgroup_v1:
        plan.add(p.CGROUP_V1, directory, label=f"attach to cgroup {directory}")
    if facts.devices and facts.cgroup:
        plan.add(p.DEVICES, facts.devices, label="allow only the listed devices (eBPF on the cgroup)")
    if facts.uid_map:
        how = "one id only" if facts.single_id else "the full range" if facts.newuidmap else "directly"
        plan.add(
            p.IDMAP,
            facts.uid_map,
            facts.gid_map,
            facts.newuidmap,
            facts.newgidmap,
            flags=int(facts.single_id),
            label=f"map user and group ids ({how})",
        )


def become_root(plan: Plan, facts: Facts) -> None:
    """Take id 0 of the new user namespace, which owns everything that follows."""
    plan.add(p.USER, 0, 0, flags=1 | (2 if facts.single_id else 0), label="become root of the user namespace")
    everything = (1 << 41) - 1
    plan.add(p.CAPS, everything, everything, 0, flags=2, label="hold its capabilities during set-up")


def root(plan: Plan, facts: Facts) -> None:
    """Mount the root file system at facts.target: an overlay of layers, or a plain directory."""
    if facts.rootdir:
        plan.add(
            p.ROOTDIR, facts.rootdir, facts.target, flags=1, label=f"take directory {facts.rootdir} as root file system"
        )
        return
    lowers = facts.lowers or ["empty"]  # FROM scratch: overlayfs wants a lower directory
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


def mounts(plan: Plan, spec: dict[str, Any], facts: Facts, slots: dict[str, int]) -> None:
    """Mount the kernel's file systems, or what stands in their place, in the specification's order."""
    for mount in spec["mounts"]:
        if _is_early(mount):
            _mount(plan, mount, facts, slots)


def _is_early(mount: dict[str, Any]) -> bool:
    return mount["destination"] in (_KERNEL if _is_bind(mount) else _OWN) or mount["type"] == "cgroup"


def _mount(plan: Plan, mount: dict[str, Any], facts: Facts, slots: dict[str, int]) -> None:
    target, kind = mount["destination"], mount["type"]
    if _is_bind(mount):
        _attach(plan, mount, slots)
        return
    flags, _, _, data = _options(mount.get("options", []))
    if kind == "cgroup":
        cgroups(plan, facts, flags)
        return
    if facts.rootless:
        data = [word for word in data if not (facts.single_id and word.startswith("gid="))]
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


def _attach(plan: Plan, mount: dict[str, Any], slots: dict[str, int]) -> None:
    _, attributes, propagation, _ = _options(mount.get("options", []))
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
