"""Blobs: an OCI image layout (image-spec image-layout.md) whose every file is what its name says.

    ingest = content.ingest()
    ingest.write(data) …
    digest, size = ingest.commit(expected="sha256:…")

Rules: a blob is written beside the layout, synced, verified, renamed, and its directory synced, in this order. One that
is there already is verified, and replaced if it is damaged. What a crash leaves in the ingest directory is removed by
store/gc.py.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import IntegrityError, InvalidArgument, NotFound, Unavailable
from sampan.oci import digest as digests
from sampan.store import files, owner
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO
    from types import TracebackType

    from sampan.store.leases import Lease

_EARLY = 1 << 23  # large blobs go to the disk in steps while they arrive
_HOLE = 1 << 16  # so many zeros or more at once are left out of the file: a layer of sparse files stays small
_MODE = 0o644  # of a blob: whoever may enter the layout reads it
_SUMMED = 1 << 20  # from this size on a blob keeps a check sum
_CHECKSUM = "user.sampan.crc32"
_DIFF_ID = "user.sampan.diff_id"
_PACKED = (b"\x1f\x8b", b"\x28\xb5")  # gzip and zstd, which hold sums of their own
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not waiting for the writer of a FIFO


class Content:
    """The blobs of one store."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def ingest(self, *, lease: Lease | None = None, bulk: bool = True) -> Ingest:
        """Begin a new blob; `lease` will hold it, `bulk=False` suits a few kilobytes."""
        return Ingest(self._paths, lease, bulk)

    def add(self, data: bytes, *, expected: str = "", lease: Lease | None = None) -> str:
        """Store `data` as one blob and return its digest."""
        with self.ingest(lease=lease, bulk=len(data) > 1 << 20) as ingest:
            ingest.write(data)
            return ingest.commit(expected)[0]

    def has(self, digest: str) -> bool:
        """Tell whether a blob is here."""
        return os.path.exists(self._paths.blob(digest))

    def holds(self, digest: str, size: int) -> bool:
        """Tell whether a blob is here with its size; a cheap look, not `verify`."""
        try:
            return os.stat(self._paths.blob(digest)).st_size == size
        except FileNotFoundError:
            return False

    def path(self, digest: str) -> str:
        """Return the path of a blob that is here; raise NotFound."""
        path = self._paths.blob(digest)
        if not os.path.exists(path):
            raise NotFound(f"cannot find blob {digest} in the store")
        return path

    def size(self, digest: str) -> int:
        """Return the size of a blob in bytes; raise NotFound."""
        return os.stat(self.path(digest)).st_size

    def inode(self, digest: str) -> int:
        """Return the number of a blob's file, 0 if there is none: one that came again is another file."""
        try:
            return os.lstat(self._paths.blob(digest)).st_ino
        except FileNotFoundError:
            return 0

    def open(self, digest: str) -> int:
        """Return a descriptor for reading a blob; raise NotFound."""
        try:
            fd = os.open(self._paths.blob(digest), _FLAGS)
        except FileNotFoundError as exc:
            raise NotFound(f"cannot find blob {digest} in the store") from exc
        except OSError as exc:
            raise files.failure(f"open blob {digest}", exc) from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise IntegrityError(f"blob {digest} is damaged: there is something else in the place of its file")
        return fd

    def read(self, digest: str, limit: int = 4 << 20) -> bytes:
        """Return a blob of at most `limit` bytes, verified; raise NotFound, InvalidArgument, IntegrityError."""
        with open(self.open(digest), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise InvalidArgument(f"cannot read blob {digest}: it has {size} bytes, at most {limit} are accepted")
            data = file.read(size)
        if digests.of(data) != digest:
            raise IntegrityError(
                f"blob {digest} is damaged: its content has another digest", "remove and pull its image"
            )
        return data

    def verify(self, digest: str) -> bool:
        """Tell whether the content of a blob still has its digest."""
        with open(self.open(digest), "rb", buffering=0) as file:
            return _hash_file(file, bulk=True) == digest

    def checksum(self, fd: int) -> int:
        """Return the CRC-32 of the content that an open blob had when its digest was verified, -1 if nobody knows it.

        Large uncompressed blobs have one: whoever reads all of them finds out whether they were damaged since, at a
        tenth of what a digest takes.
        """
        try:
            return int(os.getxattr(fd, _CHECKSUM), 16)
        except (OSError, ValueError):
            return -1

    def pair(self, digest: str, diff_id: str) -> None:
        """Note on a blob which diff_id its content was found to have; a file system without attributes forgets it."""
        try:
            os.setxattr(self._paths.blob(digest), _DIFF_ID, digests.validate(diff_id).encode(), follow_symlinks=False)
        except OSError:  # then it is found out again where it matters
            return

    def diff_id(self, digest: str) -> str:
        """Return the diff_id that `pair` noted on a blob, "" if nobody knows."""
        try:
            return os.getxattr(self._paths.blob(digest), _DIFF_ID, follow_symlinks=False).decode("ascii", "replace")
        except OSError:
            return ""

    def delete(self, digest: str) -> int:
        """Delete a blob and return how many bytes that freed; a missing one is fine."""
        path = self._paths.blob(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        except OSError as exc:
            raise files.failure(f"delete blob {digest}", exc) from exc
        return size

    def ls(self) -> list[str]:
        """Return the digests of all blobs."""
        found = (digests.PREFIX + name for name in files.names(self._paths.blobs))
        return sorted(digest for digest in found if digests.is_valid(digest))


class Ingest:
    """One blob that is being written; as a context manager it is aborted unless committed."""

    __slots__ = ("size", "_fd", "_path", "_paths", "_hash", "_lease", "_started", "_in_hole", "_synced", "_crc")

    def __init__(self, paths: Paths, lease: Lease | None, bulk: bool) -> None:
        self.size = 0
        self._started = 0  # up to here the disk has been told to write
        self._in_hole = False  # the file is still shorter than what was written
        self._synced = -1  # the size that is durable
        self._crc: int | None = -1  # not begun; None: there will be none
        self._paths = paths
        self._lease = lease
        self._hash = digests.sha256(bulk=bulk)
        self._path = f"{paths.ingest}/{owner.this_process()}.{os.urandom(6).hex()}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            try:
                self._fd = os.open(self._path, flags, 0o600)
            except FileNotFoundError:
                paths.make()
                self._fd = os.open(self._path, flags, 0o600)
        except OSError as exc:
            raise files.failure(f"begin a blob in {paths.ingest}", exc) from exc

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; when the disk is full the ingest is aborted and Unavailable raised."""
        self._hash.update(data)
        try:
            self._in_hole = _is_hole(data)
            if self._in_hole:
                os.lseek(self._fd, len(data), os.SEEK_CUR)
            else:
                files.write_all(self._fd, data)
        except OSError as exc:
            self.abort()
            raise files.failure(f"write a blob in {self._paths.ingest}", exc) from exc
        self.size += len(data)
        self._sum(data)
        self._start_writing()

    def _start_writing(self) -> None:
        if self.size - self._started < _EARLY:
            return
        try:
            files.start_writing(self._fd, self._started, self.size - self._started)
        except OSError as exc:
            self.abort()
            raise files.failure(f"write a blob in {self._paths.ingest}", exc) from exc
        self._started = self.size

    def _sum(self, data: bytes | bytearray | memoryview) -> None:
        """Go on with the check sum, or begin it once the blob is large."""
        if self._crc is None or self.size < _SUMMED:
            return
        try:
            from isal.isal_zlib import crc32
        except ImportError:  # no wheel for this host: zlib's would take as long as the digest
            self._crc = None
            return
        if self._crc >= 0:
            self._crc = crc32(data, self._crc)
            return
        start = os.pread(self._fd, self.size, 0)
        self._crc = crc32(start) if len(start) == self.size and not start.startswith(_PACKED) else None

    def _keep_sum(self) -> None:
        if self._crc is None or self._crc < 0:
            return
        try:
            os.setxattr(self._fd, _CHECKSUM, b"%08x" % self._crc)
        except OSError:  # a file system without attributes, or without room for one: a push then hashes
            self._crc = None

    def sync(self) -> None:
        """Make what was written durable, so that the commit need not wait for it; any thread may do this."""
        size = self.size
        try:
            os.fchmod(self._fd, _MODE)
            if self._in_hole:
                os.ftruncate(self._fd, size)
            self._keep_sum()
            os.fsync(self._fd)
            self._synced = size
        except OSError as exc:
            raise files.failure(f"write a blob in {self._paths.ingest}", exc) from exc

    def commit(self, expected: str = "", size: int = -1) -> tuple[str, int]:
        """Verify digest and size where given, make the blob durable and visible; return (digest, size).

        Raises IntegrityError (the content is forgotten) when it is not what was expected, Unavailable on a full disk.
        """
        if self._fd < 0:
            raise Unavailable("cannot commit a blob that was committed or aborted before")
        digest = digests.PREFIX + self._hash.hexdigest()
        try:
            self._check(digest, expected, size)
            if self._lease is not None:
                self._lease.hold(digest)  # before the blob can be seen, so that no collector takes it
            self._publish(digest)
        except OSError as exc:
            raise files.failure(f"commit blob {digest}", exc) from exc
        finally:
            self.abort()
        return digest, self.size

    def abort(self) -> None:
        """Forget what was written; after a commit this does nothing."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return

    def _check(self, digest: str, expected: str, size: int) -> None:
        if expected and digest != digests.validate(expected):
            raise IntegrityError(f"content does not match its digest: expected {expected}, received {digest}")
        if size >= 0 and size != self.size:
            raise IntegrityError(f"content of {digest} has {self.size} bytes, {size} were expected")

    def _publish(self, digest: str) -> None:
        target = self._paths.blob(digest)
        if not _is_intact(target, digest, self.size):
            if self._synced != self.size:
                self.sync()
            if os.fstat(self._fd).st_size != self.size:
                raise IntegrityError(f"cannot commit blob {digest}: its file was changed while it was written")
            self._place(target)
        # Also for a blob that was there: another process may be between its rename and its sync.
        files.sync_directory(self._paths.blobs)

    def _place(self, target: str) -> None:
        os.rename(self._path, target)


def _is_hole(data: bytes | bytearray | memoryview) -> bool:
    return len(data) >= _HOLE and not data[0] and not data[-1] and data == bytes(len(data))


def _is_intact(path: str, digest: str, size: int) -> bool:
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return False
    except OSError as exc:
        if exc.errno == errno.ELOOP:  # a link: it is replaced
            return False
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        os.close(fd)
        return False
    with open(fd, "rb", buffering=0) as file:
        return _hash_file(file, size > 1 << 20) == digest


def _hash_file(file: FileIO, bulk: bool) -> str:
    running = digests.sha256(bulk=bulk)
    while chunk := file.read(1 << 20):
        running.update(chunk)
    return digests.PREFIX + running.hexdigest()


def write_layout(paths: Paths) -> None:
    """Write the file that marks the directory as an OCI image layout, if it is missing or another."""
    if not is_layout(paths):
        files.replace(paths.oci + "/oci-layout", _LAYOUT, mode=0o644)


def is_layout(paths: Paths) -> bool:
    """Tell whether the file that marks an OCI image layout is there, as this version writes it."""
    try:
        with open(paths.oci + "/oci-layout", "rb") as file:
            return file.read(len(_LAYOUT) + 1) == _LAYOUT
    except OSError:
        return False
