"""Base images without a registry: what bootstrap packs becomes an ordinary image of one layer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine


def bootstrap(engine: Engine, spec: str, tag: str, programs: list[str]) -> str:
    """Make the base image `spec` ("host" or "debian:SUITE"), tag it and give its id."""
    from sampan.bootstrap import image

    words = " ".join(["sampan bootstrap", spec, *programs])
    return engine.images.from_tar_stream(image.layers_for(spec, programs), image.config_for(spec), tag, words)
