"""Move one image: `copy(source, destination)`.  Pull, push and a copy between registries are this one verb.

    source.picture()                        what there is: a manifest, its parts, and for an index the pictures below
    source.open(part, offset, received)     a part's bytes, from an offset
    source.known(part)                      the descriptor that a part leaves with, None if that shows at its end only
    source.elsewhere(part, domain, path)    another repository of that registry which may have a part, or ""
    destination.take(source, part)          make sure that it has a part; gives the descriptor that it has there
    destination.finish(picture, parts)      store the manifest, and last of all the name
    source.referrers(digest)                sources for what has that digest as its subject: `copy_referrers` moves it

Parts move several at once.  Nothing is visible at the destination before all of it is there.
"""

from __future__ import annotations

from sampan.errors import IntegrityError
from sampan.oci import image, jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from sampan.transfer.crew import Crew

    class Stream(Protocol):
        """A part's bytes."""

        def read(self, count: int, /) -> bytes: ...
        def close(self) -> None: ...

    class Source(Protocol):
        """Where an image comes from."""

        def picture(self) -> Picture: ...
        def open(self, part: Part, offset: int, received: Callable[[int], None]) -> Stream: ...
        def known(self, part: Part) -> dict[str, Any] | None: ...
        def elsewhere(self, part: Part, domain: str, path: str) -> str: ...

    class Related(Source, Protocol):
        """A source that knows what refers to its images."""

        def referrers(self, digest: str) -> Iterator[Related]: ...

    class Destination(Protocol):
        """Where an image goes."""

        def take(self, source: Source, part: Part) -> dict[str, Any]: ...
        def finish(self, picture: Picture) -> None: ...


JOBS = 3  # parts at once, as in Docker
_MAX_REFERRERS = 10_000
_MAX_DEPTH = 8  # signatures of SBOMs of images; a chain without end is no chain that anybody made


class Part:
    """One blob of an image: its descriptor, and for a layer of an image its diff_id."""

    __slots__ = ("descriptor", "diff_id", "shown")

    def __init__(self, descriptor: dict[str, Any], diff_id: str = "", *, shown: bool = True) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self.shown = shown

    @property
    def digest(self) -> str:
        """The digest of the blob."""
        return str(self.descriptor["digest"])

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return int(self.descriptor["size"])

    @property
    def short(self) -> str:
        """What a display calls it."""
        return self.digest[7:19]


class Picture:
    """A manifest with its parts, or an index with the pictures that it lists."""

    __slots__ = ("below", "config", "data", "digest", "document", "media_type", "parts")

    def __init__(
        self, data: bytes, media_type: str, digest: str, document: dict[str, Any], config: bytes | None = None
    ) -> None:
        self.data = data
        self.media_type = media_type
        self.digest = digest
        self.document = document
        self.config = config
        self.parts: list[Part] = []
        self.below: list[Picture] = []

    @property
    def is_image(self) -> bool:
        """Whether it is an image that can be unpacked, not an index or an artifact."""
        return self.config is not None

    def walk(self) -> list[Picture]:
        """Give everything below and then itself, each once however often it is listed, what lists it behind it."""
        found: dict[str, Picture] = {}
        self._walk(found)
        return list(found.values())

    def _walk(self, found: dict[str, Picture]) -> None:
        for picture in self.below:
            if picture.digest not in found:
                picture._walk(found)
        found[self.digest] = self

    def all_parts(self) -> list[Part]:
        """Give the parts of it and of everything below, each once."""
        return list({part.digest: part for picture in self.walk() for part in picture.parts}.values())

    def replaced(self, taken: dict[str, dict[str, Any]]) -> Picture:
        """Give the picture with the descriptors that the destination has in place of the source's."""
        if all(taken.get(part.digest, part.descriptor) == part.descriptor for part in self.parts):
            return self
        document = dict(self.document)
        document["layers"] = [_in_kind(self.media_type, taken, layer) for layer in document["layers"]]
        data = jsontext.dumps(document)
        from sampan.oci import digest as digests

        made = Picture(data, self.media_type, digests.of(data), document, self.config)
        made.parts = [
            Part(taken.get(part.digest, part.descriptor), part.diff_id, shown=part.shown) for part in self.parts
        ]
        return made


def _in_kind(media_type: str, taken: dict[str, dict[str, Any]], layer: dict[str, Any]) -> dict[str, Any]:
    """Give a layer's new descriptor with the type that fits the manifest's kind."""
    found = taken.get(layer["digest"], layer)
    if media_type != image.DOCKER_MANIFEST or found == layer:
        return found
    docker = {image.OCI_LAYER_GZIP: image.DOCKER_LAYER_GZIP, image.OCI_LAYER_ZSTD: image.DOCKER_LAYER + ".zstd"}
    return {**found, "mediaType": docker.get(found["mediaType"], found["mediaType"])}


def of_manifest(
    data: bytes, media_type: str, digest: str, document: dict[str, Any], config: bytes | None, what: str
) -> Picture:
    """Give the picture of a manifest; `config` is its config's bytes when it is an image's."""
    made = Picture(data, media_type, digest, document, config)
    if config is None:
        made.parts = [Part(one) for one in (document["config"], *document["layers"])]
        return made
    try:
        layers = image.check_layers(document, image.parse_config(config))
        for layer, _ in layers:
            image.compression(layer["mediaType"])
    except IntegrityError as exc:
        exc.message = f"cannot use {what}: {exc.message}"
        exc.args = (exc.message,)
        raise
    made.parts = [Part(document["config"], shown=False), *(Part(layer, diff_id) for layer, diff_id in layers)]
    return made


def copy(source: Source, destination: Destination, crew: Crew) -> Picture:
    """Move an image; give its picture as it is at the destination."""
    picture = source.picture()
    taken: dict[str, dict[str, Any]] = {}

    def job(part: Part) -> Callable[[], None]:
        def move() -> None:
            taken[part.digest] = destination.take(source, part)

        return move

    crew.run([job(part) for part in picture.all_parts()])
    arrived = picture.replaced(taken)
    destination.finish(arrived)
    return arrived


def copy_referrers(
    source: Related,
    destination: Destination,
    crew: Callable[[], Crew],
    picture: Picture,
    seen: set[str],
    depth: int = 0,
) -> None:
    """Move what refers to a picture or to what is below it, and what refers to that; `seen` gains their digests."""
    for one in picture.walk():
        _copy_referrers_of(source, destination, crew, one, seen, depth)


def _copy_referrers_of(
    source: Related, destination: Destination, crew: Callable[[], Crew], picture: Picture, seen: set[str], depth: int
) -> None:
    for related in source.referrers(picture.digest):
        found = copy(related, destination, crew())
        subject = (found.document.get("subject") or {}).get("digest", "")
        if subject != picture.digest:
            raise IntegrityError(
                f"cannot copy {found.digest}: it was listed as a referrer of {picture.digest}, but its subject is"
                f" {subject or 'nothing'}"
            )
        if found.digest in seen:
            continue
        seen.add(found.digest)
        if depth >= _MAX_DEPTH or len(seen) > _MAX_REFERRERS:
            raise IntegrityError(f"cannot copy all that refers to {picture.digest}: it has no end")
        copy_referrers(source, destination, crew, found, seen, depth + 1)
