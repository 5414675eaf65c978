"""What several parts of the store do with files: durable replacement, syncing, and removing a hostile tree.

Rules: nothing here follows a symbolic link below the path that it was given; OSErrors are translated by `failure`.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan import rights
from sampan.errors import Denied, IntegrityError, SampanError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TEMPORARY = ".new-"  # begins the name of a file that becomes visible by a rename; its owner follows
GONE = ".gone-"  # begins the name of a directory that is being removed
PROBE = ".sampan-probe-"  # begins the name of a directory in which `doctor` tries something; its owner follows
READ_ONLY = "mount its file system read-write, or set SAMPAN_ROOT to another directory"
_DEPTH = 100  # levels that a removal holds open at once
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def failure(action: str, exc: OSError) -> SampanError:
    """Return our error for an OSError met while doing `action`."""
    message = f"cannot {action}: {exc.strerror or exc}"
    if exc.errno in FULL:
        what = "inodes, which are used up" if _lacks_inodes(exc) else "space"
        return Unavailable(message, f"free some {what}, for example with `sampan rm` and `sampan rmi`")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(message, READ_ONLY if exc.errno == errno.EROFS else "")
    if exc.errno == errno.EIO:
        return IntegrityError(message, "the disk may be failing")
    return Unavailable(message)


def is_read_only(directory: str) -> bool:
    """Tell whether a directory's file system is mounted read-only."""
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _lacks_inodes(exc: OSError) -> bool:
    if not isinstance(exc.filename, str):
        return False
    try:
        space = os.statvfs(os.path.dirname(exc.filename) or ".")
    except OSError:
        return False
    return has_no_inode(space)


def has_no_inode(space: os.statvfs_result) -> bool:
    """Tell whether all files that a file system can have are there; those that make inodes at need count none."""
    return space.f_favail == 0 and space.f_files > 0


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: str) -> None:
    """Make everything on the file system of `path` durable, with the errors of its writes reported (syncfs(2))."""
    import ctypes

    fd = os.open(path, _DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)


def temporary_name() -> str:
    """Return a fresh name for a file that will be renamed; the collector knows whose it is."""
    from sampan.store import owner

    return f"{TEMPORARY}{owner.this_process()}.{os.urandom(4).hex()}"


def start_writing(fd: int, offset: int, count: int) -> None:
    """Make the disk begin with a part of a file (sync_file_range(2)), so that a later sync has less to wait for."""
    import ctypes

    write = 2  # SYNC_FILE_RANGE_WRITE
    number = ctypes.c_int64
    if ctypes.CDLL(None, use_errno=True).sync_file_range(fd, number(offset), number(count), write) != 0:
        code = ctypes.get_errno()
        if code in (*FULL, errno.EIO):
            raise OSError(code, os.strerror(code))


