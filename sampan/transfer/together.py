"""Several layers of an image at once: each is read and unpacked by threads of its own, into a directory of its own.

The calling thread alone uses the database: it begins and commits them, in whatever order they become ready. The first
failure, or an interruption of the caller, ends all the others; nothing that was not committed stays.
"""

from __future__ import annotations

from sampan.transfer.layers import Layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from queue import SimpleQueue
    from threading import Thread
    from types import TracebackType
    from typing import Protocol

    from sampan.runtime.compile import Facts
    from sampan.store.leases import Lease
    from sampan.store.parts import Store
    from sampan.transfer.layers import Ingested, Promise, Stream

    class Source(Protocol):
        """A stream that is closed at the end."""

        def __enter__(self) -> Stream: ...
        def __exit__(
            self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None, /
        ) -> object: ...

    Ended = tuple[int, BaseException | None]


WIDTH = 3  # as many as Docker downloads at once; each may hold some 12 MiB
_PATIENCE = 2.0  # seconds that a worker gets to leave its layer after a failure


def ingest_all(
    store: Store,
    promises: Sequence[Promise],
    open_stream: Callable[[int], Source],
    facts_factory: Callable[[], Facts],
    target: str,
    *,
    lease: Lease,
    width: int = WIDTH,
) -> list[Ingested]:
    """Read layers into the store, `width` at once; give them in the order of their promises.

    `open_stream(index)` is called on a worker thread. What was unpacked lasts once Images.put has recorded its image.
    """
    return _Crew(store, promises, open_stream, facts_factory, target, lease).run(width)


class _Crew:
    def __init__(
        self,
        store: Store,
        promises: Sequence[Promise],
        open_stream: Callable[[int], Source],
        facts_factory: Callable[[], Facts],
        target: str,
        lease: Lease,
    ) -> None:
        from queue import SimpleQueue

        self.store = store
        self.promises = promises
        self.open_stream = open_stream
        self.facts_factory = facts_factory
        self.target = target
        self.lease = lease
        self._ended: SimpleQueue[Ended] = SimpleQueue()
        self._running: dict[int, tuple[Layer, Thread]] = {}

    def run(self, width: int) -> list[Ingested]:
        """Keep `width` layers on their way until all are committed."""
        done: dict[int, Ingested] = {}
        waiting = list(range(len(self.promises)))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < width:
                    self._start(waiting.pop(0))
                index, failure = self._ended.get()
                if failure is not None:
                    raise failure
                done[index] = self._running[index][0].commit(durable=False)
                self._running.pop(index)
        finally:
            self._stop()
        return [done[index] for index in range(len(self.promises))]

    def _start(self, index: int) -> None:
        from threading import Thread

        layer = Layer(self.store, self.facts_factory(), self.target, self.promises[index], self.lease)
        thread = Thread(target=self._work, args=(index, layer), daemon=True)
        self._running[index] = (layer, thread)
        thread.start()

    def _work(self, index: int, layer: Layer) -> None:
        failure: BaseException | None = None
        try:
            with self.open_stream(index) as stream:
                layer.receive(stream)
        except BaseException as exc:  # handed on to the thread that waits
            failure = exc
        self._ended.put((index, failure))

    def _stop(self) -> None:
        for layer, _ in self._running.values():
            layer.cancel()
        for layer, thread in self._running.values():
            thread.join(_PATIENCE)
            layer.abort()
        self._running.clear()
