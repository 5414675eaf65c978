"""The build context: a directory of the host, seen as a closed tree that .dockerignore has thinned.

Nothing outside can be reached, whatever the context holds and whoever changes it meanwhile: the root is one held
descriptor, and every step down opens one component with O_NOFOLLOW. Only a source that the Dockerfile names is
followed through symbolic links, by this file, below the root: absolute links and `..` stay inside, as in a chroot. A
file is read only while it is the file that was listed (device, inode, size, mtime and ctime); one that changed in
between is an error, never a mixture.
"""

from __future__ import annotations

import os
import stat

from sampan.dockerfile.ignore import Patterns
from sampan.dockerfile.wildcard import Wildcard, has_wildcard
from sampan.errors import Conflict, Denied, InvalidArgument, NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A fifo in the context must not stop the build: O_NONBLOCK opens it at once, and the type check then refuses it.
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_LINKS = 40  # path_resolution(7): MAXSYMLINKS
_DEPTH = 400
_LONGEST = 4096  # PATH_MAX of Linux
_TEXT = 16 << 20
_LETTERS = {stat.S_IFREG: "F", stat.S_IFDIR: "D", stat.S_IFLNK: "L", stat.S_IFIFO: "P"}


class File:
    """Hold one thing found in the context: its path there, its name below the source, and its stat at that moment.

    `digest` is what the key of a step says of a regular file's content, once it is known.
    """

    __slots__ = ("digest", "kind", "link", "name", "path", "stat")

    def __init__(self, path: str, name: str, kind: str, found: os.stat_result, link: str = "") -> None:
        self.path = path
        self.name = name
        self.kind = kind
        self.stat = found
        self.link = link
        self.digest = ""

    @property
    def mode(self) -> int:
        """Give the permission bits."""
        return self.stat.st_mode & 0o7777

    def same(self, other: os.stat_result) -> bool:
        """Say whether `other` describes the same, unchanged file."""
        return identity(self.stat) == identity(other)


