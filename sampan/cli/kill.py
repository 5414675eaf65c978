"""sampan kill: send a signal to containers."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "kill",
    "Send a signal to the first process of running containers.",
    "CONTAINER [CONTAINER...]",
    (Option("signal", "s", help="Signal to send, by name or number", default="KILL"),),
)


def run(engine: Engine, values: Values) -> int:
    """Signal each container and print its name."""
    return each(values.args, lambda name: engine.containers.kill(name, values.signal or "KILL"))
