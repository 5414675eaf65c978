"""sampan volume prune: remove volumes that no container uses."""

from __future__ import annotations

from sampan.cli import pruneflags
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "volume prune",
    "Remove unnamed volumes, or with --all the named ones too, that no container uses.",
    "",
    (
        Option("all", "a", FLAG, "Remove named volumes too"),
        pruneflags.FILTER,
        pruneflags.FORCE,
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Ask, remove, and print what is gone."""
    from sampan.engine import pruning

    wanted = pruneflags.wanted(values.filter)
    which = "local" if values.all else "anonymous local"
    if not pruneflags.agreed(values.force, [f"all {which} volumes not used by at least one container"]):
        return 0
    done = pruning.measured(engine, lambda done: pruning.prune_volumes(engine, wanted, done, all=values.all), "volume")
    return pruneflags.show(done)
