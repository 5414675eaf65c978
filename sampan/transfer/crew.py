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
    """Run jobs in up to `size` threads; `interrupt` is called once when the rest shall stop."""

    def __init__(self, size: int, interrupt: Callable[[], None]) -> None:
        self._size = size
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._failure: BaseException | None = None
        self.stopped = threading.Event()

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs; raise what the first one that failed raised."""
        self._jobs = list(reversed(jobs))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(self._size, len(jobs)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive() and self._failure is None:
                    thread.join(0.2)  # not for ever: on some systems a signal does not wake a join
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self._stop(threads)
            raise

    def _work(self) -> None:
        while not self.stopped.is_set():
            with self._lock:
                if not self._jobs:
                    return
                job = self._jobs.pop()
            try:
                job()
            except BaseException as exc:  # noqa: B036  (raised again by run)
                with self._lock:
                    self._failure = self._failure or exc
                return

    def _stop(self, threads: Sequence[threading.Thread]) -> None:
        self.stopped.set()
        self._interrupt()
        until = time.monotonic() + _LEAVE
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
