"""Blobs that arrive over a network: what came is kept under its digest for the next try, and one at a time writes.

    with open_partial(paths, digest, lease) as partial:      waits while another process or thread has it
        partial.kept                                         bytes of an earlier try, which `write` must be given again
        partial.write(data) … ; partial.commit(digest, size)

Rules: ingest/partial-<hex> carries an flock(2) for as long as somebody works on it.  A commit links it into the layout,
so that the lock stays where others look for it until the snapshot is made too.  Kept bytes are not believed: they are
hashed again like those that arrive, and content with another digest is discarded.  A partial blob that nobody works on
is left for a day, then the collector takes it.
"""

from __future__ import annotations

import fcntl
import os
import time

from sampan.errors import IntegrityError
from sampan.oci import digest as digests
from sampan.store import files
from sampan.store.content import Ingest
from sampan.store.leases import LIFETIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sampan.store.leases import Lease
    from sampan.store.paths import Paths

PREFIX = "partial-"
_NOTICE = 30.0  # seconds in which one who holds it has to move, or he is not waited for any more
_LEAST = 1 << 20  # bytes to move by: his source may be one that drips so that others wait
_POLL = 0.05


class Partial(Ingest):
    """An ingest that begins where an earlier one stopped."""

    __slots__ = ("_committed", "_digest", "kept")

    def __init__(self, paths: Paths, digest: str, fd: int, path: str, lease: Lease | None) -> None:
        self.size = self._started = 0
        self._synced = -1
        self.kept = os.fstat(fd).st_size
        self._paths = paths
        self._lease = lease
        self._hash = digests.Growing()
        self._path = path
        self._fd = fd
        self._digest = digest
        self._committed = False
        self._crc = None
        self._in_hole = False  # never: the size of the file says what is kept
        os.lseek(fd, 0, os.SEEK_END)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; what is kept already is only hashed.  On a full disk all of it is given up."""
        self._hash.update(data)
        fresh = memoryview(data)[max(0, self.kept - self.size) :]
        self.size += len(data)
        if self._committed:
            return
        try:
            files.write_all(self._fd, fresh)
        except OSError as exc:
            self.discard()
            raise files.failure(f"write a blob in {self._paths.ingest}", exc) from exc
        self._start_writing()

    def read(self, count: int, at: int) -> bytes:
        """Give up to `count` of the kept bytes."""
        return os.pread(self._fd, min(count, self.kept - at), at)

    def discard(self) -> None:
        """Forget what was kept and what was written; begin again at 0.

        What was committed is a blob of the store by now, and stays: it is compared with what comes, not written again.
        """
        if not self._committed:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self.kept = os.fstat(self._fd).st_size
        self.size = self._started = 0
        self._synced = -1
        self._hash = digests.Growing()

    def commit(self, expected: str = "", size: int = -1) -> tuple[str, int]:
        """As Ingest.commit; the lock is kept until `close`."""
        digest = digests.PREFIX + self._hash.hexdigest()
        try:
            self._check(digest, expected or self._digest, size)
            if self._lease is not None:
                self._lease.hold(digest)
            self._publish(digest)
        except IntegrityError:
            self.discard()
            raise
        except OSError as exc:
            raise files.failure(f"commit blob {digest}", exc) from exc
        self._committed = True
        return digest, self.size

    def _check(self, digest: str, expected: str, size: int) -> None:
        super()._check(digest, expected, size)
        if self.size < self.kept:
            raise IntegrityError(f"content of {digest} ended after {self.size} bytes, {self.kept} were here before")

    def _place(self, target: str) -> None:
        temporary = f"{os.path.dirname(self._paths.blobs)}/{files.temporary_name()}"
        os.link(self._path, temporary)
        os.rename(temporary, target)
        self._committed = True  # whatever comes: the file is a blob now

    def abort(self) -> None:
        """Stop writing; what came is kept, and the lock too, until `close`."""

    def close(self) -> None:
        """Give up the lock; the file goes when it is empty or committed."""
        if self._fd < 0:
            return
        if self._committed or os.fstat(self._fd).st_size == 0:
            files.unlink(self._path)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.abort()


class Opened:
    """Hold a partial blob, or with `partial` None know that another holds it and does not go on."""

    __slots__ = ("partial",)

    def __init__(self, partial: Partial | None) -> None:
        self.partial = partial

    def __enter__(self) -> Partial | None:
        return self.partial

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.partial is not None:
            self.partial.close()


def open_partial(
    paths: Paths,
    digest: str,
    lease: Lease | None = None,
    waiting: Callable[[int], None] = lambda size: None,
    patience: float = _NOTICE,
) -> Opened:
    """Take the partial blob of a digest, waiting for whoever has it; `waiting` is told how much that one has.

    One who has it and hardly moves in `patience` seconds (stopped, or served by a peer that means harm) is not waited
    for: then the content has to be ingested beside it.
    """
    path = f"{paths.ingest}/{PREFIX}{digests.hex_of(digest)}"
    try:
        fd = _locked(path, waiting, patience)
    except OSError as exc:
        raise files.failure(f"begin a blob in {paths.ingest}", exc) from exc
    return Opened(None if fd < 0 else Partial(paths, digest, fd, path, lease))


def _locked(path: str, waiting: Callable[[int], None], patience: float) -> int:
    """Open and lock the file that has this name when the lock is there: its last holder may have unlinked it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _wait(fd, waiting, patience):
                os.close(fd)
                return -1
            mine = os.fstat(fd)
            if mine.st_nlink == 1 and _is_same(path, mine):
                return fd
            if mine.st_nlink > 1:
                files.unlink(path)  # a crash came between a commit's link and its end: that inode is a blob now
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _wait(fd: int, waiting: Callable[[int], None], patience: float) -> bool:
    moved, size = time.monotonic(), os.fstat(fd).st_size
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            now = os.fstat(fd).st_size
        if not size <= now < size + _LEAST:
            moved, size = time.monotonic(), now
        elif time.monotonic() - moved > patience:
            return False
        waiting(now)
        time.sleep(_POLL)


def _is_same(path: str, mine: os.stat_result) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)


def remove_stale(path: str, *, whatever_age: bool = False) -> bool:
    """Remove a partial blob that nobody has and that is empty or a day old (either way: clocks jump); tell whether."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if not whatever_age and found.st_size and found.st_nlink == 1 and abs(time.time() - found.st_mtime) < LIFETIME:
            return False
        if _is_same(path, found):
            files.unlink(path)  # with the lock: who waits for it sees that it has gone
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
