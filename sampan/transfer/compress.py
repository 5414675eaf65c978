"""Open a layer of the store for upload: as it lies if it is compressed, else compressed on the way.

    known = compress.known(store, layer)          what an upload would turn out to be, where that is known beforehand
    with compress.open_layer(store, layer) as upload:
        while piece := upload.read(1 << 20): …    send it; `upload.size` is -1 while nobody can know it
        descriptor = upload.descriptor()          after the end: what the image's manifest has to say

`layer` is a descriptor of an image's manifest in this store. Which blob a layer became is remembered, so the next push
asks the registry for it first and compresses only where it is missing. The compressed bytes depend on the layer
and the compressor alone: no name, no time.
"""

from __future__ import annotations

import os

from sampan.errors import IntegrityError, InvalidArgument
from sampan.oci import digest as digests
from sampan.oci import image
from sampan.transfer import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from sampan.store.content import Content
    from sampan.store.parts import Store


class Upload:
    """A layer as it is sent; `digest` is "" and `size` -1 until they are known. Use it as a context manager."""

    def __init__(self, media_type: str, digest: str = "", size: int = -1) -> None:
        self.media_type = media_type
        self.digest = digest
        self.size = size

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        raise NotImplementedError

    def descriptor(self) -> dict[str, Any]:
        """Give the descriptor of what was read; only after its end where it was compressed on the way."""
        if not self.digest:
            raise InvalidArgument("cannot describe a layer before all of it was compressed")
        return image.descriptor(self.media_type, self.digest, self.size)

    def close(self) -> None:
        """End it, at any point."""
        raise NotImplementedError

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Plain(Upload):
    """A blob as it lies; `fileno` is for sendfile(2), `at` for continuing an upload in the middle."""

    def __init__(self, content: Content, layer: dict[str, Any]) -> None:
        super().__init__(layer["mediaType"], layer["digest"], layer["size"])
        self._layer = layer
        self._fd = content.open(layer["digest"])
        self.at = 0
        if os.fstat(self._fd).st_size != self.size:
            self.close()
            raise _damaged(self.digest)

    def fileno(self) -> int:
        """Give the descriptor of the blob's file."""
        return self._fd

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        data = os.pread(self._fd, count, self.at)
        if not data and self.at < self.size:
            raise _damaged(self.digest)
        self.at += len(data)
        return data

    def descriptor(self) -> dict[str, Any]:
        """Give the layer's own descriptor, with all that it says."""
        return self._layer

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Compressed(Upload):
    """An uncompressed blob that is compressed, and verified, while it is read.

    That it was not damaged since its digest was verified is shown by what it became before, or by the CRC-32 that it
    had then, which gzip takes anyway; it is hashed only where there is neither. Whoever pulls it compares its diff_id.
    """

    def __init__(self, store: Store, layer: dict[str, Any], compression: str) -> None:
        super().__init__(image.OCI_LAYERS[compression])
        self._store = store
        self._key = _key(layer["digest"], compression)
        self._diff_id: str = layer["digest"]
        self._before = known(store, layer, compression)
        self._sha256 = digests.sha256(bulk=True)
        self._sent = 0
        self._file = store.content.open(self._diff_id)
        self._crc = store.content.checksum(self._file) if compression == "gzip" else -1
        self._plain = digests.sha256(bulk=True) if self._before is None and self._crc < 0 else None
        try:
            self._packed = encode.begin(compression, self._read)
        except BaseException:
            os.close(self._file)
            raise

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end, and that the digest is known."""
        data = self._packed.read(count)
        self._sha256.update(data)
        self._sent += len(data)
        if not data and not self.digest:
            self._end()
        return data

    def close(self) -> None:
        """Stop compressing."""
        if self._file < 0:
            return
        self._packed.close()
        os.close(self._file)
        self._file = -1

    def _read(self, buffer: memoryview) -> int:
        size = os.readv(self._file, [buffer])
        if self._plain is not None:
            self._plain.update(buffer[:size])
        return size

    def _end(self) -> None:
        packed = digests.PREFIX + self._sha256.hexdigest()
        if not self._is_intact(packed):
            raise _damaged(self._diff_id)
        self.digest = packed
        self.size = self._sent
        self._store.buildcache.put(self._key, {"digest": self.digest, "size": self.size})

    def _is_intact(self, packed: str) -> bool:
        if self._plain is not None:
            return digests.PREFIX + self._plain.hexdigest() == self._diff_id
        if self._before is not None and packed == self._before["digest"]:
            return True
        if isinstance(self._packed, encode.Gzip) and self._packed.taken == (os.fstat(self._file).st_size, self._crc):
            return True
        # Another release of the compressor makes other bytes of the same content.
        return self._store.content.verify(self._diff_id)


def _damaged(digest: str) -> IntegrityError:
    return IntegrityError(
        f"cannot send layer {digest}: its blob is damaged: its content has another digest", "remove and pull its image"
    )


def _key(diff_id: str, compression: str) -> str:
    return f"{compression} of {diff_id}"


def open_layer(store: Store, layer: dict[str, Any], compression: str = "gzip") -> Upload:
    """Open a layer for sending, compressed on the way with `compression` ("gzip", "zstd", "" for never) if it is plain.

    Raises NotFound when the blob is not here, IntegrityError when it is damaged: at the latest at the end of reading.
    """
    if image.compression(layer["mediaType"]) or not compression:
        return Plain(store.content, layer)
    return Compressed(store, layer, compression)


def known(store: Store, layer: dict[str, Any], compression: str = "gzip") -> dict[str, Any] | None:
    """Give the descriptor that an upload of this layer had before, or has for sure; None when nobody knows."""
    if image.compression(layer["mediaType"]) or not compression:
        return layer
    found = store.buildcache.get(_key(layer["digest"], compression))
    if (
        not isinstance(found, dict)
        or not digests.is_valid(found.get("digest"))
        or not isinstance(found.get("size"), int)
    ):
        return None
    return image.descriptor(image.OCI_LAYERS[compression], found["digest"], found["size"])
