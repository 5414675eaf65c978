"""sampan manifest rm: forget lists that are being made here."""

from __future__ import annotations

from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command("manifest rm", "Forget lists that are being made here; registries keep theirs.", "LIST [LIST...]")


def run(engine: Engine, values: Values) -> int:
    """Forget each."""
    from sampan.cli.each import each
    from sampan.engine import manifests

    return each(values.args, lambda name: manifests.remove(engine, name))
