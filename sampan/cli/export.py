"""sampan export: write a container's file system as a tar archive."""

from __future__ import annotations

from sampan.cli.files import Output
from sampan.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "export",
    "Write a container's file system as a tar archive.",
    "CONTAINER",
    (Option("output", "o", help="Write to this file instead of standard output"),),
)


def run(engine: Engine, values: Values) -> int:
    """Write the archive."""
    with Output(values.output, "a file system") as fd:
        engine.containers.export(values.args[0], fd)
    return 0
