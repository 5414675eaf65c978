"""sampan volume create: make a volume."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import LIST, Command, Option
from sampan.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "volume create",
    "Make a volume, and print its name; one that is there stays as it is.",
    "[VOLUME]",
    (
        Option("driver", "d", help="What keeps it: local is all there is", default="local"),
        Option("label", "", LIST, "Give it a label: NAME[=VALUE]"),
        Option("opt", "o", LIST, refuse="volumes have no options here", hint="bind a mount of the host instead"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Make it and print its name."""
    if values.driver != "local":
        raise NotSupported(f"cannot create a volume with driver {values.driver}: there is only local")
    labels = dict(word.partition("=")[::2] for word in values.label)
    output.line(engine.volumes.create(values.args[0] if values.args else "", labels))
    return 0
