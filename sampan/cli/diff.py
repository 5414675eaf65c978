"""sampan diff: what a container changed of its image."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "diff",
    "List what a container added to (A), changed in (C) and deleted from (D) its image.",
    "CONTAINER",
)


def run(engine: Engine, values: Values) -> int:
    """Print the list."""
    for kind, path in engine.containers.diff(values.args[0]):
        output.line(f"{kind} {path}")
    return 0
