"""Registries as the source of a copy: a reference becomes a picture, a part becomes a stream."""

from __future__ import annotations

from sampan.errors import Denied, IntegrityError, NotFound, SampanError, Unauthorized, Unavailable
from sampan.oci import image, platform
from sampan.registry.blobs import BlobStream
from sampan.registry.client import Manifest, Repository
from sampan.transfer import events
from sampan.transfer.copy import Part, Picture, of_manifest
from sampan.transfer.events import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.transfer.copy import Stream
    from sampan.transfer.events import Listen

    T = TypeVar("T")

_MAX_DEPTH = 3
_MAX_LISTED = 512  # manifests and indexes below one name, as in a layout
_MAX_BYTES = 64 << 20  # of them and of their configs
FOREIGN = ".nondistributable.", ".foreign."


def is_foreign(descriptor: dict[str, Any]) -> bool:
    """Tell whether a layer is one that registries may not distribute (image-spec layer.md)."""
    return any(word in descriptor["mediaType"] for word in FOREIGN)


class _Document:
    """The bytes of a document that was fetched before."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int) -> bytes:
        data, self._data = self._data[:count], self._data[count:]
        return data

    def close(self) -> None:
        self._data = b""


class RegistrySource:
    """An image in a registry, or in one of its mirrors.

    `wanted` is the platform to choose from an index, None for all of them.  `strict` says that the user named it: then
    an image of another platform is not taken.  `local` gives documents that need not be fetched, by digest; `once`
    fetches one unless another process did meanwhile.
    """

    def __init__(
        self,
        ref: Reference,
        repositories: Sequence[Repository],
        wanted: Platform | None,
        *,
        strict: bool = False,
        listen: Listen = events.ignore,
        local: Callable[[str], bytes | None] = lambda digest: None,
        once: Callable[[str, Callable[[], bytes]], bytes] = lambda digest, fetch: fetch(),
    ) -> None:
        self.ref = ref
        self.verb = repositories[0].verb
        self._local = local
        self._once = once
        self.wanted = wanted
        self.strict = strict
        self.digest = ""  # of what the reference names: an index perhaps
        self._repositories = list(repositories)
        self._head: tuple[str, str, int] | None = None
        self._asked = False
        self._documents: dict[str, bytes] = {}
        self._listed: dict[str, Picture] = {}  # of an index that is taken whole
        self._size = 0
        self._listen = listen

    # ---- documents ----

    def picture(self) -> Picture:
        """Find out what the reference names, and for an index choose."""
        manifest = self.top()
        return self._picture(manifest, 0)

    def locate(self) -> str:
        """Find out the digest that the reference names, "" when the registry tells it with the manifest only."""
        if self.ref.digest:
            return self.ref.digest
        if not self._asked:
            self._head = self._from_first(lambda repository: repository.head(self.ref.tag))
            self._asked = True
        return self._head[0] if self._head is not None else ""

    def top(self) -> Manifest:
        """Get what the reference names."""
        digest = self.locate()
        kind = self._head[1] if self._head is not None else ""
        name = digest or self.ref.tag
        found = self._from_first(lambda repository: self._manifest(repository, name, digest, kind))
        self.digest = found.digest
        return found

    def _from_first(self, ask: Callable[[Repository], T]) -> T:
        """Ask the places in turn until one answers; those before it are forgotten."""
        failures: list[SampanError] = []
        while self._repositories:
            try:
                return ask(self._repositories[0])
            except (NotFound, Unavailable, Unauthorized, Denied, IntegrityError) as exc:
                failures.append(exc)
                skipped = self._repositories.pop(0)
                if self._repositories:
                    self._listen(Event(events.TEXT, text=f"{skipped.registry.host}: {exc.message}"))
            except SampanError as exc:
                raise self._named(exc) from None
        raise self._named(failures[-1])

    def _named(self, exc: SampanError) -> SampanError:
        """Say what was asked for in an error that knows the registry only."""
        if not exc.message.startswith(f"cannot {self.verb}"):
            exc.message = f"cannot {self.verb} {self.ref.familiar()}: {exc.message}"
            exc.args = (exc.message,)
        return exc

    def _manifest(self, repository: Repository, name: str, digest: str, media_type: str) -> Manifest:
        data = self._local(digest) if digest else None
        if data is None:
            return repository.manifest(name, digest)
        document = image.parse(data, media_type)
        return Manifest(data, document["mediaType"], digest, document)

    def _picture(self, manifest: Manifest, depth: int, listed: dict[str, Any] | None = None) -> Picture:
        """Give the picture of a manifest that an index perhaps listed, by a descriptor with a platform."""
        if manifest.media_type not in image.INDEXES:
            return self._image(manifest, listed)
        if depth >= _MAX_DEPTH:
            raise IntegrityError(f"cannot {self.verb} {self.ref.familiar()}: its indexes are nested too deeply")
        if self.wanted is None:
            made = Picture(manifest.data, manifest.media_type, manifest.digest, manifest.document)
            each = {one["digest"]: one for one in manifest.document["manifests"]}
            made.below = [self._listed_one(one, depth + 1) for one in each.values()]
            return made
        chosen = choose(manifest.document["manifests"], self.wanted)
        if chosen is None:
            raise self._no_match(manifest.document["manifests"])
        return self._picture(self._below(chosen), depth + 1, chosen)

    def _listed_one(self, descriptor: dict[str, Any], depth: int) -> Picture:
        """Give the picture of one manifest of an index; however often it is listed, it is fetched once."""
        digest = descriptor["digest"]
        if digest not in self._listed:
            if len(self._listed) >= _MAX_LISTED:
                raise IntegrityError(
                    f"cannot {self.verb} {self.ref.familiar()}: its indexes list more than {_MAX_LISTED} manifests"
                )
            self._listed[digest] = self._picture(self._below(descriptor), depth, descriptor)
        return self._listed[digest]

    def _count(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > _MAX_BYTES:
            raise IntegrityError(
                f"cannot {self.verb} {self.ref.familiar()}: its documents have more than {_MAX_BYTES} bytes"
            )
        return data

    def _below(self, descriptor: dict[str, Any]) -> Manifest:
        digest = descriptor["digest"]
        found = self._manifest(self._repositories[0], digest, digest, "")
        self._count(found.data)
        if len(found.data) != descriptor["size"]:
            size = f"{len(found.data)} bytes, not {descriptor['size']}"
            raise IntegrityError(f"cannot {self.verb} {self.ref.familiar()}: {digest} has {size}")
        if found.media_type != descriptor["mediaType"]:
            kinds = f"{found.media_type}, not {descriptor['mediaType'][:100]} as its index says"
            raise IntegrityError(f"cannot {self.verb} {self.ref.familiar()}: {digest} is {kinds}")
        return found

    def _image(self, manifest: Manifest, listed: dict[str, Any] | None) -> Picture:
        descriptor = manifest.document["config"]
        config = None
        if descriptor["mediaType"] in image.CONFIGS:
            config = self.document(descriptor)
            if self.wanted is not None and self.strict:
                self._check_platform(manifest.digest, image.parse_config(config), listed)
        what = self.ref.familiar()
        return of_manifest(manifest.data, manifest.media_type, manifest.digest, manifest.document, config, what)

    def document(self, descriptor: dict[str, Any]) -> bytes:
        """Get a small blob, verified."""
        digest, size = descriptor["digest"], descriptor["size"]
        if size > image.MAX_DOCUMENT:
            raise IntegrityError(f"cannot {self.verb} {self.ref.familiar()}: its config has {size} bytes")
        if digest not in self._documents:
            known = self._local(digest)
            if known is None:
                known = self._once(digest, lambda: self._fetched(digest, size))
            self._documents[digest] = self._count(known)
        return self._documents[digest]

    def _fetched(self, digest: str, size: int) -> bytes:
        from sampan.oci import digest as digests

        stream = BlobStream(self._repositories, digest, size)
        registry = self._repositories[0].registry
        haste = registry.transport.haste(f"the config of {self.ref.familiar()}", registry.host)  # over all connections
        chunks = []
        try:
            while data := stream.read(size):
                chunks.append(data)
                haste.came(len(data))
        finally:
            stream.close()
        found = b"".join(chunks)
        if digests.of(found) != digest:
            raise IntegrityError(
                f"cannot {self.verb} {self.ref.familiar()}: its config has the digest {digests.of(found)}, not {digest}"
            )
        return found

    def _check_platform(self, digest: str, config: dict[str, Any], listed: dict[str, Any] | None) -> None:
        offered = platform.from_descriptor(config)
        if self.wanted is None or platform.matches(self.wanted, offered):
            return
        what = f"cannot {self.verb} {self.ref.familiar()}: "
        if listed is None or not listed.get("platform"):
            raise NotFound(f"{what}it is for {offered}, not for {self.wanted}")
        named = platform.from_descriptor(listed["platform"])
        raise IntegrityError(
            f"{what}its index lists {digest} as {named}, but that image is for {offered}",
            f"the index is mislabelled; {self.ref.familiar_name()}@{digest} names that image whatever it is for",
        )

    def _no_match(self, entries: list[dict[str, Any]]) -> NotFound:
        there = [str(platform.from_descriptor(one["platform"])) for one in entries if one.get("platform")]
        listed = ", ".join(dict.fromkeys(name for name in there if "unknown" not in name))
        hint = f"there is {listed[:300]}; choose with --platform" if listed else ""
        return NotFound(f"cannot {self.verb} {self.ref.familiar()}: it has no image for {self.wanted}", hint)

    def referrers(self, digest: str) -> Iterator[RegistrySource]:
        """Give a source for each manifest that the registry lists as a referrer of a digest."""
        from sampan.registry import referrers

        place = self._repositories[0]
        for entry in referrers.ls(place, digest):
            if entry["mediaType"] not in image.MANIFESTS + image.INDEXES:
                kind = entry["mediaType"][:100]
                self._listen(Event(events.TEXT, text=f"{entry['digest']}: left out: it is a {kind!r}"))
                continue
            yield RegistrySource(self.ref.with_digest(entry["digest"]), [place], None, listen=self._listen)

    # ---- parts ----

    def known(self, part: Part) -> dict[str, Any]:
        """Give the descriptor that a part leaves with."""
        return part.descriptor

    def elsewhere(self, part: Part, domain: str, path: str) -> str:
        """Give another repository of that registry which has a part: this one, when it is of the same registry."""
        return self.ref.path if self.ref.domain == domain and self.ref.path != path else ""

    def open(self, part: Part, offset: int, received: Callable[[int], None]) -> Stream:
        """Open a part from an offset."""
        if part.digest in self._documents:
            return _Document(self._documents[part.digest][offset:])
        urls = part.descriptor.get("urls")
        if urls and is_foreign(part.descriptor):
            from sampan.registry.foreign import ForeignPlace

            registry = self._repositories[0].registry
            places: list[Any] = [ForeignPlace(registry, urls), *self._repositories]
            return BlobStream(places, part.digest, part.size, offset, received)
        return BlobStream(self._repositories, part.digest, part.size, offset, received)


def choose(entries: Sequence[dict[str, Any]], wanted: Platform) -> dict[str, Any] | None:
    """Give the entry of an index that suits a platform best; those that name none come last."""
    ranked: list[tuple[int, int]] = []
    for place, entry in enumerate(entries):
        described = entry.get("platform")
        rank = platform.rank(wanted, platform.from_descriptor(described)) if described else 1000
        if rank is not None and entry["mediaType"] in image.MANIFESTS + image.INDEXES:
            ranked.append((rank, place))
    return entries[min(ranked)[1]] if ranked else None
