"""sampan manifest create: begin an index of manifests that are in a registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "manifest create",
    "Make a list (an index) of images that are in a registry, for several platforms; `manifest push` sends it.",
    "LIST NAME [NAME...]",
    (
        Option("amend", "a", FLAG, "Add to a list that exists"),
        Option("insecure", "", FLAG, refuse="plain HTTP is allowed in registries.toml or SAMPAN_INSECURE_REGISTRIES"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Make it and print its name."""
    from sampan.engine import manifests

    output.line(
        "Created manifest list " + manifests.create(engine, values.args[0], values.args[1:], amend=values.amend)
    )
    return 0
