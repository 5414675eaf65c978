"""sampan port: which ports of a container are published where."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "port",
    "List the published ports of a container, or where one of them is published.",
    "CONTAINER [PORT[/PROTOCOL]]",
)


def run(engine: Engine, values: Values) -> int:
    """Print a line for each."""
    port = values.args[1] if len(values.args) > 1 else ""
    for inside, address in engine.containers.port(values.args[0], port):
        output.line(address if port else f"{inside} -> {address}")
    return 0