def replace(path: str, data: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Replace a file by `data`: readers see the old or the new content, also after a power cut."""
    directory = os.path.dirname(path)
    temporary = f"{directory}/{temporary_name()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        sync_directory(directory)


def overwrite(path: str, data: bytes) -> None:
    """Put text in the place of a file's longer one, padded with spaces: this needs no room, but is not atomic."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if len(data) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        write_all(fd, data.ljust(size))
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def unlink(path: str) -> None:
    """Remove a file; a missing one is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


# Of a container that has written no file. Nobody inside reaches `work`: it is overlayfs's own, with a mark where the
# overlay was volatile.
_MARK = "/work/work/incompat/volatile/dirty"
_LAYOUT = ("/work/work/incompat/volatile", "/work/work/incompat", "/work/work", "/work", "/upper", "")


_CLOSED = ("/work/work", "/work/work/incompat", "/work/work/incompat/volatile")  # no user may look into his own


def untouched_home(home: str) -> tuple[int, list[str]]:
    """Give what is in the directory of a container that keeps nothing and has written nothing, as helper/plan.h wants
    it to be removed: how many directories are to be opened first, and the paths of these, a file and all directories.
    """
    closed = _CLOSED if rights.rootless() else ()
    return len(closed), [home + name for name in (*closed, _MARK, *_LAYOUT)]


def remove_untouched_home(home: str) -> bool:
    """Remove the directory of a container that has written no file; say whether it is gone."""
    try:
        for name in _CLOSED if rights.rootless() else ():
            if os.path.lexists(home + name):
                open_up(home + name)
        for name in (_MARK, "/log", "/exit"):
            unlink(home + name)
        for name in _LAYOUT:
            _remove_empty(None, home + name)
    except OSError:  # there is more
        return False
    return True


def below(path: str, *, skip_closed: bool = False) -> Iterator[os.stat_result]:
    """Give the stat of everything below a directory, however deep, with two descriptors; nothing of a missing one.

    Whoever changes the tree meanwhile leads nowhere else: the way down is one name at a time, links are not followed,
    and the way up is `..` as long as that is where we came from. What cannot be found any more is left out.
    A directory that is closed to the caller is a PermissionError, or left out with `skip_closed`.
    """
    at = _enter(path, None, skip_closed)
    if at < 0:
        return
    try:
        trail = [(_identity(at), (yield from _listed(at, skip_closed)))]
        while trail:
            names = trail[-1][1]
            if names:
                under = _enter(names.pop(), at, skip_closed)
                if under >= 0:
                    os.close(at)
                    at = under
                    trail.append((_identity(at), (yield from _listed(at, skip_closed))))
                continue
            trail.pop()
            if trail:
                above = os.open("..", _DIRECTORY, dir_fd=at)
                os.close(at)
                at = above
                if _identity(at) != trail[-1][0]:
                    return  # the directory was moved
    finally:
        os.close(at)


def _enter(name: str, parent: int | None, skip_closed: bool) -> int:
    """Open a directory; -1 when it is not there any more."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        if skip_closed:
            return -1
        raise
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


def _listed(at: int, skip_closed: bool) -> Generator[os.stat_result, None, list[str]]:
    """Give the stat of all that is in one directory; return the names of the directories among them."""
    found = []
    with os.scandir(at) as entries:
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except PermissionError:
                if skip_closed:
                    continue
                raise
            if stat.S_ISDIR(state.st_mode):
                found.append(entry.name)
            yield state
    return found


def _identity(fd: int) -> tuple[int, int]:
    state = os.fstat(fd)
    return state.st_dev, state.st_ino


def remove_tree(path: str) -> None:
    """Remove a directory and all below it, however deep; a missing one is fine, and so is somebody who does the same.

    No link is followed. A mount point left behind stops the removal (EBUSY) before anything on it is lost.
    """
    try:
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, os.path.basename(path))
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Remove one entry of a held directory.

    A directory below _DEPTH levels is first moved to the top: descriptors and levels stay few however deep the tree is.
    """
    if _removed(parent, name) or (fd := _open_own(parent, name)) < 0:
        return
    stack = [(name, fd, names(fd))]
    try:
        while stack:
            name, fd, rest = stack[-1]
            if not rest:
                _remove_empty(stack[-2][1] if len(stack) > 1 else parent, name)
                os.close(stack.pop()[1])
                continue
            entry = rest.pop()
            if _removed(fd, entry):
                continue
            if len(stack) > _DEPTH:
                stack[0][2].extend(_move_up(fd, entry, stack[0][1]))
            elif (below := _open_own(fd, entry)) >= 0:
                stack.append((entry, below, names(below)))
    finally:
        for _, fd, _ in stack:
            os.close(fd)


def _removed(parent: int, name: str) -> bool:
    """Remove a file or an empty directory, and say whether nothing is there any more."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        try:
            _remove_empty(parent, name)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # EBUSY: a mount point, whatever is on it
            return False
    return True


def _remove_empty(parent: int | None, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return  # somebody else was faster


def names(directory: str | int) -> list[str]:
    """Return what is in a directory; nothing in one that is not there, or that was removed while it was held."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _move_up(fd: int, entry: str, top: int) -> list[str]:
    name = f".sampan-{os.urandom(8).hex()}"
    try:
        os.rename(entry, name, src_dir_fd=fd, dst_dir_fd=top)
    except FileNotFoundError:
        return []
    return [name]


def _open_own(parent: int, name: str) -> int:
    """Open a directory to empty it; -1 when it is gone. One of our own that is closed is opened to us.

    overlayfs's work directory is 0000, and an image's directories may be anything.
    """
    try:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except PermissionError:
            open_up(name, parent)
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return -1
    if rights.rootless() and stat.S_IMODE(os.fstat(fd).st_mode) & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def open_up(name: str, parent: int | None = None) -> None:
    """Give oneself all rights on a directory of one's own; what takes its place meanwhile, a link say, is let be."""
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{held}", 0o700)
    finally:
        os.close(held)
