"""Save images as one tar that is an OCI image layout and a Docker archive at once.

    oci-layout, index.json      image-spec image-layout.md; names as containerd and Docker annotate them
    manifest.json               Docker's list of configs, layers and tags: paths into the layout's blobs
    blobs/sha256/<hex>          each blob once, as it lies in the store

The same images in the same order give the same bytes: owners and times are zero, and blobs are sorted by digest.
"""

from __future__ import annotations

import os

from sampan.errors import NotFound
from sampan.oci import image as documents
from sampan.oci import jsontext, reference
from sampan.oci.entry import DIRECTORY, Entry
from sampan.oci.tarwriter import TarWriter
from sampan.transfer import dockerarchive, layout
from sampan.transfer.output import send, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from sampan.store.images import Image
    from sampan.store.parts import Store

    class Blobs(Protocol):
        """Blobs by their digests: the store's, or those of a layout directory."""

        def has(self, digest: str, /) -> bool: ...
        def open(self, digest: str, /) -> int: ...
        def read(self, digest: str, /) -> bytes: ...


_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Chosen:
    """One image to save under some of its names (full references; none is fine)."""

    __slots__ = ("config", "layers", "manifest", "media_type", "names", "size")

    def __init__(self, content: Blobs, manifest: str, names: Sequence[str]) -> None:
        data = content.read(manifest)
        document = documents.parse_manifest(data)
        self.manifest = manifest
        self.media_type: str = document["mediaType"]
        self.size = len(data)
        self.config: str = document["config"]["digest"]
        self.layers: list[str] = [layer["digest"] for layer in document["layers"]]
        self.names = list(names)

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
            "Layers": [layout.blob_name(layer) for layer in self.layers],
        }


def save(store: Store, images: Sequence[tuple[Image, Sequence[str]]], out_fd: int) -> int:
    """Write images, each with the full references to save it under, to a descriptor; give the archive's size."""
    return archive(store.content, [(image.manifest_digest, names) for image, names in images], out_fd)


def archive(content: Blobs, images: Sequence[tuple[str, Sequence[str]]], out_fd: int) -> int:
    """Write images, each by its manifest's digest and with its names, from whatever has their blobs."""
    chosen = [Chosen(content, manifest, names) for manifest, names in images]
    blobs = sorted({digest for one in chosen for digest in one.blobs()})
    for digest in blobs:
        _check(content, digest)
    tar = TarWriter(lambda data: write_all(out_fd, data))
    _document(tar, layout.MARK, _LAYOUT)
    _document(tar, layout.INDEX, documents.build_index([entry for one in chosen for entry in one.descriptors()]))
    _document(tar, dockerarchive.MANIFEST, jsontext.dumps([one.docker_entry() for one in chosen]))
    for name in (b"blobs", b"blobs/sha256"):
        tar.add(Entry(DIRECTORY, name, 0o755))
    for digest in blobs:
        _blob(tar, content, digest, out_fd)
    return tar.close()


def _check(content: Blobs, digest: str) -> None:
    """Fail before the first byte is written."""
    if not content.has(digest):
        raise NotFound(f"cannot save the image: its blob {digest} is not in the store", "pull or build it again")


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
