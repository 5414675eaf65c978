"""A reserve of space on the store's disk, given back when the disk is full and taken again when there is room.

What the database needs to list, stop and remove it has anyway (store/walfiles.py); the reserve is for its growth, and
for the few small files that belong to a removal.
"""

from __future__ import annotations

import os

from sampan.store import files, walfiles
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = 1 << 20
_SIZES = (BYTES, BYTES >> 1, BYTES >> 2, BYTES >> 4)
HINT = "free some space, for example with `sampan rm` and `sampan rmi`"


def make(paths: Paths) -> None:
    """Set space aside, so that a store on a full disk can still list, stop and remove; what there is, if that is less.

    Without any room for it the store works without, until the disk is full.
    """
    try:
        walfiles.reserve_log(paths.database)
        fd = os.open(paths.reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        for size in _SIZES:
            if os.fstat(fd).st_size >= size or _allocate(fd, size):
                return
        release(paths)
    finally:
        os.close(fd)


def _allocate(fd: int, size: int) -> bool:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        return False
    return True


def is_whole(paths: Paths) -> bool:
    """Tell whether all of the reserve is there."""
    try:
        return os.stat(paths.reserve).st_size >= BYTES
    except OSError:
        return False


def release(paths: Paths) -> bool:
    """Give the reserve back to the disk; tell whether there was one."""
    try:
        os.unlink(paths.reserve)
    except OSError:
        return False
    return True


def is_full(root: str, times: int = 1) -> bool:
    """Tell whether less than the reserve, or so many of it, is free on the disk of `root`, or no file can be made."""
    try:
        space = os.statvfs(root)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < BYTES * times or files.has_no_inode(space)


def fault(root: str) -> str:
    """Say what a full disk lacks."""
    return "the disk has no inode left" if files.has_no_inode(os.statvfs(root)) else "the disk is full"


def spend(paths: Paths, action: Callable[[], None]) -> None:
    """Do what belongs to a removal or an end; where the disk is full, with the reserve given up for it."""
    try:
        action()
    except OSError as exc:
        if exc.errno not in files.FULL or not release(paths):
            raise
        action()
