"""sampan wait: print the exit codes of containers when they have ended."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "wait",
    "Wait until containers end, and print their exit codes.",
    "CONTAINER [CONTAINER...]",
    (
        Option(
            "condition",
            help="Wait until a container does not run, for its next exit, or until it is removed",
            choices=("not-running", "next-exit", "removed"),
            default="not-running",
        ),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Wait for each container in turn and print its exit code."""
    return each(values.args, lambda name: str(engine.containers.wait(name, values.condition)))
