"""Where an image is loaded from: an OCI layout directory, or an archive in a file or a pipe, compressed or not.

Both are names with content behind them.  A directory is entered by descriptor and its files are opened below it
without following links; an archive that cannot be sought in is first copied to an unnamed file beside the store's
ingests, of which nothing is left when the process dies.  No content is written under a name that an archive gives.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import IntegrityError, InvalidArgument, NotFound, SampanError, Unavailable
from sampan.oci.tarheader import BLOCK
from sampan.store import files
from sampan.transfer import codec, found
from sampan.transfer.ahead import Ahead
from sampan.transfer.tarindex import Index, check_first

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

STEP = 1 << 20
_MAX_LINKS = 8


class Part:
    """Read one member, `size` bytes of it; closes the descriptor if it was opened for it."""

    __slots__ = ("_at", "_end", "_fd", "_own", "size", "what")

    def __init__(self, fd: int, offset: int, size: int, what: str, own: bool = False) -> None:
        self.size = size
        self.what = what
        self._fd = fd
        self._at = offset
        self._end = offset + size
        self._own = own

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        want = min(count, self._end - self._at)
        if want <= 0:
            return b""
        data = os.pread(self._fd, want, self._at)
        if not data:
            raise IntegrityError(f"cannot read {self.what}: it was cut while it was read")
        self._at += len(data)
        return data

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._own:
            os.close(self._fd)


class Archive:
    """Names with content behind them; use it as a context manager."""

    def __init__(self, what: str, fd: int) -> None:
        self.what = what
        self._fd = fd

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        raise NotImplementedError

    def open(self, name: str) -> Part:
        """Open a file; IntegrityError when it is missing."""
        raise NotImplementedError

    def missing(self, name: str) -> IntegrityError:
        """Give the error for a file that should be there."""
        return IntegrityError(f"cannot load {self.what}: {name[:200]} is missing in it")

    def read(self, name: str, limit: int = 4 << 20) -> bytes:
        """Give a whole file of at most `limit` bytes."""
        with self.open(name) as part:
            if part.size > limit:
                raise IntegrityError(f"cannot load {self.what}: {name[:200]} has {part.size} bytes, over {limit}")
            chunks = []
            while chunk := part.read(STEP):
                chunks.append(chunk)
        return b"".join(chunks)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        os.close(self._fd)


class TarArchive(Archive):
    """An archive in a seekable descriptor, which is closed at the end."""

    def __init__(self, what: str, fd: int) -> None:
        super().__init__(what, fd)
        try:
            self._index = Index(fd)
        except SampanError as exc:
            found.locate(exc, what)
            raise

    def _find(self, name: str) -> tuple[int, int] | None:
        for _ in range(_MAX_LINKS):
            if name not in self._index.links:
                return self._index.files.get(name)
            name = self._index.links[name]
        raise IntegrityError(f"cannot load {self.what}: too many links at {name[:200]}")

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return self._find(name) is not None

    def open(self, name: str) -> Part:
        """Open a file; IntegrityError when it is missing."""
        found = self._find(name)
        if found is None:
            raise self.missing(name)
        return Part(self._fd, *found, f"{name[:200]} of {self.what}")


class DirectoryArchive(Archive):
    """An OCI layout directory, by a descriptor that is closed at the end."""

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        fd = self._open(name)
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def open(self, name: str) -> Part:
        """Open a file; IntegrityError when it is missing or no regular file."""
        fd = self._open(name)
        if fd < 0:
            raise self.missing(name)
        return Part(fd, 0, os.fstat(fd).st_size, f"{name[:200]} of {self.what}", own=True)

    def _open(self, name: str) -> int:
        """Walk to a regular file, component by component, never through a link; -1 when there is none."""
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            return -1
        here = os.dup(self._fd)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = below
            # O_NONBLOCK: opening a fifo must not wait for a writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(parts[-1], flags, dir_fd=here)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as exc:
            raise Unavailable(f"cannot load {self.what}: {name[:200]}: {exc.strerror}") from exc
        finally:
            os.close(here)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return -1
        return fd


def open_archive(source: int | str, spool: str) -> Archive:
    """Open a path or a descriptor (which stays open); `spool` is a directory for what must be copied first."""
    what = source if isinstance(source, str) else "the archive"
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if isinstance(source, str) else os.dup(source)
    except FileNotFoundError as exc:
        raise NotFound(f"cannot load {what}: there is no such file") from exc
    except OSError as exc:
        raise Unavailable(f"cannot load {what}: {exc.strerror}") from exc
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return DirectoryArchive(what, fd)
        seekable = _seekable(fd, what, spool)
        if seekable != fd:
            os.close(fd)
            fd = seekable
        return TarArchive(what, fd)
    except BaseException:
        os.close(fd)
        raise


def _seekable(fd: int, what: str, spool: str) -> int:
    """Give `fd` if it is an uncompressed file read from its start, else a new unnamed file with the decoded content."""
    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    if regular and os.lseek(fd, 0, os.SEEK_CUR) == 0 and not codec.detect(os.pread(fd, 6, 0)):
        return fd
    source = codec.Peek(lambda count: os.read(fd, count))
    head = source.peek(6)
    if not head:
        raise InvalidArgument(f"cannot load {what}: it is empty")
    kind = codec.detect(head)
    if not kind:
        _check_start(source.peek(BLOCK), what)  # before a disk is filled with what has no end
    read = codec.decoder(kind, source.read, what)
    copy = unnamed_file(spool)
    try:
        if not kind and stat.S_ISFIFO(os.fstat(fd).st_mode):
            _write(copy, source.held(), what)
            _splice(fd, copy, what)
        with Ahead(read, step=STEP) as ahead:
            while chunk := ahead.read(STEP):
                _write(copy, chunk, what)
    except BaseException as exc:
        os.close(copy)
        if isinstance(exc, IntegrityError):
            found.locate(exc, what)
        raise
    return copy


def _check_start(block: bytes, what: str) -> None:
    try:
        check_first(block)
    except SampanError as exc:
        raise found.locate(exc, what) from None
    if not block.strip(b"\0"):
        raise InvalidArgument(
            f"cannot load {what}: it is an empty archive",
            "`sampan load` reads what `sampan save` and `docker save` write",
        )


def _splice(fd: int, copy: int, what: str) -> None:
    """Move what a pipe has into a file without reading it (splice(2)); where that cannot be done, leave the rest."""
    try:
        while os.splice(fd, copy, STEP):
            pass
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOSYS):
            raise files.failure(f"load {what}: no copy of it can be made in the store", exc) from exc


def unnamed_file(directory: str) -> int:
    """Give a descriptor of a new file that vanishes when it is closed."""
    try:
        return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError:
        # Not every file system has O_TMPFILE (open(2)): make one and take its name away at once.
        path = f"{directory}/.spool-{os.urandom(8).hex()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        return fd


def _write(fd: int, data: bytes, what: str) -> None:
    try:
        files.write_all(fd, data)
    except OSError as exc:
        raise files.failure(f"load {what}: no copy of it can be made in the store", exc) from exc
