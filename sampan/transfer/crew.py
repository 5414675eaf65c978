"""A few threads that do a list of jobs: the first failure, or Ctrl-C, ends them all.

The caller's thread only waits, so that a signal's exception finds it.  A job that blocks in the network is freed by
`interrupt`; one that does not end within a second and a half is left behind, as its process may be.
"""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Job = Callable[[], None]

_LEAVE = 1.5  # seconds


class Crew:
    """Run jobs in up to `size` threads; what `stopping` holds is called once when the rest shall stop."""

    def __init__(self, size: int, interrupt: Callable[[], None]) -> None:
        self._size = size
        self.stopping = [interrupt]
        self._jobs: list[Job] = []
        self._failure: BaseException | None = None
        self._stopped = False
        # Not Thread.join: in CPython up to 3.12 one that a signal interrupts takes the thread for ended (gh-90882).
        self._changed = threading.Condition()
        self._working = 0

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs; raise what the first one that failed raised."""
        self._jobs = list(reversed(jobs))
        try:
            for _ in range(min(self._size, len(jobs))):
                self._start()
            with self._changed:
                while self._working and self._failure is None:
                    self._changed.wait(0.2)
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self._stop()
            raise

    def _start(self) -> None:
        with self._changed:
            self._working += 1
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                job()
        except BaseException as exc:  # noqa: B036  (raised again by run)
            self._failure = self._failure or exc
        with self._changed:
            self._working -= 1
            self._changed.notify_all()

    def _next(self) -> Job | None:
        with self._changed:
            return self._jobs.pop() if self._jobs and not self._stopped else None

    def _stop(self) -> None:
        until = time.monotonic() + _LEAVE
        with self._changed:
            self._stopped = True
        for interrupt in self.stopping:
            interrupt()
        with self._changed:
            while self._working and time.monotonic() < until:
                self._changed.wait(max(0.01, until - time.monotonic()))
