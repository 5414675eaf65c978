"""sampan pause: stop all processes of containers where they stand."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "pause",
    "Stop all processes of containers where they stand; the kernel holds them until unpause.",
    "CONTAINER [CONTAINER...]",
)


def run(engine: Engine, values: Values) -> int:
    """Pause each container and print its name."""
    return each(values.args, engine.containers.pause)
