"""sampan unpause: let paused containers go on."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command("unpause", "Let paused containers go on.", "CONTAINER [CONTAINER...]")


def run(engine: Engine, values: Values) -> int:
    """Let each container go on and print its name."""
    return each(values.args, engine.containers.unpause)
