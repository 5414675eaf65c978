"""Save images as one tar that is an OCI image layout and a Docker archive at once.

    oci-layout, index.json      image-spec image-layout.md; names as containerd and Docker annotate them
    manifest.json               Docker's list of configs, layers and tags: paths into the layout's blobs
    blobs/sha256/<hex>          each blob once, as it lies in the store; and what a zstd layer holds, for manifest.json:
                                docker reads no zstd there before version 23

The same images in the same order give the same bytes: owners and times are zero, and blobs are sorted by digest.
"""

from __future__ import annotations

import os

from sampan.errors import IntegrityError, NotFound
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci import jsontext, reference
from sampan.oci.entry import DIRECTORY, Entry
from sampan.oci.tarwriter import TarWriter
from sampan.transfer import dockerarchive, layout
from sampan.transfer.output import send, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    from sampan.store.images import Image
    from sampan.store.parts import Store

    class Blobs(Protocol):
        """Blobs by their digests: the store's, or those of a layout directory."""

        def has(self, digest: str, /) -> bool: ...
        def open(self, digest: str, /) -> int: ...
        def read(self, digest: str, /) -> bytes: ...


_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_AGAIN = "pull or build it again"
_STEP = 1 << 20


class Chosen:
    """One image to save under some of its names (full references; none is fine)."""

    __slots__ = ("config", "layers", "manifest", "media_type", "names", "plain", "size")

    def __init__(self, content: Blobs, manifest: str, names: Sequence[str]) -> None:
        data = content.read(manifest)
        document = documents.parse_manifest(data)
        self.manifest = manifest
        self.media_type: str = document["mediaType"]
        self.size = len(data)
        self.config: str = document["config"]["digest"]
        self.layers: list[str] = [layer["digest"] for layer in document["layers"]]
        self.names = list(names)
        self.plain: dict[str, str] = {}  # which diff_id a zstd layer has
        if any(_is_zstd(layer) for layer in document["layers"]):
            self._find_plain(content, document)

    def _find_plain(self, content: Blobs, document: dict[str, Any]) -> None:
        if document["config"]["mediaType"] in documents.CONFIGS:
            config = documents.parse_config(content.read(self.config))
            pairs = documents.check_layers(document, config)
            self.plain = {layer["digest"]: diff_id for layer, diff_id in pairs if _is_zstd(layer)}

    def blobs(self) -> list[str]:
        """Give the digests of all that the image consists of."""
        return [self.manifest, self.config, *self.layers]

    def descriptors(self) -> list[dict[str, Any]]:
        """Give index.json's entries: one for each name, one without for an image that has none."""
        found = []
        for name in self.names or [""]:
            extra = {"annotations": layout.notes(name)} if name else {}
            found.append(documents.descriptor(self.media_type, self.manifest, self.size, **extra))
        return found

    def docker_entry(self) -> dict[str, Any]:
        """Give manifest.json's entry."""
        return {
            "Config": layout.blob_name(self.config),
            "RepoTags": [reference.parse(name).familiar() for name in self.names if "@" not in name] or None,
            "Layers": [layout.blob_name(self.plain.get(layer, layer)) for layer in self.layers],
        }


def _is_zstd(layer: dict[str, Any]) -> bool:
    return bool(layer["mediaType"].endswith("zstd"))


class _Plain:
    """What a zstd layer holds: read once for its size and its digest, before anything is written, then once more."""

    def __init__(self, content: Blobs, digest: str, diff_id: str) -> None:
        self._content = content
        self._digest = digest
        self.size = 0
        running = digests.sha256(bulk=True)
        for piece in self._pieces():
            running.update(piece)
            self.size += len(piece)
        if digests.PREFIX + running.hexdigest() != diff_id:
            raise IntegrityError(f"cannot save the image: the content of its layer {digest} is not {diff_id}", _AGAIN)

    def _pieces(self) -> Iterator[bytes]:
        from sampan.transfer import codec

        fd = self._content.open(self._digest)
        try:
            read = codec.decoder("zstd", lambda count: os.read(fd, count), f"blob {self._digest}")
            while piece := read(_STEP):
                yield piece
        finally:
            os.close(fd)

    def content(self) -> Iterator[tuple[int, bytes]]:
        at = 0
        for piece in self._pieces():
            yield at, piece
            at += len(piece)


def save(store: Store, images: Sequence[tuple[Image, Sequence[str]]], out_fd: int) -> int:
    """Write images, each with the full references to save it under, to a descriptor; give the archive's size."""
    return archive(store.content, [(image.manifest_digest, names) for image, names in images], out_fd)


def archive(content: Blobs, images: Sequence[tuple[str, Sequence[str]]], out_fd: int) -> int:
    """Write images, each by its manifest's digest and with its names, from whatever has their blobs."""
    chosen = [Chosen(content, manifest, names) for manifest, names in images]
    blobs = sorted({digest for one in chosen for digest in one.blobs()})
    for digest in blobs:
        _check(content, digest)
    sources = {diff_id: digest for one in chosen for digest, diff_id in one.plain.items() if diff_id not in blobs}
    plain = {diff_id: _Plain(content, digest, diff_id) for diff_id, digest in sources.items()}
    tar = TarWriter(lambda data: write_all(out_fd, data))
    _document(tar, layout.MARK, _LAYOUT)
    _document(tar, layout.INDEX, documents.build_index([entry for one in chosen for entry in one.descriptors()]))
    _document(tar, dockerarchive.MANIFEST, jsontext.dumps([one.docker_entry() for one in chosen]))
    for name in (b"blobs", b"blobs/sha256"):
        tar.add(Entry(DIRECTORY, name, 0o755))
    for digest in sorted([*blobs, *plain]):
        if digest in plain:
            entry = Entry("F", layout.blob_name(digest).encode(), 0o644, size=plain[digest].size)
            tar.add(entry, plain[digest].content())
        else:
            _blob(tar, content, digest, out_fd)
    return tar.close()


def _check(content: Blobs, digest: str) -> None:
    """Fail before the first byte is written."""
    if not content.has(digest):
        raise NotFound(f"cannot save the image: its blob {digest} is not in the store", _AGAIN)


def _document(tar: TarWriter, name: str, data: bytes) -> None:
    tar.add(Entry("F", name.encode(), 0o644, size=len(data)), ((0, data),))


def _blob(tar: TarWriter, content: Blobs, digest: str, out_fd: int) -> None:
    fd = content.open(digest)
    try:
        size = os.fstat(fd).st_size
        entry = Entry("F", layout.blob_name(digest).encode(), 0o644, size=size)
        tar.add_sent(entry, lambda: send(out_fd, fd, size, f"blob {digest}"))
    finally:
        os.close(fd)
