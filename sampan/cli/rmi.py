"""sampan rmi: remove images."""

from __future__ import annotations

from sampan.cli import failure
from sampan.cli.each import each
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "rmi",
    "Remove images: a name first, the image itself when it has no other.",
    "IMAGE [IMAGE...]",
    (
        Option("force", "f", FLAG, "Remove it although stopped containers use it, with all its names"),
        Option("no-prune", "", FLAG, refuse="layers without an image are not kept"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Remove each image and print what was untagged and deleted."""
    from sampan.errors import NotFound

    def remove(name: str) -> list[str]:
        try:
            return engine.images.remove(name, force=values.force)
        except NotFound as exc:
            if not values.force:
                raise
            failure.complain(exc)  # as Docker: what was to go is gone
            return []

    return each(values.args, remove)
