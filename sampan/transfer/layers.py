"""One layer from a stream into the store: its blob as it came, its diff_id, and its files unpacked, in one pass.

Nothing of a layer is kept before its digests are what was promised: blob and snapshot are committed at the end or not
at all.  Memory is bounded by the step, whatever the layer holds.
"""

from __future__ import annotations

import os

from sampan.errors import IntegrityError, NotSupported, SampanError, Unavailable
from sampan.oci import digest as digests
from sampan.oci import image
from sampan.oci.layer import TarReader, to_overlay
from sampan.runtime import rootfs, tree
from sampan.transfer import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sampan.runtime.compile import Facts
    from sampan.runtime.launch import Child
    from sampan.store.content import Content, Ingest
    from sampan.store.db import Database
    from sampan.store.images import Images
    from sampan.store.leases import Lease
    from sampan.store.paths import Paths
    from sampan.store.snapshots import Active, Snapshots

    Read = Callable[[int], bytes]

    class Stream(Protocol):
        """Something to read bytes from; none means the end."""

        def read(self, count: int, /) -> bytes: ...

    class Store(Protocol):
        """The parts of a store that images need."""

        @property
        def paths(self) -> Paths: ...
        @property
        def db(self) -> Database: ...
        @property
        def content(self) -> Content: ...
        @property
        def snapshots(self) -> Snapshots: ...
        @property
        def images(self) -> Images: ...


STEP = 1 << 18
_MEDIA_TYPES = {"": image.OCI_LAYER, "gzip": image.OCI_LAYER_GZIP, "zstd": image.OCI_LAYER_ZSTD}


class _Blob:
    """Pass on the bytes of a stream, and write them to an ingest; refuse more of them than were promised."""

    def __init__(self, stream: Stream, ingest: Ingest, size: int, what: str) -> None:
        self._stream = stream
        self._ingest = ingest
        self._size = size
        self._what = what

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if data:
            self._ingest.write(data)
            if 0 <= self._size < self._ingest.size:
                raise IntegrityError(f"cannot read {self._what}: it is longer than the {self._size} bytes promised")
        return data


class _Decoded:
    """Count and hash the decoded bytes of a layer."""

    def __init__(self, read: Read, hashed: bool, limit: int, what: str) -> None:
        self._read = read
        self._hash = digests.sha256(bulk=True) if hashed else None
        self._limit = limit
        self._what = what
        self.size = 0

    def read(self, count: int) -> bytes:
        data = self._read(count)
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)
        if self._limit and self.size > self._limit:
            raise IntegrityError(f"cannot read {self._what}: unpacked it is over the limit of {self._limit} bytes")
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read(STEP):
            pass

    def digest(self) -> str:
        """Give the digest of all that was read, or "" when it was not hashed."""
        return digests.PREFIX + self._hash.hexdigest() if self._hash is not None else ""


def ingest_layer(
    store: Store,
    stream: Stream,
    facts_factory: Callable[[], Facts],
    target: str,
    *,
    digest: str = "",
    size: int = -1,
    diff_id: str = "",
    lease: Lease | None = None,
    limit: int = 0,
    what: str = "the layer",
) -> tuple[str, str, int, str]:
    """Read a layer into the store and give (diff_id, digest of the blob, its size, media type).

    `digest`, `size` and `diff_id` are what is promised, where known: IntegrityError when it is not so.  A diff_id whose
    snapshot exists is only verified.  `limit` bounds the unpacked bytes; `lease` holds what was added.
    """
    if diff_id and lease is not None:
        lease.hold(diff_id)  # before looking: a snapshot that is found must not be collected meanwhile
    active: Active | None = None
    if not diff_id or store.snapshots.find(diff_id) is None:
        active = store.snapshots.prepare()
    try:
        with store.content.ingest(lease=lease) as ingest:
            raw = codec.Peek(_Blob(stream, ingest, size, what).read)
            kind = codec.detect(raw.peek(6))
            if kind not in _MEDIA_TYPES:
                raise NotSupported(f"cannot read {what}: no layer is compressed with {kind}")
            content = _Decoded(codec.decoder(kind, raw.read, what), bool(kind), limit, what)
            unpacked = unpack(content.read, facts_factory(), target, active.upper) if active is not None else 0
            content.drain()
            while raw.read(STEP):  # what a decoder left is part of the blob all the same
                pass
            actual = _verified(content.digest(), diff_id, digest, what)
            blob, length = ingest.commit(digest or ("" if kind else diff_id), size)
        if active is not None:
            store.snapshots.commit(active, actual or blob, size=unpacked, lease=lease)
    except BaseException:
        if active is not None:
            store.snapshots.abort(active)
        raise
    return actual or blob, blob, length, _MEDIA_TYPES[kind]


def _verified(actual: str, diff_id: str, digest: str, what: str) -> str:
    """Compare the diff_id with what was promised; a plain layer's is its blob's digest, which the commit compares."""
    if not actual and diff_id and digest and diff_id != digest:
        raise IntegrityError(f"cannot read {what}: its diff_id is its digest {digest}, not {diff_id} as its image says")
    if actual and diff_id and actual != diff_id:
        raise IntegrityError(f"cannot read {what}: its diff_id is {actual}, not {diff_id} as its image says")
    return actual


def unpack(read: Read, facts: Facts, target: str, directory: str) -> int:
    """Unpack a layer's tar into a directory of its own, as overlayfs wants a lower one, through the helper.

    Gives the sum of the sizes of its files.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    flags = tree.BEST_EFFORT_NODES if facts.rootless else 0
    flags |= tree.BEST_EFFORT_IDS if facts.single_id else 0
    write_fd, child = rootfs.open_apply(facts, rootfs.Rootfs(directory=directory), target, flags=flags)
    try:
        applier = tree.Applier(write_fd, child.wait)
        reader = TarReader(read)
        applier.feed(to_overlay(reader, rootfs.opaque_name(facts.rootless)))
        applier.end()
    except BaseException:
        os.close(write_fd)
        settle(child)
        raise
    os.close(write_fd)
    ended = child.wait()
    if ended.code:
        raise Unavailable(f"cannot unpack a layer: the helper ended with {ended.code}")
    return reader.unpacked_size


def settle(child: Child) -> None:
    """Wait until the helper has left the tree; why it failed is being raised already."""
    try:
        child.wait()
    except SampanError:
        return
