"""Health checks: what the supervisor is given for them, and what it has found out.

The supervisor keeps the clock and runs the checks (helper/health.c); a check is an `exec` whose plan is compiled once,
when the container has started and its user is known, and lies in a file until the next start.

    containers/<id>/probe     the plan of a check
    containers/<id>/health    Docker's State.Health: status, failing streak, the last five results
"""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.oci import health as checks
from sampan.oci import jsontext
from sampan.runtime import plan as p
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.options import RunOptions
    from sampan.runtime.launch import Child
    from sampan.store.containers import Record

_MS = 1_000_000
_FRESH = {"Status": "starting", "FailingStreak": 0, "Log": []}
_SHOWN = {"starting": " (health: starting)", "healthy": " (healthy)", "unhealthy": " (unhealthy)"}


def config_for(image_config: dict[str, Any], options: RunOptions) -> dict[str, Any]:
    """Give what a new container's record says of its check; nothing when it has none."""
    check = checks.healthcheck(image_config, options)
    if check is None:
        return {}
    return {"healthcheck": check, "shell": list(image_config.get("Shell") or ())}


def _arguments(record: Record) -> list[str]:
    check = record.config.get("healthcheck")
    return checks.arguments(check, record.config.get("shell") or []) if check else []


def for_supervisor(engine: Engine, record: Record) -> list[str | int]:
    """Give helper/health.c's settings for a start, and begin with a fresh status; nothing without a check."""
    if not _arguments(record):
        return []
    home, check = engine.store.paths.container(record.id), record.config["healthcheck"]
    files.unlink(f"{home}/probe")
    files.replace(f"{home}/health", jsontext.dumps(_FRESH), durable=False)
    timeout = checks.number(check, "Timeout")
    times = [checks.number(check, key) // _MS for key in ("Interval", "Timeout", "StartPeriod", "StartInterval")]
    words = f"Health check exceeded timeout ({checks.duration(timeout)})"
    return [f"{home}/probe", f"{home}/health", *times, checks.number(check, "Retries"), words]


def arm(engine: Engine, record: Record, child: Child) -> None:
    """Leave the plan of a check for the supervisor of a container that has just started."""
    from sampan.engine import execute

    who = child.who
    args = _arguments(record)
    if who is None or not args:
        return
    uid, gid, groups, env = who
    spec = execute.spec_for(record, args, env, "", "", False, False)
    spec["process"]["sampan.reap"] = True
    flags = p.FOREGROUND | p.PASS_OUT | p.PASS_ERR
    try:
        plan = execute.plan_for(engine, record, spec, flags, "", (0, 0), False, identity=(uid, gid, groups))
        files.replace(f"{engine.store.paths.container(record.id)}/probe", plan.encode(), durable=False)
    except BaseException:
        child.signal(9)
        child.close()
        raise


def state(engine: Engine, record: Record) -> dict[str, Any] | None:
    """Give State.Health of a container; None when it is not checked.

    What does not run any more is unhealthy (moby, container/health.go, CloseMonitorChannel), whatever its last result.
    """
    if not _arguments(record):
        return None
    try:
        with open(f"{engine.store.paths.container(record.id)}/health", "rb") as file:
            found = dict(jsontext.loads(file.read()))
    except (FileNotFoundError, InvalidArgument):
        found = {**_FRESH}
    return {**found, "Status": "unhealthy"} if record.status in ("exited", "restarting") else found


def status(engine: Engine, record: Record) -> str:
    """Give healthy, unhealthy or starting; "" for a container that is not checked."""
    found = state(engine, record) if "healthcheck" in record.config else None
    return str(found["Status"]) if found else ""


def shown(engine: Engine, record: Record) -> str:
    """Give what `ps` adds to the status of a running container."""
    return _SHOWN.get(status(engine, record), "") if record.status == "running" else ""
