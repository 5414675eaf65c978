"""sampan load: read images from a tar archive."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.files import open_input
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "load",
    "Read images from an archive that sampan save or docker save made, or from an OCI image layout.",
    "",
    (
        Option("input", "i", help="Read this file instead of standard input"),
        Option("quiet", "q", FLAG, "Print no progress"),
        Option("platform", refuse="an archive is loaded whole"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Load it and print what it held."""
    source = values.input if values.input not in ("", "-") else open_input("", "images")
    for text in engine.images.load(source):
        output.line(text)
    return 0
