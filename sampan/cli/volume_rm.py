"""sampan volume rm: remove volumes."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "volume rm",
    "Remove volumes and what is in them; not while a container has them.",
    "VOLUME [VOLUME...]",
    (Option("force", "f", FLAG, "Say nothing about those that are not there"),),
)


def run(engine: Engine, values: Values) -> int:
    """Remove each and print its name."""
    return each(values.args, lambda name: engine.volumes.remove(name, force=values.force))
