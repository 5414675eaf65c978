"""sampan stop: ask containers to end, and end them when they do not."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import INT, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "stop",
    "Stop running containers: the stop signal first, SIGKILL when the time is over.",
    "CONTAINER [CONTAINER...]",
    (
        Option("timeout", "t", INT, "Seconds to wait before SIGKILL; -1 waits forever", aliases=("time",)),
        Option("signal", "s", help="Signal to send first"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Stop each container and print its name."""
    return each(values.args, lambda name: engine.containers.stop(name, values.timeout, values.signal or None))
