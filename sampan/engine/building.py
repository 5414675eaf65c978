"""`Engine.build`: hands the store and this host's facts to the builder."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine


def build(engine: Engine, context: str, **settings: Any) -> str:
    """Build an image and give its id (sampan/build/builder.py says which settings there are)."""
    from sampan.build import builder
    from sampan.engine import starter

    return builder.build(engine.store, engine.host, context, starter=starter, **settings)
