"""Pull: an image from a registry into the store.

Layers are verified, unpacked and kept while they arrive.  What came of one that did not arrive whole is kept too, for
the next try.  The image and its names appear in one transaction at the end, or nothing does.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, InvalidArgument, NotFound
from sampan.store.leases import Leases
from sampan.store.partials import open_partial
from sampan.transfer import events
from sampan.transfer.copy import JOBS, Part, Picture, copy
from sampan.transfer.crew import Crew
from sampan.transfer.events import Event
from sampan.transfer.layers import Arrivals, Layer, Promise
from sampan.transfer.naming import retag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.runtime.compile import Facts
    from sampan.store.images import Image
    from sampan.store.leases import Lease
    from sampan.store.partials import Partial
    from sampan.store.parts import Store
    from sampan.transfer.copy import Source, Stream
    from sampan.transfer.events import Listen

_STEP = 1 << 18


class _Resumed:
    """The kept bytes of a partial blob, then those of the network."""

    def __init__(
        self, partial: Partial | None, open_at: Callable[[int], Stream], received: Callable[[int], None]
    ) -> None:
        self._partial = partial
        self._open = open_at
        self._received = received
        self._at = 0
        self._network: Stream | None = None

    def read(self, count: int) -> bytes:
        if self._partial is not None and self._at < self._partial.kept:
            data = self._partial.read(count, self._at)
            self._at += len(data)
            self._received(len(data))
            return data
        if self._network is None:
            self._network = self._open(self._at)
        data = self._network.read(count)
        self._at += len(data)
        return data

    def close(self) -> None:
        if self._network is not None:
            self._network.close()


class StoreDestination:
    """The store as the end of a copy; `names` are full references that the image gets."""

    def __init__(
        self,
        store: Store,
        facts_factory: Callable[[], Facts],
        lease: Lease,
        names: Callable[[Picture], Sequence[str]],
        listen: Listen = events.ignore,
        limit: int = 0,
    ) -> None:
        self.store = store
        self.image: Image | None = None  # once it is recorded
        self.replaced: dict[str, str] = {}
        self._facts_factory = facts_factory
        self._lease = lease
        self._names = names
        self._listen = listen
        self._limit = limit
        self._arrivals = Arrivals()
        self._compared: set[tuple[str, str]] = set()  # layers' digests and diff_ids, as they came

    def take(self, source: Source, part: Part) -> dict[str, Any]:
        """Bring one part into the store, unless it is there or another process brings it meanwhile."""
        self._lease.hold(part.digest, *([part.diff_id] if part.diff_id else []))  # before looking
        if self.is_here(part):
            self._tell(part, Event(events.EXISTS, part.short, part.size, part.size))
            return part.descriptor
        self._tell(part, Event(events.BEGIN, part.short, 0, part.size))

        def waiting(size: int) -> None:
            self._tell(part, Event(events.WAITING, part.short, size, part.size))

        with open_partial(self.store.paths, part.digest, self._lease, waiting) as partial:
            if not self.is_here(part):
                self._bring(source, part, partial)
        self._tell(part, Event(events.DONE, part.short, part.size, part.size))
        return part.descriptor

    def _tell(self, part: Part, event: Event) -> None:
        if part.shown:
            self._listen(event)

    def is_here(self, part: Part) -> bool:
        """Tell whether a part is in the store with its size, and a layer unpacked; `system check` compares contents."""
        whole = self._is_whole(part) if not part.shown else self.store.content.holds(part.digest, part.size)
        if not whole or not part.diff_id:
            return whole
        return self.store.snapshots.find(part.diff_id) is not None and self._belongs(part)

    def _belongs(self, part: Part) -> bool:
        """Tell whether a layer's blob is known to hold what its diff_id says: both may be here, of different images."""
        pair = part.digest, part.diff_id
        if part.digest == part.diff_id or pair in self._compared or self.store.content.diff_id(part.digest) == pair[1]:
            return True
        return self.store.images.pairs(*pair)

    def _is_whole(self, part: Part) -> bool:
        """Compare a config with its digest: it is small, and whoever runs the image reads it."""
        try:
            return bool(self.store.content.read(part.digest))
        except (NotFound, IntegrityError, InvalidArgument):
            return False

    def _bring(self, source: Source, part: Part, partial: Partial | None) -> None:
        if partial is not None and partial.kept > part.size:
            partial.discard()
        if part.diff_id and self.store.content.holds(part.digest, part.size):
            if partial is not None:
                partial.discard()
            if self._unpacked_again(source, part, partial):
                return
        resumed = partial is not None and partial.kept > 0
        try:
            self._once(source, part, partial)
        except IntegrityError:
            if partial is None or not resumed:
                if partial is not None:
                    partial.discard()
                raise
            # What an earlier try left may be damaged (a power cut): once more, all of it.
            partial.discard()
            self._once(source, part, partial)

    def _unpacked_again(self, source: Source, part: Part, partial: Partial | None) -> bool:
        """Unpack a layer from its blob, which is here; False when that is damaged and has to be fetched."""
        from sampan.errors import SampanError

        try:
            self._once(source, part, partial, local=True)
        except SampanError:
            if self._arrivals.cancelled or self.store.content.verify(part.digest):
                raise
            if partial is not None:
                partial.discard()
            self._tell(part, Event(events.BEGIN, part.short, 0, part.size))
            return False
        return True

    def _once(self, source: Source, part: Part, partial: Partial | None, *, local: bool = False) -> None:
        moved = [0]

        def received(count: int) -> None:
            moved[0] += count
            self._tell(part, Event(events.MOVING, part.short, moved[0], part.size))

        def open_at(offset: int) -> Stream:
            if local:
                here: Stream = open(self.store.content.open(part.digest), "rb", buffering=0)
                return here
            return source.open(part, offset, received)

        stream = _Resumed(partial, open_at, received)
        try:
            self._ingest(stream, part, partial)
        except IntegrityError:
            if partial is not None:
                partial.discard()
            raise
        finally:
            stream.close()

    def _ingest(self, stream: _Resumed, part: Part, partial: Partial | None) -> None:
        if part.diff_id:
            promise = Promise(
                digest=part.digest,
                size=part.size,
                diff_id=part.diff_id,
                limit=self._limit,
                what=f"layer {part.digest}",
            )
            layer = Layer(self.store, self._facts_factory(), promise, self._lease, partial)
            self._arrivals.bring(layer, stream)
            self._compared.add((part.digest, part.diff_id))
            return
        with partial or self.store.content.ingest(lease=self._lease) as ingest:
            while data := stream.read(_STEP):
                ingest.write(data)
            ingest.commit(part.digest, part.size)

    def cancel(self) -> None:
        """Make what other threads receive end soon."""
        self._arrivals.cancel()

    def finish(self, picture: Picture) -> None:
        """Record the image and its names, all in one transaction."""
        if picture.below:
            raise InvalidArgument("cannot keep an image for several platforms: choose one")
        for part in picture.parts:  # another host may name what it never sent
            if part.diff_id and not self._belongs(part):
                raise IntegrityError(f"cannot keep layer {part.digest}: nobody has seen that it holds {part.diff_id}")
        digest = self.store.content.add(picture.data, expected=picture.digest, lease=self._lease)
        with self.store.db.transaction():
            self.image = self.store.images.put(digest)
            self.replaced.update(retag(self.store, self._names(picture), digest))


def pull(
    store: Store,
    source: Source,
    names: Callable[[Picture], Sequence[str]],
    facts_factory: Callable[[], Facts],
    crew: Crew,
    *,
    listen: Listen = events.ignore,
    limit: int = 0,
    lease: Lease | None = None,
) -> tuple[Image, dict[str, str]]:
    """Bring an image into the store; give it, and for each name that another image had, that one's id.

    `facts_factory` gives facts of the host with id maps filled in, and a directory to mount roots at. With a
    `lease` all of the image stays for as long as that one lasts.
    """
    own = lease or Leases(store.db).take("pull")
    try:
        destination = StoreDestination(store, facts_factory, own, names, listen, limit)
        crew.stopping.append(destination.cancel)
        copy(source, destination, crew)
    finally:
        if lease is None:
            own.release()
    assert destination.image is not None
    return destination.image, destination.replaced


def crew(interrupt: Callable[[], None]) -> Crew:
    """Give the threads for one pull."""
    return Crew(JOBS, interrupt)
