"""Namespaces of another container: `--pid container:NAME` and `--network container:NAME`.

The name becomes an id when the container is made; the other one must run when it is started. Both options may name the
same container only: the helper is given one pidfd.
"""

from __future__ import annotations

from sampan.errors import Conflict, InvalidArgument, NotSupported
from sampan.oci.spec import CONTAINER
from sampan.runtime import cgroup, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.engine.starter import Prepared
    from sampan.oci.options import RunOptions
    from sampan.store.containers import Record

FIELDS = ("pid", "network")


def resolve(engine: Engine, options: RunOptions) -> None:
    """Put the full id into the options that name a container; raise NotFound, InvalidArgument or NotSupported."""
    found, hostname = set(), ""
    for field in FIELDS:
        text = getattr(options, field)
        if not text.startswith(CONTAINER):
            continue
        other = engine.containers.store.get(text[len(CONTAINER) :])
        inside = {n["type"] for n in other.spec["linux"]["namespaces"]}
        if field not in inside:
            raise InvalidArgument(f"cannot share --{field} of container {other.name}: it has the host's", "use host")
        found.add(other.id)
        hostname = other.spec.get("hostname", "") if field == "network" else hostname
        setattr(options, field, CONTAINER + other.id)
    if len(found) > 1:
        raise NotSupported("cannot share namespaces of two containers: --pid and --network must name the same one")
    if options.network.startswith(CONTAINER):
        for name, option in (("hostname", "--hostname"), ("add_host", "--add-host"), ("dns", "--dns")):
            if getattr(options, name) and (name != "hostname" or options.hostname != hostname):
                raise InvalidArgument(f"conflicting options: {option} and --network container:…")
        if options.uts != "host":
            options.hostname = hostname


def share_names(engine: Engine, spec: dict[str, Any], asked: dict[str, Any], home: str, layers: list[str]) -> None:
    """Bind copies of the hosts, resolv.conf and hostname of the container whose network is shared, as they are now.

    `layers` are directories of this container's own and of its image, top first: where those have links, they stay. The
    configuration of a start is changed, not what is kept: the next start copies again.
    """
    from sampan.engine.access import Files
    from sampan.runtime import hostfiles

    taken = {mount["destination"] for mount in spec["mounts"]}
    with Files(engine, asked["network"][len(CONTAINER) :]) as files:
        for name in hostfiles.NAMES:
            path = "/etc/" + name
            if path in taken or "/etc" in taken or hostfiles.is_link(path, layers):
                continue
            data = files.small(path)
            if data is not None:
                hostfiles.write_own(home, name, data)
                hostfiles.bind(spec, home, name)


def open_target(engine: Engine, prepared: Prepared, record: Record) -> int:
    """Open a pidfd of the container whose namespaces are shared; Conflict when it does not run."""
    asked = record.options
    text = next(asked[field] for field in FIELDS if str(asked.get(field, "")).startswith(CONTAINER))
    try:
        other = engine.containers.get(text[len(CONTAINER) :])
        if other.status not in ("running", "paused"):
            raise Conflict(
                f"cannot start container {record.name}: it shares namespaces of {other.name}, which does not run",
                f"start {other.name} first",
            )
        return process.open_pidfd(other.pid, other.pid_start, other.boot_id)
    except BaseException:
        cgroup.remove(prepared.placement)
        raise
