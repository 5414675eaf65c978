"""sampan restart: stop containers and start them again."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import INT, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "restart",
    "Stop containers and start them again.",
    "CONTAINER [CONTAINER...]",
    (
        Option("timeout", "t", INT, "Seconds to wait before SIGKILL; -1 waits forever", aliases=("time",)),
        Option("signal", "s", help="Signal to send first"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Restart each container and print its name."""
    return each(values.args, lambda name: engine.containers.restart(name, values.timeout, values.signal or None))
