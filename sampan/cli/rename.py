"""sampan rename: give a container another name."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command("rename", "Give a container another name.", "CONTAINER NEW_NAME")


def run(engine: Engine, values: Values) -> int:
    """Rename it; nothing is printed."""

    def rename(name: str) -> list[str]:
        engine.containers.rename(name, values.args[1])
        return []

    return each(values.args[:1], rename)
