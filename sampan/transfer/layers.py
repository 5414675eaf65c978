"""One layer from a stream into the store: its blob as it came, its diff_id, and its files unpacked, in one pass.

    layer = Layer(store, facts, Promise(digest=…), lease)    looks into the database, makes directories
    layer.receive(stream)       read, hash, write | inflate, hash | parse, unpack: three threads, and the helper
    layer.commit()              or abort

Nothing of a layer is kept before its digests are what was promised: blob and snapshot are committed at the end or not
at all. Memory is bounded by the steps, whatever the layer holds. Several layers come at once, each on a thread of its
own (crew.py): `Arrivals` holds them, and ends them all.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, NotSupported
from sampan.oci import digest as digests
from sampan.oci import image
from sampan.oci.layer import TarReader, to_overlay
from sampan.runtime import rootfs, tree
from sampan.transfer import codec
from sampan.transfer.ahead import Ahead, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from sampan.runtime.compile import Facts
    from sampan.store.content import Ingest
    from sampan.store.leases import Lease
    from sampan.store.parts import Store
    from sampan.store.snapshots import Active

    Read = Callable[[int], bytes]

    class Stream(Protocol):
        """Something to read bytes from; none means the end."""

        def read(self, count: int, /) -> bytes: ...


STEP = 1 << 20


class Promise:
    """What is known of a layer beforehand: "" and -1 where nothing is.

    `limit` bounds its unpacked bytes (0: no limit), `what` names it in errors.  Of what follows the end of an archive
    that is not compressed, about `trailing` bytes are read at most (-1: all); one without a file may have `padding`.
    """

    __slots__ = ("diff_id", "digest", "limit", "padding", "size", "trailing", "what")

    def __init__(
        self,
        *,
        digest: str = "",
        size: int = -1,
        diff_id: str = "",
        limit: int = 0,
        what: str = "the layer",
        trailing: int = -1,
        padding: int = -1,
    ) -> None:
        self.trailing = trailing
        self.padding = padding
        self.digest = digest
        self.size = size
        self.diff_id = diff_id
        self.limit = limit
        self.what = what


class Ingested:
    """A layer that is in the store: its `diff_id`, and the descriptor of its blob."""

    __slots__ = ("diff_id", "digest", "media_type", "size")

    def __init__(self, diff_id: str, digest: str, size: int, media_type: str) -> None:
        self.diff_id = diff_id
        self.digest = digest
        self.size = size
        self.media_type = media_type

    def descriptor(self) -> dict[str, Any]:
        """Give what a manifest says of it."""
        return image.descriptor(self.media_type, self.digest, self.size)


class Layer:
    """One layer on its way into the store. A promised diff_id that is unpacked already is only verified."""

    def __init__(
        self,
        store: Store,
        facts: Facts,
        promise: Promise,
        lease: Lease | None = None,
        ingest: Ingest | None = None,
    ) -> None:
        if promise.diff_id and lease is not None:
            lease.hold(promise.diff_id)  # before looking: a snapshot that is found must not be collected meanwhile
        self._store = store
        self._facts = facts
        self._promise = promise
        self._lease = lease
        self._stages: list[Ahead] = []
        self._cancelled = False
        self._kind = ""
        self._unpacked_size = 0
        self._decoded = 0
        self._hash: digests.Hash | None = None
        known = promise.diff_id and store.snapshots.find(promise.diff_id) is not None
        self._active: Active | None = None if known else store.snapshots.prepare()
        self._ingest: Ingest = ingest or store.content.ingest(lease=lease)

    # ---- on any thread ----

    def receive(self, stream: Stream) -> None:
        """Read the whole layer; raise IntegrityError as soon as it is not what was promised."""
        try:
            raw = codec.Peek(self._stage(stream.read, self._keep).read)
            self._kind = codec.detect(raw.peek(6))
            if self._kind not in image.OCI_LAYERS:
                raise NotSupported(f"cannot read {self._promise.what}: no layer is compressed with {self._kind}")
            content = self._content(raw)
            trailing = -1 if self._kind else self._promise.trailing
            if self._active is not None:
                reader = TarReader(content, trailing=trailing, padding=self._promise.padding)
                self._unpacked_size = unpack(reader, self._facts, self._active.upper)
            for rest in (content, raw.read):  # what a decoder left is part of the blob all the same
                while trailing < 0 and rest(STEP):
                    pass
        finally:
            close_all(self._stages)
        self._ingest.sync()

    def cancel(self) -> None:
        """Make `receive`, on another thread, end soon."""
        self._cancelled = True
        for stage in self._stages[:]:
            stage.stop()

    def _stage(self, read: Read, each: Callable[[bytes], object]) -> Ahead:
        stage = Ahead(read, each, step=STEP)
        self._stages.append(stage)
        if self._cancelled:
            stage.stop()
        return stage

    def _content(self, raw: codec.Peek) -> Read:
        """Give the decoded stream; a plain one is hashed as the blob that it is."""
        if not self._kind:
            return raw.read
        self._hash = digests.Growing()
        return self._stage(codec.decoder(self._kind, raw.read, self._promise.what), self._count).read

    def _keep(self, data: bytes) -> None:
        """Write a piece of the blob; refuse more than was promised."""
        self._ingest.write(data)
        if 0 <= self._promise.size < self._ingest.size:
            raise IntegrityError(
                f"cannot read {self._promise.what}: it is longer than the {self._promise.size} bytes promised"
            )
        if self._promise.limit and not self._kind:
            self._check_limit(self._ingest.size)

    def _count(self, data: bytes) -> None:
        """Hash a piece of the decoded layer."""
        assert self._hash is not None
        self._hash.update(data)
        self._decoded += len(data)
        self._check_limit(self._decoded)

    def _check_limit(self, size: int) -> None:
        if self._promise.limit and size > self._promise.limit:
            raise IntegrityError(
                f"cannot read {self._promise.what}: unpacked it is over the limit of {self._promise.limit} bytes"
            )

    # ---- with the database ----

    def commit(self) -> Ingested:
        """Verify the digests and keep blob and snapshot; Images.put makes the snapshot last."""
        promise = self._promise
        diff_id = digests.PREFIX + self._hash.hexdigest() if self._hash is not None else ""
        _verify(diff_id, promise)
        # A plain layer's diff_id is its digest, so the blob's commit compares it.
        expected = promise.digest or ("" if self._kind else promise.diff_id)
        digest, size = self._ingest.commit(expected, promise.size)
        if diff_id:
            self._store.content.pair(digest, diff_id)
        diff_id = diff_id or digest
        if self._active is not None:
            active, self._active = self._active, None
            self._store.snapshots.commit(active, diff_id, size=self._unpacked_size, lease=self._lease, durable=False)
        return Ingested(diff_id, digest, size, image.OCI_LAYERS[self._kind])

    def abort(self) -> None:
        """Forget what has not been committed."""
        self._ingest.abort()
        if self._active is not None:
            self._store.snapshots.abort(self._active)
            self._active = None


def _verify(diff_id: str, promise: Promise) -> None:
    if not diff_id and promise.diff_id and promise.digest and promise.diff_id != promise.digest:
        raise IntegrityError(
            f"cannot read {promise.what}: its diff_id is its digest {promise.digest}, not {promise.diff_id}"
            " as its image says"
        )
    if diff_id and promise.diff_id and diff_id != promise.diff_id:
        raise IntegrityError(
            f"cannot read {promise.what}: its diff_id is {diff_id}, not {promise.diff_id} as its image says"
        )


class Arrivals:
    """Layers on their way into the store, each on any thread."""

    def __init__(self) -> None:
        self._layers: set[Layer] = set()
        self.cancelled = False

    def bring(self, layer: Layer, stream: Stream) -> Ingested:
        """Receive and commit a layer, or leave nothing of it; it lasts once Images.put has recorded its image."""
        self._layers.add(layer)
        try:
            if self.cancelled:
                layer.cancel()
            layer.receive(stream)
            return layer.commit()
        finally:
            self._layers.discard(layer)
            layer.abort()

    def cancel(self) -> None:
        """Make all of them end soon, on their threads."""
        self.cancelled = True
        for layer in list(self._layers):
            layer.cancel()


def unpack(reader: TarReader, facts: Facts, directory: str) -> int:
    """Unpack a layer's tar into a directory of its own, as overlayfs wants a lower one, through the helper.

    Gives the sum of the sizes of its files.
    """
    root = rootfs.Rootfs(directory=directory)
    # An owner beyond the user's range is recorded, as are all of them where there is no range.
    beyond = tree.BEST_EFFORT_IDS | tree.STRICT_SETID if facts.rootless and not facts.single_id else 0
    write_fd, child = rootfs.open_apply(facts, root, flags=tree.WRITEBACK | beyond)
    entries = to_overlay(reader, rootfs.opaque_name(facts.rootless))
    rootfs.send(write_fd, child, lambda applier: applier.feed(entries))
    return reader.unpacked_size
