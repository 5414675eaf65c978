"""Turns an OCI runtime configuration and facts about the host into a plan.

Pure: what must be looked up (id maps, cgroup directories, the compiled filter) comes in as `Facts`.  The order is the
security argument, so it stands in one place: root file system, sources opened on the host, pivot, kernel file systems,
devices, volumes, masks, old root away, read-only root, limits, identity, capabilities, filter, program.
"""

from __future__ import annotations

from sampan.runtime import plan as p
from sampan.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # name below /dev, mode with type, major, minor, uid, gid, path on the host
    HostDevice = tuple[str, int, int, int, int, int, str]


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
        "hostname",
        "identity",
        "log",
        "log_limits",
        "loopback",
        "lowers",
        "network_begun",
        "newgidmap",
        "newuidmap",
        "nodev",
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
        self.hostname = ""  # of the container's /etc/hostname; without one that is the image's
        self.sweep: tuple[int, list[str]] | None = None  # what to remove at the end: helper/plan.h
        self.network_begun = False  # the helper was told to make the network namespace: launch.spawn
        self.rootless = self.single_id = False
        self.nodev = False  # no device outside of /dev can be opened: engine/nodevices.py
        self.loopback = 0  # or OPTIONAL
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
    from sampan.runtime import mounts

    namespaces = plan.namespaces
    if facts.rootless:
        become_root(plan, facts)
    mounts.root(plan, facts)
    slots = mounts.sources(plan, spec, facts)
    plan.add(p.PIVOT, facts.target, label="enter it (chroot)")
    tty = bool(spec["process"].get("terminal"))
    mounts.kernel(plan, spec, facts, slots)
    mounts.devices(plan, facts, slots, tty)
    mounts.volumes(plan, spec, facts, slots)
    mounts.hostname(plan, spec, facts)
    linux = spec["linux"]
    if "uts" in namespaces and spec.get("hostname"):
        plan.add(p.HOSTNAME, spec["hostname"], flags=_unasked(spec, facts), label=f"set hostname {spec['hostname']}")
    if "uts" in namespaces and spec.get("domainname"):
        plan.add(p.DOMAINNAME, spec["domainname"], label=f"set domain name {spec['domainname']}")
    if "network" in namespaces:
        plan.add(p.LOOPBACK, flags=facts.loopback, label="bring the loopback interface up")
    for key, value in sorted((linux.get("sysctl") or {}).items()):
        plan.add(p.SYSCTL, "/proc/sys/" + key.replace(".", "/"), value, label=f"set sysctl {key}={value}")
    for path in linux.get("readonlyPaths") or ():
        plan.add(p.READONLY, path, label=f"make {path} read-only")
    for path in linux.get("maskedPaths") or ():
        plan.add(p.MASK, path, label=f"mask {path}")


def _unasked(spec: dict[str, Any], facts: Facts) -> int:
    """Give OPTIONAL for a host name that nobody asked for: the filter of an outer container may forbid it."""
    own = spec["linux"].get("cgroupsPath", "build").rpartition("/")[2]
    return p.OPTIONAL if facts.rootless and spec["hostname"] == own[:12] else 0


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
