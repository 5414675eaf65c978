"""The files beside the database, `-wal` and `-shm`: their space is taken once and kept, so that the store opens on a
disk with no byte free.

SQLite alone cuts `-shm` to nothing at every first opening, to fill it anew, and removes both files at the last closing.
What it must reach by that is that no index of before a crash is believed; zeros at its beginning do so too, and keep
its blocks (os_unix.c: "truncated to zero length or have its header cleared"). Hence, around every connection:

- `hold` locks byte 128 of `-shm`, SQLite's deadman switch, as SQLite's own connections do: alone while the header is
  cleared, shared from then on. SQLite finds the lock, and leaves the file as it is.
- Where the connection cannot be told not to fold and remove at its end (Python < 3.12), `hold` also shares the lock
  that SQLite takes alone for that.

The locks belong to open file descriptions (F_OFD_SETLK), which conflict with those of SQLite in the same process too.
Rule: closing any descriptor of these files lets go of all locks that SQLite has on them in this process (fcntl(2)).
So there is one per process and store, closed after the last connection.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from _thread import allocate_lock

INDEX_BYTES = 32 << 10
"""What SQLite maps of `-shm` at once (walformat.html, "WAL-Index File Format")."""
LOG_BYTES = 2 << 20
"""Twice what the log holds before a commit folds it: room for removals while the file cannot grow."""

_HEADER = 136  # bytes: the header twice, the checkpoint's state, the bytes that are only locked
_DEADMAN = (128, 1)
_SHARED = (0x40000002, 510)  # of the database's file (fileformat2.html, "The Lock-Byte Page")
_PATIENCE = 30.0  # seconds
_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class _Held:
    __slots__ = ("fds", "inode", "users")

    def __init__(self, users: int) -> None:
        self.fds: list[int] = []
        self.inode = 0
        self.users = users


_guard = allocate_lock()
_held: dict[str, _Held] = {}


def hold(database: str) -> None:
    """Prepare the index for a connection that is about to be opened; `release` follows when it is closed.

    What fails here is left to SQLite, which tries the same in its own way and names what is wrong.
    """
    with _guard:
        held = _held.get(database)
        if held is None or not _is_current(held, database):
            users = 0
            if held is not None:  # somebody removed the files: no lock on these matters any more
                _close(held.fds)
                users = held.users
            held = _held[database] = _Held(users)
            try:
                _lock(database, held)
            except OSError:
                _close(held.fds)
                held.fds = []
        held.users += 1


def release(database: str) -> None:
    """Say that a connection is closed."""
    with _guard:
        held = _held.get(database)
        if held is None:
            return
        held.users -= 1
        if held.users == 0:
            _close(_held.pop(database).fds)


def reserve_log(database: str) -> None:
    """Take the space of the log, as far as it has not been; OSError when there is not so much."""
    fd = os.open(database + "-wal", os.O_WRONLY | _FLAGS, 0o600)
    try:
        if os.fstat(fd).st_size < LOG_BYTES:
            os.posix_fallocate(fd, 0, LOG_BYTES)
    finally:
        os.close(fd)  # SQLite locks nothing on the log


def forget(database: str) -> None:
    """Remove the files that a lost database left: its log must never be read into another one."""
    for suffix in ("-wal", "-shm"):
        try:
            os.unlink(database + suffix)
        except FileNotFoundError:
            continue


def _lock(database: str, held: _Held) -> None:
    index = os.open(database + "-shm", os.O_RDWR | _FLAGS, 0o600)
    held.fds.append(index)
    state = os.fstat(index)
    held.inode = state.st_ino
    _join(index, state.st_size)
    if sys.version_info < (3, 12):
        held.fds.append(os.open(database, os.O_RDONLY | os.O_CLOEXEC))
        _set(held.fds[1], fcntl.F_RDLCK, _SHARED)


def _join(index: int, size: int) -> None:
    """Share the deadman switch; who finds it free clears the header first, and takes the space where it is not taken.

    The lock is asked for before it is taken, as SQLite does: if one who is about to clear dies, the next one clears.
    """
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        asked = fcntl.fcntl(index, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, _DEADMAN))
        kind = int.from_bytes(asked[:2], sys.byteorder)
        if kind == fcntl.F_UNLCK and _set(index, fcntl.F_WRLCK, _DEADMAN):
            if size < INDEX_BYTES:
                os.posix_fallocate(index, 0, INDEX_BYTES)
            os.pwrite(index, bytes(_HEADER if size >= INDEX_BYTES else INDEX_BYTES), 0)
            kind = fcntl.F_RDLCK
        if kind == fcntl.F_RDLCK and _set(index, fcntl.F_RDLCK, _DEADMAN):
            return
        time.sleep(0.001)


def _flock(kind: int, place: tuple[int, int]) -> bytes:
    """Give a `struct flock` of 64-bit Linux (fcntl(2)): type, whence (SEEK_SET), start, length, pid."""
    start, length = (number.to_bytes(8, sys.byteorder) for number in place)
    return kind.to_bytes(2, sys.byteorder) + bytes(6) + start + length + bytes(8)


def _set(fd: int, kind: int, place: tuple[int, int]) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(kind, place))
    except BlockingIOError:
        return False
    return True


def _is_current(held: _Held, database: str) -> bool:
    if not held.fds:
        return True
    try:
        return os.stat(database + "-shm").st_ino == held.inode
    except OSError:
        return False


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
