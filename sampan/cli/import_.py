"""sampan import: make an image from a tar archive of a file system."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.files import open_input
from sampan.cli.options import LIST, Command, Option
from sampan.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "import",
    "Make an image from a tar archive of a file system: a file, or - for standard input.",
    "FILE|- [REPOSITORY[:TAG]]",
    (
        Option("change", "c", LIST, "Apply a Dockerfile instruction to its configuration (CMD, ENV, USER, …)"),
        Option("message", "m", help="Comment for its history"),
        Option("platform", refuse="an image of another platform cannot be imported yet"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Import it and print the new image's id."""
    source, reference = values.args[0], values.args[1] if len(values.args) > 1 else ""
    if source.startswith(("http://", "https://")):
        raise NotSupported(f"cannot import {source}: importing from an address is not there yet", "curl it into a pipe")
    fd = open_input("-", "a file system") if source == "-" else source
    output.line(engine.images.import_(fd, reference, changes=values.change, message=values.message))
    return 0
