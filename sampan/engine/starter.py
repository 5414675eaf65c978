"""From a container's record to a running process: the facts of this host, the plan, the helper.

The one place where store and runtime meet for a start; `run`, `start`, `exec` and the builder's steps all come through
here.
"""

from __future__ import annotations

import os
import stat

from sampan import rights
from sampan.engine import terminal
from sampan.engine.containers import SHARED
from sampan.errors import NotSupported
from sampan.runtime import cgroup, compile, launch
from sampan.runtime import plan as p
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.engine.host import Host
    from sampan.runtime.compile import Facts, HostDevice
    from sampan.runtime.launch import Child
    from sampan.store.containers import Record


_CAP_MKNOD = 1 << 27


class Prepared:
    """Hold the first piece of a plan with what the rest is made of, and what must be kept or undone beside it."""

    __slots__ = ("facts", "host", "placement", "plan", "privileged", "spec", "target", "warnings")

    def __init__(self, spec: dict[str, Any], facts: Facts, host: Host, placement: Any, privileged: bool) -> None:
        self.spec = spec
        self.facts = facts
        self.host = host
        self.placement = placement
        self.privileged = privileged
        self.plan = compile.compile_split(spec, facts)
        self.warnings: list[str] = []  # those of `complete` too
        self.target = -1  # pidfd of a container whose namespaces the plan shares; `start` closes it

    def complete(self, child: Child) -> None:
        """Compile and send the rest in two pieces, while the helper is at work on the one before."""
        spec, facts = self.spec, self.facts
        facts.host_devices = host_devices(spec, self.privileged)
        facts.target = self.host.paths.mount_point
        os.makedirs(facts.target, mode=0o700, exist_ok=True)
        compile.compile_files(self.plan, spec, facts)
        child.send()
        self.warnings += fill(facts, spec, self.host)
        compile.compile_process(self.plan, spec, facts)
        child.send()


def fill(facts: Facts, spec: dict[str, Any], host: Host) -> list[str]:
    """Add rights and maps to the facts; return warnings about capabilities that this host lacks."""
    from sampan.oci import capabilities

    wanted = (spec["process"].get("capabilities") or {}).get("bounding", [])
    mask, available = capabilities.mask(wanted), host.cap_mask()
    missing = [name for name in wanted if not capabilities.mask([name]) & available]
    facts.caps = mask & available & ~(_CAP_MKNOD if facts.nodev else 0)
    setting = spec["linux"].get("seccomp", {}).get("sampan", "default")
    facts.seccomp, facts.seccomp_flags = host.filter(setting, wanted)
    host.add_idmap(facts)
    return [f"this host lacks capability {name}: it is dropped" for name in missing]


def resolver(spec: dict[str, Any], host: Host) -> Callable[[bytes, bytes], tuple[int, int, list[int], list[str]]]:
    """Make the function that answers the helper's question who the user is."""
    user = spec["process"].get("user") or {}
    name, extra = user.get("username", ""), [str(g) for g in user.get("additionalGids", ())]
    has_home = any(entry.startswith("HOME=") for entry in spec["process"]["env"])

    def answer(passwd: bytes, group: bytes) -> tuple[int, int, list[int], list[str]]:
        from sampan.runtime import accounts

        uid, gid, groups, home = accounts.resolve(name, extra, passwd, group)
        if host.rootless:
            _check_mapped(name, uid, [gid, *groups], bool(extra), host.counts())
        return uid, gid, groups, [] if has_home else [f"HOME={home}"]

    return answer


