"""sampan image prune: remove images that nobody uses."""

from __future__ import annotations

from sampan.cli import pruneflags
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "image prune",
    "Remove images that have no name, or with --all every one that no container uses.",
    "",
    (
        Option("all", "a", FLAG, "Remove every image that no container uses"),
        pruneflags.FILTER,
        pruneflags.FORCE,
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Ask, remove, and print what is gone."""
    from sampan.engine import pruning

    wanted = pruneflags.wanted(values.filter)
    images = "images without at least one container associated to them" if values.all else "dangling images"
    if not pruneflags.agreed(values.force, ["all " + images]):
        return 0
    done = pruning.measured(engine, lambda done: pruning.prune_images(engine, wanted, done, all=values.all), "image")
    return pruneflags.show(done)
