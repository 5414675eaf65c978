"""`exec`: another process in a running container, with the container's own confinement.

The helper joins the namespaces through a pidfd whose identity was checked, is cloned into the container's cgroup, and
applies the same capabilities, filter and user rules as for the first process.
"""

from __future__ import annotations

import errno
import os

from sampan.engine import starter, terminal
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError
from sampan.oci import capabilities
from sampan.runtime import cgroup, compile, confine, launch, process
from sampan.runtime import plan as p
from sampan.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.runtime.launch import Child
    from sampan.store.containers import Record

_ORDER = ("user", "cgroup", "ipc", "uts", "network", "pid", "mount")


def spec_for(
    record: Record, args: list[str], env: list[str], workdir: str, user: str, tty: bool, privileged: bool
) -> dict[str, Any]:
    """Give the process configuration: the container's own with the asked changes."""
    if not args:
        raise InvalidArgument(f"cannot execute in container {record.name}: no command given")
    if workdir and not workdir.startswith("/"):
        raise InvalidArgument(f"invalid --workdir {workdir[:200]!r}: it must be an absolute path", exit_code=126)
    spec = record.spec
    config = dict(spec["process"])
    names = {entry.partition("=")[0] for entry in env}
    config["env"] = [e for e in config["env"] if e.partition("=")[0] not in names] + env
    if tty and "TERM" not in {entry.partition("=")[0] for entry in config["env"]}:
        config["env"] = [*config["env"], "TERM=xterm"]
    config["args"], config["terminal"] = args, tty
    config["cwd"] = workdir or config.get("cwd") or "/"
    config.pop("sampan.init", None)
    if user:
        added = (config.get("user") or {}).get("additionalGids", [])
        config["user"] = {"username": user, "additionalGids": added}  # --group-add holds for exec too, as in Docker
    if privileged:
        config["capabilities"] = {"bounding": sorted(capabilities.NUMBERS)}
    linux = dict(spec["linux"])
    if privileged:
        linux["seccomp"] = {"sampan": "unconfined"}
    return {**spec, "process": config, "linux": linux}


def plan_for(
    engine: Engine,
    record: Record,
    spec: dict[str, Any],
    stdio: int,
    keys: str,
    size: tuple[int, int],
    detach: bool,
    identity: tuple[int, int, list[int]] | None = None,
    events: list[tuple[str | bytes, ...]] | None = None,
) -> Plan:
    """Compile the plan that joins; without `identity` (uid, gid, groups) the helper asks who the user is."""
    facts = compile.Facts()
    facts.identity, facts.events = identity, events or []
    placement = cgroup.named(record.id)
    if not (engine.host.rootless or placement.v2_dir or "devices" in placement.v1):
        starter.guard_devices(spec, facts, engine.host, placement)
    starter.fill(facts, spec, engine.host)
    uid_map, facts.uid_map = facts.uid_map, ""
    facts.stdio, facts.detach_keys, facts.size = stdio, keys, size
    if cgroup.can_join(placement):
        facts.cgroup, facts.cgroup_v1 = placement.v2_dir, list(placement.v1_dirs)
    elif spec["linux"].get("resources", {}).keys() - {"devices"}:
        why = cgroup.detect().why
        engine.warn([f"container {record.name}: its limits do not hold for what is executed from here: {why}"])
    if detach:
        facts.away = cgroup.away()
        facts.record, facts.transient = (
            os.path.join(engine.store.paths.container(record.id), "exec"),  # the helper writes none for exec
            True,
        )
    plan = Plan()
    compile.supervisor(plan, facts)
    kinds = {n["type"] for n in spec["linux"]["namespaces"]}
    flags = 0
    for name in _ORDER:
        if name in kinds or (name == "user" and uid_map):
            flags |= p.NAMESPACES[name]
    plan.add(p.ENTER, flags=flags, label=f"join the namespaces of container {record.name}")
    tty = bool(spec["process"]["terminal"])
    if uid_map:
        compile.become_root(plan, facts)
    if tty:
        plan.add(p.TTY, *size, label="open a pseudo-terminal")
    confine.identity(plan, spec, facts, tty, make_cwd=False)
    confine.program(plan, {k: v for k, v in spec["process"].items() if k != "sampan.init"})
    return plan


def start(engine: Engine, record: Record, plan: Plan, spec: dict[str, Any], fds: tuple[int, int, int]) -> Child:
    """Start the joining helper against a checked pidfd; Conflict when the container has just ended."""
    ended = f"cannot execute in container {record.name}: it has just ended"
    try:
        target = process.open_pidfd(record.pid, record.pid_start, record.boot_id)
    except NotFound as error:
        raise Conflict(ended) from error
    try:
        child = launch.start(plan, *fds, target=target)
    finally:
        os.close(target)
    try:
        child.await_start(starter.resolver(spec, engine.host))
        engine.warn(child.warnings)
        return child
    except launch.StartFailure as failure:
        # In a pid namespace that ends no process is born: clone(2), ENOMEM.
        begun = failure.code == p.EXEC and failure.errno != errno.ENOMEM
        if not begun and not process.alive(record.pid, record.pid_start, record.boot_id):
            raise Conflict(ended) from failure
        if os.WIFSIGNALED(failure.status) and failure.errno != errno.ENOMEM:
            name = process.signal_name(os.WTERMSIG(failure.status))
            why = f"cannot execute in container {record.name}: {name} ended it before its program began"
            raise Conflict(why, "the container may be stopping", exit_code=126) from failure
        raise _cannot(launch.translate(failure)) from failure
    except BaseException as error:
        child.signal(9)
        child.close()
        if isinstance(error, SampanError):
            _cannot(error)
        raise


def _cannot(error: SampanError) -> SampanError:
    """Give what kept a program from running the exit code that Docker's exec has for it."""
    if error.exit_code == SampanError.exit_code:
        error.exit_code = 126
    return error


def exec(
    engine: Engine,
    name: str,
    args: list[str],
    *,
    env: list[str] | None = None,
    workdir: str = "",
    user: str = "",
    tty: bool = False,
    interactive: bool = False,
    detach: bool = False,
    privileged: bool = False,
    detach_keys: str = terminal.DETACH_KEYS,
) -> int:
    """Execute `args` in a running container and give its exit code (0 when detached)."""
    record = engine.containers.get(name)
    if record.status != "running":
        from sampan.engine import state

        state.require(record.status, "exec", record.name)
    spec = spec_for(record, args, env or [], workdir, user, tty, privileged)
    flags = starter.stdio_flags(tty, interactive, not detach, False, (0, 1, 2))
    if detach and not tty:
        flags = p.NULL_OUT
    keys = terminal.keys(detach_keys)  # wrong ones are told also where nothing can use them, as Docker does
    keys = keys if tty else ""
    size = terminal.size(1) if tty and not detach else (0, 0)
    told = engine.events.for_exec(record, args)
    plan = plan_for(engine, record, spec, flags, keys, size, detach, events=told)
    if detach:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            child = start(engine, record, plan, spec, (null, null, null))
            child.keep()
            child.close()
        finally:
            os.close(null)
        return 0
    with terminal.Forward() as forward, terminal.Raw() as raw:
        if tty and interactive:
            raw.hold(0)
        child = start(engine, record, plan, spec, (0, 1, 2))
        forward.to(child.signal, (lambda: child.resize(*terminal.size(1))) if tty else None)
        raw.whole()
        return child.wait().told()