def identity(found: os.stat_result) -> tuple[int, int, int, int, int]:
    """Give what changes when a file does."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Context:
    """Own the descriptor of a context's root; close it, or use it in a `with` statement."""

    def __init__(self, fd: int, patterns: Patterns | None = None) -> None:
        self.fd = fd
        self.patterns = patterns or None  # an empty list of patterns costs nothing

    @classmethod
    def open(cls, directory: str) -> Context:
        """Open a directory as a context; it may itself be reached through a symbolic link."""
        try:
            return cls(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise NotFound(f"cannot use the build context {directory}: {error.strerror}") from error

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def resolve(self, path: str) -> str:
        """Give the path below the root that `path` names, with every symbolic link followed inside the root."""
        wanted, links = _parts(path), 0
        real: list[str] = []
        while wanted:
            part = wanted.pop(0)
            if part == "..":
                del real[-1:]
                continue
            found = self._lstat("/".join([*real, part]))
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _LINKS:
                    raise InvalidArgument(f"cannot use {path} of the build context: too many symbolic links")
                target = self._readlink("/".join([*real, part]))
                real = [] if target.startswith("/") else real
                wanted[:0] = _parts(target)
            else:
                real.append(part)
        return "/".join(real)

    def _at(self, path: str) -> tuple[int, str]:
        """Open the directory that holds `path`, component by component; give it and the last name."""
        parts = path.split("/")
        at = os.dup(self.fd)
        try:
            for part in parts[:-1]:
                below = os.open(part, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
        except OSError:
            os.close(at)
            raise
        return at, parts[-1]

    def _lstat(self, path: str) -> os.stat_result:
        if not path:
            return os.fstat(self.fd)
        at, name = self._at(path)
        try:
            return os.stat(name, dir_fd=at, follow_symlinks=False)
        finally:
            os.close(at)

    def _readlink(self, path: str) -> str:
        at, name = self._at(path)
        try:
            return os.readlink(name, dir_fd=at)
        finally:
            os.close(at)

    def directory(self, path: str) -> int:
        """Open a directory of the context by its resolved path."""
        if not path:
            return os.dup(self.fd)
        at, name = self._at(path)
        try:
            return os.open(name, _DIRECTORY, dir_fd=at)
        finally:
            os.close(at)

    def ignored(self, path: str, is_dir: bool = False) -> bool:
        """Say whether .dockerignore leaves this path out."""
        return bool(path) and self.patterns is not None and self.patterns.matches(path, is_dir)

    def read(self, path: str) -> bytes:
        """Read a small file that is named by the caller, such as the Dockerfile; NotFound when it is not there."""
        try:
            real = self.resolve(path)
            found = self._lstat(real)
            if not stat.S_ISREG(found.st_mode):
                what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
                raise InvalidArgument(f"cannot read {path} of the build context: it is {what}")
            with self.opened(File(real, "", "F", found)) as reader:
                data = b"".join(reader.chunks(_TEXT + 1))
        except OSError as error:
            raise _failure(path, error) from error
        if len(data) > _TEXT:
            raise InvalidArgument(f"cannot read {path}: it is larger than {_TEXT >> 20} MiB")
        return data

    def sources(self, pattern: str) -> list[tuple[str, str]]:
        """Give (name, resolved path) of all that a COPY source names, in order; an empty list when nothing does."""
        if len(pattern) > _LONGEST:
            raise InvalidArgument(f"cannot copy {pattern[:60]}…: the path is longer than {_LONGEST} characters")
        if not has_wildcard(pattern):
            return self._source(pattern)
        clean = os.path.normpath("/" + pattern).lstrip("/").split("/")
        names = [""]
        for part in clean:
            names = [name for prefix in names for name in self._matches(prefix, part)]
        return [source for name in names for source in self._source(name)]

    def _source(self, name: str) -> list[tuple[str, str]]:
        try:
            real = self.resolve(name)
            self._lstat(real)
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                return []
            raise _failure(name, error) from error
        return [(name, real)]

    def _matches(self, prefix: str, part: str) -> list[str]:
        """List what `part` matches in one directory, which a wildcard does not reach through a symbolic link."""
        try:
            wanted = Wildcard(part)
        except ValueError as error:
            raise InvalidArgument(f"cannot use the source {part}: {error}") from error
        try:
            at = self.directory(prefix)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error.errno == 40:  # ELOOP: a symbolic link
                return []
            raise _failure(prefix, error) from error
        try:
            names = sorted(name for name in os.listdir(at) if wanted.matches(name))
        finally:
            os.close(at)
        paths = [f"{prefix}/{name}" if prefix else name for name in names]
        return [path for path in paths if not self.ignored(path)]

    def walk(self, path: str) -> list[File]:
        """List what is at a resolved path: the thing itself (name ""), then all that is not ignored below, sorted."""
        try:
            found = self._lstat(path)
            files: list[File] = []
            if not stat.S_ISDIR(found.st_mode):
                return [self._file(path, "", found, -1, "")]
            at = self.directory(path)
            files.append(File(path, "", "D", found))
            self._descend(at, f"{path}/" if path else "", "", files, 0)
        except OSError as error:
            raise _failure(path, error) from error
        return files

    def file(self, path: str) -> File:
        """Describe one thing at a resolved path."""
        try:
            return self._file(path, "", self._lstat(path), -1, "")
        except OSError as error:
            raise _failure(path, error) from error

    def names(self, path: str) -> list[str]:
        """List the names in a directory that are not ignored."""
        try:
            at = self.directory(self.resolve(path))
            try:
                found = os.listdir(at)
            finally:
                os.close(at)
        except OSError as error:
            raise _failure(path, error) from error
        return sorted(name for name in found if not self.ignored(f"{path}/{name}" if path else name))

    def _file(self, path: str, name: str, found: os.stat_result, at: int, last: str) -> File:
        kind = _LETTERS.get(stat.S_IFMT(found.st_mode), "")
        if not kind:
            raise InvalidArgument(f"cannot copy {path}: a socket or device of the build context cannot be copied")
        link = "" if kind != "L" else os.readlink(last, dir_fd=at) if at >= 0 else self._readlink(path)
        return File(path, name, kind, found, link)

    def _descend(self, at: int, prefix: str, name: str, files: list[File], depth: int) -> None:
        """List one directory and what is below; takes the descriptor."""
        try:
            if depth > _DEPTH:
                raise InvalidArgument(f"cannot copy {prefix}: it is nested more than {_DEPTH} directories deep")
            with os.scandir(at) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
            for child in children:
                path = prefix + child.name
                is_dir = child.is_dir(follow_symlinks=False)
                left_out = self.ignored(path, is_dir)
                if left_out and not (is_dir and self._holds_exceptions(path)):
                    continue
                self._child(at, child, path, f"{name}{child.name}", left_out, files, depth)
        finally:
            os.close(at)

    def _child(
        self, at: int, child: os.DirEntry[str], path: str, name: str, left_out: bool, files: list[File], depth: int
    ) -> None:
        found = child.stat(follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            if left_out:
                return  # it was a directory a moment ago
            if stat.S_ISSOCK(found.st_mode):
                return  # as in Docker: a socket left by a running program is no part of a context
            files.append(self._file(path, name, found, at, child.name))
            return
        below = os.open(child.name, _DIRECTORY, dir_fd=at)
        count = len(files)
        files.append(File(path, name, "D", found))
        self._descend(below, f"{path}/", f"{name}/", files, depth + 1)
        if left_out and len(files) == count + 1:
            files.pop()  # nothing in an ignored directory was taken back by a later `!` pattern

    def _holds_exceptions(self, path: str) -> bool:
        return self.patterns is not None and not self.patterns.is_skippable(path)

    def opened(self, file: File) -> Reader:
        """Open a listed file for reading; Conflict when it is no longer the same."""
        try:
            at, name = self._at(file.path)
            try:
                fd = os.open(name, _REGULAR, dir_fd=at)
            finally:
                os.close(at)
        except OSError as error:
            raise _failure(file.path, error) from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not file.same(found):
            os.close(fd)
            raise changed(file.path)
        return Reader(fd, file)


class Reader:
    """Read one opened file to its end, and check that it did not change while being read."""

    def __init__(self, fd: int, file: File) -> None:
        self.fd = fd
        self.file = file
        self._left = file.stat.st_size

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes from where the last read ended; none means the end, at the listed size."""
        data = os.read(self.fd, min(count, self._left))
        if not data and count and self._left:
            raise changed(self.file.path)
        self._left -= len(data)
        return data

    def chunks(self, limit: int = 1 << 62) -> Iterator[bytes]:
        """Give the content in pieces, at most the listed size."""
        while data := self.read(min(limit, 1 << 20)):
            limit -= len(data)
            yield data
        self.check()

    def check(self) -> None:
        """Raise Conflict when the file is not as it was listed any more."""
        if not self.file.same(os.fstat(self.fd)):
            raise changed(self.file.path)


def changed(path: str) -> SampanError:
    """Make the error for a file that is not what it was a moment ago."""
    return Conflict(
        f"cannot copy {path}: it changed while it was read", "build again when nothing writes to the context"
    )


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."]


def _failure(path: str, error: OSError) -> SampanError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotFound(f"cannot read {path or '.'} of the build context: {error.strerror}")
    if error.errno == 40:  # ELOOP: a directory was exchanged for a symbolic link after it was listed
        return changed(path)
    return Denied(f"cannot read {path or '.'} of the build context: {error.strerror}")