def _check_mapped(name: str, uid: int, gids: list[int], asked: bool, counts: tuple[int, int]) -> None:
    """Refuse ids that an ordinary user's containers do not have; with one id only, also groups that were asked for."""
    if counts == (1, 1) and (uid or gids[0] or (asked and any(gids))):
        raise NotSupported(
            f"cannot become user {name or 'root'}: only one id is mapped on this host",
            "give yourself a range in /etc/subuid and /etc/subgid, and newuidmap (`sampan doctor` shows how)",
        )
    for kind, number, count in (("user", uid, counts[0]), *(("group", gid, counts[1]) for gid in gids)):
        if number >= count > 1:
            raise NotSupported(
                f"cannot become user {name or 'root'}: {kind} id {number} is not among the {count} that you have",
                f"add a range for yourself to /etc/sub{'u' if kind == 'user' else 'g'}id, or use a smaller id",
            )


def host_devices(spec: dict[str, Any], privileged: bool) -> list[HostDevice]:
    """Give the devices to make in the container's /dev: those asked for, or all of the host's for a privileged one."""
    from sampan.oci import spec as specs

    found = specs.host_devices(spec)
    if not privileged:
        return found
    from sampan.runtime import mounts

    taken = {name for name, *_ in (*mounts.NODES, *found)} | {"console", "ptmx"}
    for name in sorted(os.listdir("/dev")):
        state = os.lstat(f"/dev/{name}")
        if name not in taken and (stat.S_ISCHR(state.st_mode) or stat.S_ISBLK(state.st_mode)):
            major, minor = os.major(state.st_rdev), os.minor(state.st_rdev)
            found.append((name, state.st_mode, major, minor, state.st_uid, state.st_gid, f"/dev/{name}"))
    return found


def prepare(spec: dict[str, Any], facts: Facts, host: Host, container_id: str, privileged: bool = False) -> Prepared:
    """Create the cgroup and compile the plan's first piece; nothing has been started yet."""
    host.add_idmap(facts)
    if not (host.rootless or rights.holds(rights.CAP_NET_ADMIN)):
        facts.loopback = p.OPTIONAL  # root in a container that has CAP_SYS_ADMIN alone
    limits = dict(spec["linux"].get("resources") or {})
    rules = limits.get("devices") or []
    if host.rootless:
        limits.pop("devices", None)  # no node can be made in a user namespace: the binds are all there is
    placement = cgroup.create(container_id, limits, host.rootless)
    try:
        facts.cgroup, facts.cgroup_v1 = placement.v2_dir, list(placement.v1_dirs)
        facts.cgroup_version = cgroup.detect().version
        if rules and not host.rootless:
            guard_devices(spec, facts, host, placement)
        return Prepared(spec, facts, host, placement, privileged)
    except BaseException:
        cgroup.remove(placement)
        raise


def guard_devices(spec: dict[str, Any], facts: Facts, host: Host, placement: cgroup.Placement) -> None:
    """Have the device rules of root's container enforced: by its control group, else by what it may not do."""
    if placement.v2_dir:
        facts.devices = host.device_program(spec["linux"]["resources"]["devices"])
    elif "devices" not in placement.v1:
        from sampan.engine import nodevices

        nodevices.apply(spec, facts)


def start(prepared: Prepared, stdin: int, stdout: int, stderr: int, meanwhile: Callable[[], object] | None = None,
          child: Child | None = None) -> Child:  # fmt: skip
    """Start it and wait until the program runs; what was made is undone when it does not.

    `meanwhile` is called when the helper has the plan's first piece, to do what the rest needs; `child` is a helper
    that was started beforehand on the same streams.
    """
    try:
        child = child or launch.spawn(stdin, stdout, stderr, target=prepared.target)
        child.placement = prepared.placement
        child.send(prepared.plan)
    except BaseException:
        cgroup.remove(prepared.placement)
        raise
    finally:
        if prepared.target >= 0:
            os.close(prepared.target)
    try:
        if meanwhile is not None:
            meanwhile()
        prepared.complete(child)
        return child.await_start(resolver(prepared.spec, prepared.host))
    except launch.StartFailure as failure:
        cgroup.remove(prepared.placement)
        raise launch.translate(failure) from failure
    except BaseException:
        child.signal(9)  # a supervised program would outlive us; the helper removes its groups
        child.close()
        raise


