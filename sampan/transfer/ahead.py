"""Read a stream in a thread of its own, a few pieces ahead, or write one a few behind: reading, hashing and inflating
release the interpreter's lock, so stages that are chained this way run at once.

Memory is bounded: at most DEPTH pieces wait. A stage is stopped by `close`, which returns within a second also while
its source blocks (a silent pipe or peer); nothing is done any more with what such a read still brings.
"""

from __future__ import annotations

from collections import deque

from sampan.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    Read = Callable[[int], bytes]

STEP = 1 << 20
DEPTH = 3
_PATIENCE = 1.0  # seconds


class Ahead:
    """Read what `source(count)` gives in another thread, which does `each` to every piece; a context manager.

    What the source or `each` raises is raised by the `read` that comes to it.
    """

    def __init__(self, source: Read, each: Callable[[bytes], object] | None = None, *, step: int = STEP) -> None:
        import threading

        self._source = source
        self._each = each
        self._step = step
        self._pieces: deque[bytes] = deque()
        self._held = b""
        self._failure: BaseException | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition(threading.Lock())
        self._working = threading.Lock()  # held while `each` works, so that `close` waits for it
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        data = self._held or self._next()
        if len(data) <= count:
            self._held = b""
            return data
        self._held = data[count:]
        return data[:count]

    def stop(self) -> None:
        """Tell the thread to end, from any thread: a `read` that waits, and every later one, fails."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the thread; `each` is not called any more."""
        self.stop()
        with self._working:
            pass
        self._thread.join(_PATIENCE)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> bytes:
        with self._changed:
            while not self._pieces and not self._ended and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise Unavailable("cannot read on: it was stopped")
            if self._pieces:
                piece = self._pieces.popleft()
                self._changed.notify_all()
                return piece
        if self._failure is not None:
            raise self._failure
        return b""

    def _run(self) -> None:
        try:
            while self._has_room():
                piece = self._source(self._step)
                if not piece or not self._work(piece):
                    break
                with self._changed:
                    self._pieces.append(piece)
                    self._changed.notify_all()
        except BaseException as exc:  # handed on to whoever reads
            self._failure = exc
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        with self._changed:
            while len(self._pieces) >= DEPTH and not self._stopped:
                self._changed.wait()
            return not self._stopped

    def _work(self, piece: bytes) -> bool:
        with self._working:
            if self._stopped:
                return False
            if self._each is not None:
                self._each(piece)
        return True


class Behind:
    """Do `each` to what is written, in another thread, a few pieces behind; leaving its block waits until all is done.

    What `each` raises is raised by a later `write`, or at the end.
    """

    def __init__(self, each: Callable[[bytes], object]) -> None:
        import threading

        self._each = each
        self._pieces: deque[bytes] = deque()
        self._failure: BaseException | None = None
        self._ended = False
        self._changed = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Hand on a piece, which must not change any more; waits while many are under way."""
        with self._changed:
            while len(self._pieces) >= DEPTH * 4 and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            self._pieces.append(data)
            self._changed.notify_all()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        with self._changed:
            if kind is not None:
                self._pieces.clear()
            self._ended = True
            self._changed.notify_all()
        self._thread.join()  # `each` writes to files, which ends
        if kind is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pieces and not self._ended:
                    self._changed.wait()
                if not self._pieces:
                    return
                piece = self._pieces[0]
            try:
                self._each(piece)
            except BaseException as exc:  # handed on to whoever writes
                self._failure = exc
            with self._changed:
                if self._failure is not None:
                    self._pieces.clear()
                    self._ended = True
                elif self._pieces:
                    self._pieces.popleft()
                self._changed.notify_all()


def close_all(stages: Sequence[Ahead]) -> None:
    """Close stages that read from each other."""
    for stage in stages:
        stage.stop()
    for stage in stages:
        stage.close()
