"""The caller's own files, as the other side of a copy: read as entries, written from entries, by descriptors only.

Reading: nothing below the source is followed; a file is what its descriptor says.  Writing: below a directory that is
held open every step takes one component with O_NOFOLLOW: a symbolic link that was copied, or that somebody puts
there meanwhile, leads nowhere.  A file appears under its name when it is whole.  All of it comes from a container: what
gives rights on the host (set-user-ID bits, capabilities) is taken over with owners only, and devices never are.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import Conflict, Denied, IntegrityError, NotFound, SampanError, Unavailable
from sampan.oci import entry as kinds
from sampan.oci.entry import Entry
from sampan.store import files, unnamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.oci.entry import Content

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a fifo that takes the place of a file must not stop the copy.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_LETTERS = {
    stat.S_IFREG: kinds.FILE,
    stat.S_IFDIR: kinds.DIRECTORY,
    stat.S_IFLNK: kinds.SYMLINK,
    stat.S_IFIFO: kinds.FIFO,
    stat.S_IFCHR: kinds.CHAR_DEVICE,
    stat.S_IFBLK: kinds.BLOCK_DEVICE,
}


def failure(verb: str, path: str, exc: OSError) -> SampanError:
    """Translate what the host said about one of the caller's files."""
    message = f"cannot {verb} {path}: {exc.strerror}"
    if isinstance(exc, FileNotFoundError):
        return NotFound(message)
    if isinstance(exc, PermissionError):
        return Denied(message)
    if isinstance(exc, (NotADirectoryError, IsADirectoryError, FileExistsError)):
        return Conflict(message)
    return Unavailable(message, "free some space there, or copy to elsewhere" if exc.errno in files.FULL else "")


# ---- reading ----


