"""A directory that is, or becomes, an OCI image layout, while a copy writes into it.

What is there is not believed but read, and no link is followed: who else may write there chooses neither what a blob is
nor where one goes.  A copy that fails leaves the directory as it was: each writer holds a shared lock on the blobs, and
takes away what it has made if it can have the lock alone and nobody has named another image meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress

from sampan.errors import IntegrityError
from sampan.oci import digest as digests
from sampan.oci import image
from sampan.store import files, unnamed
from sampan.transfer import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Entries = list[dict[str, Any]]

STEP = 1 << 20
_MARK = b'{"imageLayoutVersion":"1.0.0"}'
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOBS = ("blobs", "sha256")
_ATTEMPTS = 10


def receive(fd: int, digest: str, read: Callable[[int], bytes]) -> None:
    """Write a blob to a descriptor; IntegrityError when it is not what its digest says."""
    running = digests.sha256(bulk=True)
    while data := read(STEP):
        running.update(data)
        files.write_all(fd, data)
    if digests.PREFIX + running.hexdigest() != digest:
        raise IntegrityError(f"cannot copy blob {digest}: its content has another digest")


class LayoutDirectory:
    """The directory at `path`, opened by `make`; `close` it, or `undo` what was written since the last `enter`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._blobs = -1
        self._made: list[str] = []  # directories, the outermost first
        self._files: list[str] = []  # of the layout itself
        self._fresh: set[str] = set()  # blobs
        self._known: bytes | None = None  # index.json as it was when this copy had read or written it

    def make(self) -> None:
        """Make what is missing; raises the errors of `files.failure`."""
        try:
            self._open()
            unnamed.sweep(self._blobs)
            with self._locked() as at:
                unnamed.sweep(at)
                there = os.listdir(at)
                for name, data in ((layout.INDEX, image.build_index([])), (layout.MARK, _MARK)):
                    if name not in there:
                        unnamed.write(at, name, data, 0o644)
                        self._files.append(name)
                self._known = self._read(at)
        except OSError as exc:
            raise files.failure(f"make the image layout {self.path}", exc) from exc

    def _open(self) -> None:
        """Open the directory of blobs under a shared lock; again where another copy has taken it away meanwhile."""
        for attempt in range(_ATTEMPTS):
            self.close()
            self._make_directories(self.path)
            try:
                self._blobs = self._descend()
                fcntl.flock(self._blobs, fcntl.LOCK_SH)
                if os.path.samestat(os.fstat(self._blobs), os.lstat(os.path.join(self.path, *_BLOBS))):
                    return
            except FileNotFoundError:  # gone between two steps, or a link to nowhere
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _make_directories(self, path: str) -> None:
        missing = []
        path = os.path.abspath(path)
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(path)
                self._note(path)

    def _descend(self) -> int:
        at = os.open(self.path, _DIRECTORY)
        for number, name in enumerate(_BLOBS, 1):
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=at)
                    self._note(os.path.join(os.path.abspath(self.path), *_BLOBS[:number]))
                following = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            finally:
                os.close(at)
            at = following
        return at

    def _note(self, path: str) -> None:
        if path not in self._made:
            self._made.append(path)

    def close(self) -> None:
        """Let go of it, and of the lock."""
        if self._blobs >= 0:
            os.close(self._blobs)
            self._blobs = -1

    # ---- blobs ----

    def has(self, digest: str, size: int) -> bool:
        """Tell whether a blob is there, whole: it is read."""
        running = digests.sha256(bulk=True)
        try:
            with open(os.open(digests.hex_of(digest), _FILE, dir_fd=self._blobs), "rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    return False
                while data := file.read(STEP):
                    running.update(data)
        except OSError:  # none, or a link (ELOOP), or one that cannot be read: it is written anew
            return False
        return digests.PREFIX + running.hexdigest() == digest

    def write(self, digest: str, read: Callable[[int], bytes]) -> None:
        """Write a blob, durably; what has its name is replaced."""
        name = digests.hex_of(digest)
        try:
            with unnamed.Unnamed(self._blobs, 0o644) as file:
                receive(file.fd, digest, read)
                os.fsync(file.fd)
                is_fresh = not _exists(name, self._blobs)
                file.publish(name)
                if is_fresh:
                    self._fresh.add(name)
        except OSError as exc:
            raise files.failure(f"write blob {digest} in {self.path}", exc) from exc

    # ---- index.json ----

    def enter(self, change: Callable[[Entries], Entries]) -> None:
        """Change the entries of index.json, when the blobs are on the disk; from then on all that was written stays."""
        try:
            os.fsync(self._blobs)
            with self._locked() as at:
                before = self._read(at)
                entries = image.parse_index(before, image.OCI_INDEX)["manifests"] if before is not None else []
                data = image.build_index(change(entries))
                unnamed.write(at, layout.INDEX, data, 0o644)
        except OSError as exc:
            raise files.failure(f"write {self.path}/{layout.INDEX}", exc) from exc
        self._known = data
        self._fresh.clear()
        self._files.clear()
        self._made.clear()

    def _read(self, at: int) -> bytes | None:
        try:
            with open(os.open(layout.INDEX, _FILE, dir_fd=at), "rb") as file:
                return file.read(image.MAX_DOCUMENT)
        except FileNotFoundError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        at = os.open(self.path, _DIRECTORY)
        try:
            fcntl.flock(at, fcntl.LOCK_EX)
            yield at
        finally:
            os.close(at)

    # ---- a copy that fails ----

    def undo(self) -> None:
        """Take away what was written; what cannot be taken away stays, since another failure is to be told."""
        with suppress(OSError):
            if self._blobs < 0 or self._take_away():
                for path in reversed(self._made):
                    os.rmdir(path)  # ends at the first in which somebody else has put something
        self.close()

    def _take_away(self) -> bool:
        """Remove the files; False when somebody else may count on them."""
        fcntl.flock(self._blobs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with self._locked() as at:
            if self._known is not None and self._read(at) != self._known:
                return False
            for directory, names in ((self._blobs, self._fresh), (at, self._files)):
                for name in names:
                    os.unlink(name, dir_fd=directory)
        return True


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
