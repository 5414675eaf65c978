"""sampan update: change limits of containers, at once and for their next starts."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import BYTES, INT, NUMBER, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "update",
    "Change limits and restart policies of containers: at once of running ones, and for the next starts of all.",
    "CONTAINER [CONTAINER...]",
    (
        Option("blkio-weight", "", INT, "Weight of block IO (10 to 1000)"),
        Option("cpu-period", "", INT, "Period of the CPU quota, in microseconds"),
        Option("cpu-quota", "", INT, "CPU time in each period, in microseconds; -1 for no limit"),
        Option("cpu-rt-period", "", INT, "Period of real-time CPU time, in microseconds (cgroup v1)"),
        Option("cpu-rt-runtime", "", INT, "Real-time CPU time in each period, in microseconds (cgroup v1)"),
        Option("cpu-shares", "c", INT, "Weight of CPU time (1024 is usual)"),
        Option("cpus", "", NUMBER, "Number of CPUs, as 1.5"),
        Option("cpuset-cpus", help="CPUs to run on: 0-2,5"),
        Option("cpuset-mems", help="Memory nodes to use: 0-3"),
        Option("kernel-memory", refuse="kernels do not have this limit any more", hint="use --memory"),
        Option("memory", "m", BYTES, "Limit of memory, as 64m; -1 for none"),
        Option("memory-reservation", "", BYTES, "Memory that is left to it when the host has too little"),
        Option("memory-swap", "", BYTES, "Limit of memory and swap together; -1 for no limit of swap"),
        Option("pids-limit", "", INT, "Limit of processes; -1 for none"),
        Option("restart", help="When to start it again: no, on-failure[:most], always, unless-stopped"),
    ),
    examples=("sampan update -m 256m --memory-swap 256m --cpus 1.5 web",),
)


def run(engine: Engine, values: Values) -> int:
    """Change them and print each name."""
    if not values.given:
        raise InvalidArgument("update needs at least one option", "sampan update --help lists them")
    names = {"cpuset_cpus": "cpuset"}
    changes = {names.get(name, name): getattr(values, name) for name in values.given}
    return each(values.args, lambda name: engine.containers.update(name, changes))
