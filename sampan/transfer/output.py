"""What is written to a descriptor that a user gave: bytes, and parts of files that never pass through Python."""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import IntegrityError, Unavailable
from sampan.store import files, wholefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Way = Callable[[int, int, int, int], int]

STEP = 1 << 23
# Not these two files: another file system, a pipe, a file that is only appended to, an old kernel (copy_file_range(2)).
_ELSEWISE = (errno.EXDEV, errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a descriptor that a user gave."""
    try:
        files.write_all(fd, data)
    except OSError as exc:
        raise failure(exc) from exc


def failure(exc: OSError) -> Unavailable:
    """Return the error for output that cannot be written."""
    return wholefile.full(wholefile.UNWRITTEN.removesuffix(": "), exc)


def send(fd: int, source: int, size: int, what: str) -> None:
    """Send the first `size` bytes of the file `source`; `what` names it in errors.

    The disk begins with what goes into a regular file at once: whoever syncs it afterwards has less to wait for.
    """
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    ways: list[Way] = [_copy, _splice, _by_hand] if regular else [_splice, _by_hand]
    at = started = 0
    try:
        while at < size:
            sent = _step(ways, fd, source, at, min(STEP, size - at))
            if not sent:
                raise IntegrityError(f"cannot save the image: {what} became shorter while it was read")
            at += sent
            if regular and at - started >= STEP:
                end = os.lseek(fd, 0, os.SEEK_CUR)
                files.start_writing(fd, end - (at - started), at - started)
                started = at
    except OSError as exc:
        raise failure(exc) from exc


def _step(ways: list[Way], fd: int, source: int, at: int, count: int) -> int:
    """Send a part in the first way that these two descriptors allow; the others are not tried again."""
    while True:
        try:
            return ways[0](fd, source, at, count)
        except OSError as exc:
            if exc.errno not in _ELSEWISE or len(ways) == 1:
                raise
            del ways[0]


def _copy(fd: int, source: int, at: int, count: int) -> int:
    return os.copy_file_range(source, fd, count, at)


def _splice(fd: int, source: int, at: int, count: int) -> int:
    return os.sendfile(fd, source, at, count)


def _by_hand(fd: int, source: int, at: int, count: int) -> int:
    data = os.pread(source, min(count, 1 << 20), at)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)
