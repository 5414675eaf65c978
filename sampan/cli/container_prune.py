"""sampan container prune: remove stopped containers."""

from __future__ import annotations

from sampan.cli import pruneflags
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "container prune",
    "Remove all containers that do not run.",
    "",
    (pruneflags.FILTER, pruneflags.FORCE),
)


def run(engine: Engine, values: Values) -> int:
    """Ask, remove, and print what is gone."""
    from sampan.engine import pruning

    wanted = pruneflags.wanted(values.filter)
    if not pruneflags.agreed(values.force, ["all stopped containers"]):
        return 0
    return pruneflags.show(
        pruning.measured(engine, lambda done: pruning.prune_containers(engine, wanted, done), "container")
    )
