"""sampan manifest annotate: correct the platform of one entry of a list."""

from __future__ import annotations

from sampan.cli.options import LIST, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "manifest annotate",
    "Change what a list says of the platform of one of its manifests.",
    "LIST NAME",
    (
        Option("arch", help="Architecture"),
        Option("os", help="Operating system"),
        Option("os-features", "", LIST, "Features of the operating system (several: with commas, or the option again)"),
        Option("os-version", help="Version of the operating system"),
        Option("variant", help="Variant of the architecture"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Change it."""
    from sampan.engine import manifests

    fields: dict[str, Any] = {"architecture": values.arch, "os": values.os, "variant": values.variant}
    features = [word for words in values.os_features for word in words.split(",") if word]
    fields |= {"os.version": values.os_version, "os.features": features}
    changes = {key: value for key, value in fields.items() if value}
    if not changes:
        raise InvalidArgument("nothing to change: give --arch, --os, --variant, --os-version or --os-features")
    manifests.annotate(engine, values.args[0], values.args[1], changes)
    return 0
