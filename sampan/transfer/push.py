"""Push: an image of the store to a registry.

What was pulled goes as it came, byte by byte; layers that were built here are compressed on the way, always to the same
bytes.  Only what the registry lacks is sent.  The manifest comes last, and with it the tag.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.oci import image as documents
from sampan.registry.upload import Uploader
from sampan.transfer import compress, events
from sampan.transfer.copy import Part, Picture, of_manifest
from sampan.transfer.events import Event
from sampan.transfer.registries import is_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from sampan.registry.client import Repository
    from sampan.store.buildcache import BuildCache
    from sampan.store.images import Image
    from sampan.store.parts import Store as ImageStore
    from sampan.transfer.compress import Upload
    from sampan.transfer.copy import Source, Stream
    from sampan.transfer.events import Listen

    class Store(ImageStore, Protocol):
        """What is pushed from: the build cache remembers compressed layers."""

        @property
        def buildcache(self) -> BuildCache: ...


class StoreSource:
    """An image of the store; plain layers leave it with `compression` ("gzip", "zstd", "" for as they are)."""

    def __init__(self, store: Store, found: Image, compression: str = "gzip") -> None:
        self._store = store
        self._image = found
        self._compression = compression

    def picture(self) -> Picture:
        """Read the image's documents."""
        content = self._store.content
        data = content.read(self._image.manifest_digest)
        document = documents.parse_manifest(data)
        described = document["config"]
        config = content.read(described["digest"]) if described["mediaType"] in documents.CONFIGS else None
        what = f"image {self._image.short_id}"
        return of_manifest(data, document["mediaType"], self._image.manifest_digest, document, config, what)

    def known(self, part: Part) -> dict[str, Any] | None:
        """Give the descriptor that a part leaves with, None when it shows at its end only."""
        return compress.known(self._store, part.descriptor, self._compression) if part.diff_id else part.descriptor

    def open(self, part: Part, offset: int, received: Callable[[int], None]) -> Stream:
        """Open a part; from an offset only where its bytes are known."""
        if part.diff_id:
            return _Counted(compress.open_layer(self._store, part.descriptor, self._compression), offset, received)
        return _Counted(compress.Plain(self._store.content, part.descriptor), offset, received)

    def elsewhere(self, part: Part, domain: str, path: str) -> str:
        """Give another repository of the same registry that may have a part, or ""."""
        rows = self._store.db.query(
            "SELECT name FROM image_references JOIN images USING (manifest_digest)"
            " WHERE substr(name, 1, ?) = ? AND (instr(blobs, ?) OR instr(diff_ids, ?)) ORDER BY tagged DESC",
            (len(domain) + 1, domain + "/", part.digest, part.diff_id or part.digest),
        )
        names = (name.partition("@")[0][len(domain) + 1 :] for (name,) in rows)
        repositories = (name.rpartition(":")[0] if ":" in name else name for name in names)
        return next((repository for repository in repositories if repository != path), "")


class _Counted:
    """A part that is being sent: tells how much has gone, and what it was."""

    def __init__(self, upload: Upload, offset: int, received: Callable[[int], None]) -> None:
        self._upload = upload
        self._received = received
        if offset:
            if not isinstance(upload, compress.Plain):
                upload.close()
                raise InvalidArgument("cannot go on in the middle of a layer that is compressed on the way")
            upload.at = offset
            received(offset)

    def read(self, count: int) -> bytes:
        data = self._upload.read(count)
        self._received(len(data))
        return data

    def close(self) -> None:
        self._upload.close()

    def described(self) -> tuple[str, int]:
        """Give digest and size; of what is compressed on the way only at its end."""
        descriptor = self._upload.descriptor()
        return descriptor["digest"], descriptor["size"]

    def descriptor(self) -> dict[str, Any]:
        return self._upload.descriptor()


class _Known:
    """A part whose descriptor is known before it is read, whatever source it comes from."""

    def __init__(self, stream: Stream, descriptor: dict[str, Any]) -> None:
        self.read = stream.read
        self.close = stream.close
        self._descriptor = descriptor

    def described(self) -> tuple[str, int]:
        """Give what its source promised; the registry verifies it."""
        return self._descriptor["digest"], self._descriptor["size"]


class RegistryDestination:
    """A repository as the end of a copy; the manifest is stored as `names`: tags, or its digest when there are none."""

    def __init__(self, repository: Repository, domain: str, names: list[str], listen: Listen = events.ignore) -> None:
        self._repository = repository
        self._domain = domain
        self._names = names
        self._listen = listen

    def take(self, source: Source, part: Part) -> dict[str, Any]:
        """Send one part, unless the registry has it or can take it from another of its repositories."""
        if is_foreign(part.descriptor) and part.descriptor.get("urls"):
            self._tell(part, Event(events.SKIPPED, part.short, text="foreign layer"))
            return part.descriptor
        self._tell(part, Event(events.BEGIN, part.short, 0, part.size))
        known = source.known(part)
        if known is not None and self._repository.has_blob(known["digest"]):
            self._tell(part, Event(events.EXISTS, part.short, part.size, part.size))
            return known
        return self._send(source, part, known)

    def _send(self, source: Source, part: Part, known: dict[str, Any] | None) -> dict[str, Any]:
        moved = [0]
        opened: list[Any] = []
        total = known["size"] if known is not None else part.size
        # What is compressed on the way may become other bytes than last time: by another version of the compressor.
        sure = known if known is not None and known["digest"] == part.digest else None

        def received(count: int) -> None:
            moved[0] += count
            self._tell(part, Event(events.MOVING, part.short, min(moved[0], total), total))

        def open_at(offset: int) -> Any:
            moved[0] = 0
            stream: Any = source.open(part, offset, received)
            opened.append(stream if sure is None else _Known(stream, sure))
            return opened[-1]

        uploader = Uploader(self._repository, open_at, sure["size"] if sure is not None else -1)
        place = ""
        if known is not None:
            other = source.elsewhere(part, self._domain, self._repository.path)
            if other:
                place = uploader.mount(known["digest"], other)
                if not place:
                    self._tell(part, Event(events.MOUNTED, part.short, total, total, f"from {other}"))
                    return known
        digest, size = uploader.send(place)
        self._tell(part, Event(events.DONE, part.short, size, size))
        descriptor: dict[str, Any] = sure or opened[-1].descriptor()
        return {**descriptor, "digest": digest, "size": size}

    def finish(self, picture: Picture) -> None:
        """Store what is below by digest, then the manifest under its names."""
        for below in picture.walk()[:-1]:
            self._repository.put_manifest(below.digest, below.data, below.media_type)
        for name in self._names or [picture.digest]:
            self._repository.put_manifest(name, picture.data, picture.media_type)

    def _tell(self, part: Part, event: Event) -> None:
        if part.shown:
            self._listen(event)
