"""sampan tag: give an image another name."""

from __future__ import annotations

from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command("tag", "Give an image another name.", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")


def run(engine: Engine, values: Values) -> int:
    """Tag it; a name that another image had moves."""
    engine.images.tag(values.args[0], values.args[1])
    return 0
