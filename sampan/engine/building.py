"""`Engine.build`: hands the store and this host's facts to the builder."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.platform import Platform
    from sampan.store.images import Image
    from sampan.store.leases import Lease


def build(engine: Engine, context: str | os.PathLike[str] | int, **settings: Any) -> str:
    """Build an image and give its id (sampan/build/builder.py says which settings there are)."""
    from sampan.build import builder
    from sampan.engine import starter

    def fetch(name: str, platform: Platform, lease: Lease) -> Image:
        """Pull what a FROM names; what happens is told as build events."""
        from sampan.build.progress import PULL, Event
        from sampan.engine import pulling

        listener = settings.get("on_event") or (lambda event: None)

        def listen(event: Any) -> None:
            if event.kind in ("text", "done"):
                listener(Event(PULL, f"{event.part}: pulled" if event.part else event.text))

        policy = "always" if settings.get("pull") else "missing"
        return pulling.obtain(engine, name, policy, str(platform), listen, lease)

    known = builder.build.__kwdefaults__ or {}
    for name in settings:
        if name not in known:
            from sampan.errors import InvalidArgument

            listed = ", ".join(key for key in known if key not in ("fetch", "executor", "starter"))
            raise InvalidArgument(f"Engine.build has no setting {name!r}", f"settings are {listed}")
    settings.setdefault("fetch", fetch)
    if isinstance(settings.get("tags"), str):
        settings["tags"] = [settings["tags"]]
    where = context if isinstance(context, int) else os.fspath(context)
    return builder.build(engine.store, engine.host, where, starter=starter, **settings)
