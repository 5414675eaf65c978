"""sampan update: change limits of containers, at once and for their next starts."""

from __future__ import annotations

from sampan.cli import runflags
from sampan.cli.each import each
from sampan.cli.options import Command
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

CHANGEABLE = frozenset(
    ("blkio-weight", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares", "cpus", "cpuset-cpus")
    + ("cpuset-mems", "kernel-memory", "memory", "memory-reservation", "memory-swap", "pids-limit", "restart")
)
OPTIONS = Command(
    "update",
    "Change limits and restart policies of containers: at once of running ones, and for the next starts of all.",
    "CONTAINER [CONTAINER...]",
    tuple(option for option in runflags.OPTIONS if option.long in CHANGEABLE),
    examples=("sampan update -m 256m --memory-swap 256m --cpus 1.5 web",),
)


def run(engine: Engine, values: Values) -> int:
    """Change them and print each name."""
    if not values.given:
        raise InvalidArgument("update needs at least one option", "sampan update --help lists them")
    names = {"cpuset_cpus": "cpuset"}
    changes = {names.get(name, name): getattr(values, name) for name in values.given}
    # As in Docker, 0 and "" leave a limit as it is; -1 lifts one (moby, container/container_unix.go, UpdateContainer).
    changes = {name: value for name, value in changes.items() if value or name == "pids_limit"}
    return each(values.args, lambda name: engine.containers.update(name, changes))