def start_detached(prepared: Prepared, meanwhile: Callable[[], object] | None = None) -> Child:
    """Start it, as `start` does, without any stream of the caller's."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return start(prepared, null, null, null, meanwhile)
    finally:
        os.close(null)


def stdio_flags(tty: bool, interactive: bool, foreground: bool, logged: bool, fds: tuple[int, int, int]) -> int:
    """Decide what is passed to the program as it is and what the supervisor copies.

    A terminal is never passed on (a container could read or inject keystrokes through it), nor is a file or a named
    pipe (opened again through /proc/self/fd, the caller's redirection could be read and overwritten, and its mode be
    changed), nor a socket; pipes are, unless the output is to be kept for `logs`.
    """
    if tty:
        return p.TTY_STDIO | (p.FOREGROUND if foreground else 0) | (p.STDIN if interactive else 0)
    flags = p.FOREGROUND if foreground else 0
    if interactive:
        flags |= p.PASS_IN if foreground and _passable(fds[0]) else p.STDIN
    if foreground and not logged:
        flags |= p.PASS_OUT if _passable(fds[1]) else 0
        flags |= p.PASS_ERR if _passable(fds[2]) else 0
    return flags


def _passable(fd: int) -> bool:
    try:
        state = os.fstat(fd)
        if stat.S_ISFIFO(state.st_mode):
            return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")  # a named one shows its absolute path
    except OSError:
        return False
    return stat.S_ISCHR(state.st_mode) and state.st_rdev == os.makedev(1, 3)


def launch_facts(engine: Engine, record: Record, *, foreground: bool, interactive: bool, supervised: bool, keys: str,
                 fds: tuple[int, int, int], restarts: tuple[int, int]) -> Facts:  # fmt: skip
    """Give the facts for the start of a container, but for its layers and what `prepare` adds."""
    paths, asked = engine.store.paths, record.options
    home, tty = paths.container(record.id), record.has_terminal
    facts = compile.Facts()
    relative = os.path.relpath(home, paths.snapshots)
    facts.snapshots, facts.upper, facts.work = paths.snapshots, f"{relative}/upper", f"{relative}/work"
    facts.transient = record.auto_remove
    facts.hostname = record.spec.get("hostname") or os.uname().nodename
    logged = supervised or not record.auto_remove
    facts.stdio = stdio_flags(tty, interactive, foreground, logged, fds)
    facts.log = os.path.join(home, "log") if logged else ""
    if "log_driver" in asked or "log_opts" in asked:
        from sampan.oci import logopts

        log = logopts.settings(asked)
        facts.log, facts.log_limits = facts.log if log.kept else "", (log.max_size, log.max_files)
    facts.detach_keys = keys if tty else ""
    facts.size = terminal.size(fds[1]) if tty and foreground else (0, 0)
    if supervised:
        _supervise(engine, record, facts, home, asked.get("stop_timeout"), restarts)
    if not foreground or facts.detach_keys:
        facts.away, facts.away_at_detach = cgroup.away(), foreground
    if record.started:
        files.unlink(os.path.join(home, "name"))  # which `rename` left for the supervisor of before
    facts.events = engine.events.for_supervisor(record)
    return facts


def _supervise(
    engine: Engine, record: Record, facts: Facts, home: str, timeout: int | None, restarts: tuple[int, int]
) -> None:
    facts.record, facts.socket = os.path.join(home, "exit"), engine.containers.socket(record.id)
    facts.stop_seconds = "" if timeout is None else str(int(timeout))
    files.unlink(facts.record)
    if record.exit_code in (125, 126, 127, 128):
        files.unlink(os.path.join(home, "error"))
    if record.auto_remove:
        facts.cleanup = engine.command(["rm", "--ended", record.id])
        return
    from sampan.engine import restarting

    facts.restart = restarting.for_supervisor(engine, record, *restarts)


def _write_names(engine: Engine, spec: dict[str, Any], asked: dict[str, Any], home: str, facts: Facts) -> None:
    """Write the container's own copies of the host's names, where it has some, or localhost where nothing has it."""
    layers = [home + "/upper", *[f"{facts.snapshots}/{lower}" for lower in facts.lowers]]
    local, host = lacks_hosts(asked, facts.snapshots, facts.lowers), asked.get("network") == "host"
    devices = any(mount["destination"] == "/dev" for mount in spec["mounts"] if mount["type"] == "bind")
    if local or host or devices:
        from sampan.runtime import hostfiles

        if local and hostfiles.add_local(spec, home, layers):
            hostfiles.write_local(home)
        if host:
            hostfiles.write(spec, home)
        elif devices:
            hostfiles.add_hostname(spec, home, layers, facts.hostname)
    if asked.get("network", "").startswith(SHARED):
        from sampan.engine import sharing

        sharing.share_names(engine, spec, asked, home, layers)
    if "add_host" in asked or "dns" in asked or "dns_search" in asked or "dns_option" in asked:
        from sampan.engine import naming

        naming.write(asked, home)


def lacks_hosts(asked: dict[str, Any], snapshots: str, lowers: list[str]) -> bool:
    """Say whether a container without the host's network may need hosts of its own, by one look where the image has it.

    hostfiles.add_local looks closer. A directory emptied and made again above a file that names hosts is missed.
    """
    if asked.get("network", "none") not in ("", "none"):
        return False
    for lower in lowers:
        try:
            return not os.lstat(f"{snapshots}/{lower}/etc/hosts").st_size
        except FileNotFoundError:
            continue
        except OSError:
            break  # below what is no directory: /etc is a whiteout, perhaps
    return True


def start_record(engine: Engine, record: Record, *, foreground: bool, interactive: bool, supervised: bool,
                 keys: str = "", fds: tuple[int, int, int] = (0, 1, 2), restarts: tuple[int, int] = (0, 0),
                 meanwhile: Callable[[], object] | None = None, child: Child | None = None,
                 sweep: bool = False) -> Child:  # fmt: skip
    """Start the program of a container whose record says what it is, with `child` if its helper has been started.

    Its directories have to be there when `meanwhile` returns, which is called while the namespaces are being made.
    With `sweep` the helper removes them at the end, if they are empty: `Child.swept`.
    """
    spec, asked, paths = record.spec, record.options, engine.store.paths
    facts = launch_facts(
        engine, record, foreground=foreground, interactive=interactive, supervised=supervised, keys=keys, fds=fds,
        restarts=restarts,
    )  # fmt: skip
    facts.network_begun = child is not None and child.network_begun
    facts.sweep = files.untouched_home(paths.container(record.id)) if sweep else None
    if "healthcheck" in record.config:
        from sampan.engine import health

        facts.health = health.for_supervisor(engine, record)
    if record.started:
        cgroup.forget(record.id)
    prepared = prepare(spec, facts, engine.host, record.id, bool(asked.get("privileged")))
    if asked.get("pid", "").startswith(SHARED) or asked.get("network", "").startswith(SHARED):
        from sampan.engine import sharing

        prepared.target = sharing.open_target(engine, prepared, record)

    def ready() -> None:
        if meanwhile is not None:
            meanwhile()
        facts.lowers = record.use.lowers if record.use else engine.store.snapshots.lowers(record.config["layers"])
        _write_names(engine, spec, asked, paths.container(record.id), facts)
        facts.lowers = engine.store.snapshots.with_names(facts.lowers)

    try:
        child = start(prepared, *fds, ready, child) if foreground else start_detached(prepared, ready)
    finally:
        engine.warn(prepared.warnings + engine.host.notes)
    child.sweeps = sweep
    engine.warn(child.warnings)
    if facts.health:
        health.arm(engine, record, child)
    return child
