"""sampan builder prune: forget the build cache."""

from __future__ import annotations

from sampan.cli import pruneflags
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "builder prune",
    "Forget the build cache: layers that only it keeps, and what is known of contexts' files.",
    "",
    (
        Option("all", "a", FLAG, "Forget entries too whose layers an image has"),
        pruneflags.FILTER,
        pruneflags.FORCE,
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Ask, remove, and print how much that freed."""
    from sampan.engine import pruning

    wanted = pruneflags.wanted(values.filter)
    if not pruneflags.agreed(values.force, ["all build cache" if values.all else "unused build cache"]):
        return 0
    done = pruning.measured(
        engine, lambda done: pruning.prune_build_cache(engine, wanted, done, all=values.all), "builder"
    )
    return pruneflags.show(done)
