"""sampan manifest push: send a list to its registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "manifest push",
    "Send a list to its registry; the manifests in it are taken over from their repositories first.",
    "LIST",
    (
        Option("purge", "p", FLAG, "Forget the list here afterwards"),
        Option("insecure", "", FLAG, refuse="plain HTTP is allowed in registries.toml or SAMPAN_INSECURE_REGISTRIES"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Send it and print its digest."""
    from sampan.engine import manifests

    output.line(manifests.push(engine, values.args[0], purge=values.purge))
    return 0
