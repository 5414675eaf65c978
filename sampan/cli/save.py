"""sampan save: write images to a tar archive."""

from __future__ import annotations

from sampan.cli.files import Output
from sampan.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "save",
    "Write images, their names and layers to a tar archive that `docker load` reads too.",
    "IMAGE [IMAGE...]",
    (
        Option("output", "o", help="Write to this file instead of standard output"),
        Option("platform", refuse="a store holds one platform per name: there is nothing to choose"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Write the archive."""
    with Output(values.output, "images") as fd:
        engine.images.save(values.args, fd)
    return 0
