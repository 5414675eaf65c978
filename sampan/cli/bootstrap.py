"""sampan bootstrap: make a base image without a registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import LIST, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "bootstrap",
    "Make a base image without a registry: from programs of this host, or from Debian's packages.",
    "host|debian:SUITE [PROGRAM...]",
    (
        Option("tag", "t", help="Name of the image (the first argument when not given)"),
        Option("program", "", LIST, "A program (host; coreutils: the usual tools) or package (debian) besides"),
    ),
    examples=("sampan bootstrap -t tools host coreutils jq", "sampan bootstrap -t debian:bookworm debian:bookworm"),
)


def run(engine: Engine, values: Values) -> int:
    """Make it and print its id."""
    source = values.args[0]
    output.line(engine.bootstrap(source, values.tag or source, [*values.args[1:], *values.program]))
    return 0
