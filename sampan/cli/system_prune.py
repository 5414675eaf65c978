"""sampan system prune: remove all that nobody uses."""

from __future__ import annotations

from sampan.cli import pruneflags
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "system prune",
    "Remove stopped containers, images without a name, unused build cache and what crashes left.",
    "",
    (
        Option("all", "a", FLAG, "Remove every image that no container uses, and the whole build cache"),
        Option("volumes", "", FLAG, "Remove unnamed volumes that no container uses too"),
        pruneflags.FILTER,
        pruneflags.FORCE,
    ),
    examples=("sampan system prune --all --force", "sampan system prune --filter until=24h"),
)


def run(engine: Engine, values: Values) -> int:
    """Ask, remove, and print what is gone."""
    from sampan.engine import pruning

    wanted = pruneflags.wanted(values.filter)
    what = ["all stopped containers"]
    what += ["all unnamed volumes not used by at least one container"] if values.volumes else []
    images = "images without at least one container associated to them" if values.all else "dangling images"
    what += ["all " + images, "all build cache" if values.all else "unused build cache"]
    if not pruneflags.agreed(values.force, what):
        return 0
    return pruneflags.show(pruning.everything(engine, wanted, all=values.all, volumes=values.volumes))