class Reader:
    """Give the files at a path of the host as entries named below it; each with a descriptor, or -1."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._links: dict[tuple[int, int], bytes] = {}

    def __iter__(self) -> Iterator[tuple[Entry, int]]:
        parent, name = os.path.split(self.path.rstrip("/") or "/")
        try:
            at = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise failure("read", self.path, exc) from exc
        # Held directories: descriptor, path (None above the source), names to come.  As deep as descriptors go.
        stack: list[tuple[int, bytes | None, list[bytes]]] = [(at, None, [os.fsencode(name or ".")])]
        try:
            while stack:
                held, path, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    continue
                last = names.pop()
                below = b"" if path is None else path + b"/" + last if path else last
                entry, fd = self._open(held, last, below)
                if entry is None:
                    continue
                if entry.type == kinds.DIRECTORY:
                    stack.append((fd, below, self._names(fd, below)))
                    yield entry, fd
                    continue
                try:
                    yield entry, fd
                finally:
                    if fd >= 0:
                        os.close(fd)
        finally:
            for held, _, _ in stack:
                os.close(held)

    def _shown(self, path: bytes) -> str:
        return os.path.join(self.path, os.fsdecode(path)) if path else self.path

    def _names(self, fd: int, path: bytes) -> list[bytes]:
        """List a directory, the first name last."""
        try:
            return sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
        except OSError as exc:
            raise failure("read", self._shown(path), exc) from exc

    def _open(self, at: int, name: bytes, path: bytes) -> tuple[Entry | None, int]:
        """Describe one file and open what has contents; None for a socket, which no archive has."""
        try:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            letter = _LETTERS.get(stat.S_IFMT(found.st_mode), "")
            if not letter:
                return None, -1
            if letter not in (kinds.FILE, kinds.DIRECTORY):
                return self._entry(at, name, path, letter, found, -1), -1
            fd = os.open(name, _DIRECTORY if letter == kinds.DIRECTORY else _FILE, dir_fd=at)
        except OSError as exc:
            raise failure("read", self._shown(path), exc) from exc
        try:
            found = os.fstat(fd)
            if _LETTERS.get(stat.S_IFMT(found.st_mode)) != letter:
                raise Conflict(f"cannot read {self._shown(path)}: it became something else meanwhile")
            return self._entry(at, name, path, letter, found, fd), fd
        except BaseException:
            os.close(fd)
            raise

    def _entry(self, at: int, name: bytes, path: bytes, letter: str, found: os.stat_result, fd: int) -> Entry:
        seconds, nanoseconds = divmod(found.st_mtime_ns, 1_000_000_000)
        entry = Entry(letter, path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, seconds, nanoseconds)
        if letter != kinds.DIRECTORY and found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                entry.type, entry.link = kinds.HARD_LINK, first
                return entry
        if letter == kinds.FILE:
            entry.size = found.st_size
        elif letter == kinds.SYMLINK:
            entry.link = os.fsencode(os.readlink(name, dir_fd=at))
        elif letter in (kinds.CHAR_DEVICE, kinds.BLOCK_DEVICE):
            entry.major, entry.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        if fd >= 0:
            entry.xattrs = _xattrs(fd)
        return entry


def _xattrs(fd: int) -> dict[bytes, bytes] | None:
    try:
        names = [name for name in os.listxattr(fd) if kinds.xattr_accepted(os.fsencode(name))]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names} or None
    except OSError:
        return None  # this file system has none


# ---- writing ----


class _Level:
    """A directory that is being filled: its descriptor, its name, and the metadata that it gets at the end."""

    __slots__ = ("entry", "fd", "name")

    def __init__(self, fd: int, name: bytes, entry: Entry | None = None) -> None:
        self.fd = fd
        self.name = name
        self.entry = entry


class Writer:
    """Write entries below a directory of the host, within a `with` block; `owners` keeps ids where it can."""

    def __init__(self, base: str, owners: bool = False) -> None:
        self.base = base
        self.owners = owners
        self.devices = 0
        self._left_out: set[bytes] = set()  # devices with several names: no name of theirs is made, or taken for theirs
        self.unowned = 0
        self.size = 0
        self._levels: list[_Level] = []

    def __enter__(self) -> Writer:
        try:
            fd = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._levels = [_Level(fd, b"")]
            unnamed.sweep(fd)
        except OSError as exc:
            raise failure("write to", self.base, exc) from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        while self._levels:
            if kind is None:
                self._leave()
            else:
                os.close(self._levels.pop().fd)

    def add(self, entry: Entry, content: Content) -> None:
        """Write one entry; directories before what is in them."""
        *parents, name = entry.path.split(b"/")
        if any(part in (b"", b".", b"..") or b"\0" in part for part in (*parents, name)):
            raise IntegrityError(f"cannot write {entry.path!r}: it is no name below a directory")
        try:
            at = self._enter(parents)
            self._make(at, os.fsdecode(name), entry, content)
        except OSError as exc:
            raise failure("write", self._shown(entry.path), exc) from exc

    def _shown(self, path: bytes) -> str:
        return os.path.join(self.base, os.fsdecode(path))

    def _enter(self, parents: list[bytes]) -> int:
        """Stand in a directory that was written before."""
        same = 0
        while same < len(parents) and same + 1 < len(self._levels) and self._levels[same + 1].name == parents[same]:
            same += 1
        while len(self._levels) > same + 1:
            self._leave()
        for part in parents[same:]:
            self._levels.append(_Level(os.open(part, _DIRECTORY, dir_fd=self._levels[-1].fd), part))
        return self._levels[-1].fd

    def _leave(self) -> None:
        level = self._levels.pop()
        try:
            if level.entry is not None:
                self._finish(level.fd, level.entry)
        except OSError as exc:
            raise failure("finish", self._shown(level.entry.path if level.entry else b""), exc) from exc
        finally:
            os.close(level.fd)

    def _make(self, at: int, name: str, entry: Entry, content: Content) -> None:
        if entry.type == kinds.DIRECTORY:
            self._directory(at, name, entry)
            return
        self._check_way(at, name, entry)
        is_device = entry.type in (kinds.CHAR_DEVICE, kinds.BLOCK_DEVICE)
        if is_device or (entry.type == kinds.HARD_LINK and entry.link in self._left_out):
            self._left_out.add(entry.path)
            self.devices += 1
            return
        if entry.type == kinds.FILE:
            self._file(at, name, entry, content)
            return
        fresh = unnamed.temporary_name()
        try:
            if entry.type == kinds.HARD_LINK:
                self._link(at, fresh, entry)
            else:
                self._special(at, fresh, entry)
            os.rename(fresh, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            _remove(at, fresh)
            raise
        if entry.type == kinds.HARD_LINK:
            _remove(at, fresh)  # rename(2) does nothing where both are names of one file already

    def _check_way(self, at: int, name: str, entry: Entry) -> None:
        if _kind(at, name) == kinds.DIRECTORY:
            raise Conflict(f"cannot overwrite directory {self._shown(entry.path)} with a file")

    def _directory(self, at: int, name: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=at)
        except FileExistsError:
            if _kind(at, name) != kinds.DIRECTORY:
                raise Conflict(f"cannot overwrite {self._shown(entry.path)} with a directory") from None
            self._levels.append(_Level(os.open(name, _DIRECTORY, dir_fd=at), os.fsencode(name), entry))
            unnamed.sweep(self._levels[-1].fd)
            return
        self._levels.append(_Level(os.open(name, _DIRECTORY, dir_fd=at), os.fsencode(name), entry))

    def _file(self, at: int, name: str, entry: Entry, content: Content) -> None:
        with unnamed.Unnamed(at) as file:
            for offset, data in content:
                view = memoryview(data)
                while view:
                    done = os.pwrite(file.fd, view, offset)
                    view, offset = view[done:], offset + done
            os.ftruncate(file.fd, entry.size)
            self._finish(file.fd, entry)
            file.publish(name)
        self.size += entry.size

    def _link(self, at: int, name: str, entry: Entry) -> None:
        """Give an earlier file of this copy another name; it is found without following anything."""
        *parents, last = entry.link.split(b"/")
        held = os.dup(self._levels[0].fd)
        try:
            for part in parents:
                below = os.open(part, _DIRECTORY, dir_fd=held)
                os.close(held)
                held = below
            os.link(last, os.fsencode(name), src_dir_fd=held, dst_dir_fd=at, follow_symlinks=False)
        finally:
            os.close(held)

    def _special(self, at: int, name: str, entry: Entry) -> None:
        if entry.type == kinds.SYMLINK:
            os.symlink(entry.link, os.fsencode(name), dir_fd=at)
        else:
            os.mkfifo(name, entry.mode & 0o777, dir_fd=at)
        if self.owners:
            self._own(lambda: os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False))
        os.utime(name, ns=_times(entry), dir_fd=at, follow_symlinks=False)

    def _own(self, change: object) -> bool:
        try:
            change()  # type: ignore[operator]
        except PermissionError:
            self.unowned += 1
            return False
        return True

    def _finish(self, fd: int, entry: Entry) -> None:
        """Set owner, mode, attributes and times, in this order: chown(2) clears what chmod(2) sets."""
        mode = entry.mode & 0o1777
        privileged = self.owners and self._own(lambda: os.fchown(fd, entry.uid, entry.gid))
        os.fchmod(fd, entry.mode & 0o7777 if privileged else mode)
        for name, value in (entry.xattrs or {}).items():
            if name.startswith(b"user.") or (privileged and name == b"security.capability"):
                _set_xattr(fd, name, value)
        os.utime(fd, ns=_times(entry))


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError:
        return  # the file system here has none, or no room for more: as cp(1), which does not copy them either


def _times(entry: Entry) -> tuple[int, int]:
    moment = entry.mtime_sec * 1_000_000_000 + entry.mtime_nsec
    return moment, moment


def _kind(at: int, name: str) -> str:
    try:
        return _LETTERS.get(stat.S_IFMT(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode), "?")
    except FileNotFoundError:
        return ""


def _remove(at: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=at)
    except FileNotFoundError:
        return
