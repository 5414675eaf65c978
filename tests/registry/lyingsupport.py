"""What is asked of a registry that lies or breaks off, and how its layer is sent in pieces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, noise

import sampan
from sampan.errors import IntegrityError, SampanError

LAYER = noise(1 << 20)
DIGEST = ts.digest(LAYER)


def refused(
    registry: LyingRegistry,
    engine: sampan.Engine,
    kind: type[SampanError] = IntegrityError,
    match: str | None = None,
    name: str = "",
) -> SampanError:
    """Pull, see it refused in one line, and nothing left of it."""
    with pytest.raises(kind, match=match) as caught:
        engine.images.pull(f"{registry.host}/{name or 'app:1'}")
    assert "\n" not in caught.value.message
    assert engine.images.ls() == [] and engine.store.db.query("SELECT * FROM leases") == []
    assert os.listdir(engine.store.paths.active) == []
    return caught.value


def layer_with(registry: LyingRegistry, **changes: Any) -> dict[str, Any]:
    document = registry.image([ts.BASE])
    document["layers"][0] |= changes
    return document


def pulled(registry: LyingRegistry, engine: sampan.Engine) -> dict[str, tuple[Any, ...]]:
    engine.images.pull(f"{registry.host}/app:1")
    (tree,) = ts.trees(engine, f"{registry.host}/app:1")
    assert os.listdir(engine.store.paths.ingest) == []
    return tree


def of_layer(request: Asked) -> bool:
    return request.path.endswith(DIGEST)


def ending_at(step: int, end: Callable[[], Iterator[Any]]) -> Callable[[Asked], Answer | None]:
    """Serve at most `step` bytes of the layer in each connection, then end it."""

    def hook(request: Asked) -> Answer | None:
        if not of_layer(request):
            return None
        rest = LAYER[request.offset :]
        if len(rest) <= step:
            return None
        headers = {"Content-Range": f"bytes {request.offset}-{len(LAYER) - 1}/{len(LAYER)}"} if request.offset else {}

        def body() -> Iterator[Any]:
            yield rest[:step]
            yield from end()

        return Answer(206 if request.offset else 200, headers, body(), length=len(rest), close=True)

    return hook
