"""sampan manifest inspect: show what a name means in its registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "manifest inspect",
    "Show the manifest or index of a name in its registry, or a list that is being made here.",
    "NAME",
    (
        Option("verbose", "v", FLAG, "Show the reference and the platform of every manifest too"),
        Option("insecure", "", FLAG, refuse="plain HTTP is allowed in registries.toml or SAMPAN_INSECURE_REGISTRIES"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Print it as JSON."""
    from sampan.engine import manifests

    if not values.verbose:
        output.write(output.json_pretty(manifests.inspect(engine, values.args[0])) + "\n")
        return 0
    found = manifests.describe(values.args[0])
    output.write(output.json_pretty(found if len(found) != 1 else found[0]) + "\n")
    return 0
