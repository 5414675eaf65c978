"""A file that appears under its name only when it is whole and on the disk."""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class WholeFile:
    """Hold the descriptor to write to, within a `with` block; an error leaves no file behind.

    A device or a pipe at the path is written in place.  Unavailable says `what` could not be written.
    """

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self.what = what
        self.fd = -1
        self.new = ""
        self.named = False

    def __enter__(self) -> int:
        try:
            self.fd = self._open()
        except OSError as exc:
            raise Unavailable(f"cannot write {self.what} to {self.path}: {exc.strerror}") from exc
        return self.fd

    def _open(self) -> int:
        try:
            regular = stat.S_ISREG(os.stat(self.path).st_mode)
        except FileNotFoundError:
            regular = True
        if not regular:
            return os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        directory, name = os.path.split(self.path)
        self.new = os.path.join(directory, f".{name}.{os.urandom(4).hex()}")
        try:
            # Without a name, so that nothing is left of it when we are killed.
            return os.open(directory or ".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            # EISDIR: the kernel has no O_TMPFILE there; EOPNOTSUPP: the file system has none (open(2)).
            if exc.errno not in (errno.EISDIR, errno.EOPNOTSUPP):
                raise
        self.named = True
        return os.open(self.new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if self.fd < 0:
            return
        try:
            if self.new and kind is None:
                self._publish()
        except OSError as error:
            raise Unavailable(f"cannot write {self.what} to {self.path}: {error.strerror}") from error
        finally:
            os.close(self.fd)
            if self.named:
                os.unlink(self.new)

    def _publish(self) -> None:
        os.fsync(self.fd)
        directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not self.named:
                # With a directory given Python calls linkat(2) with AT_SYMLINK_FOLLOW, without one it does not.
                os.link(f"/proc/self/fd/{self.fd}", os.path.basename(self.new), dst_dir_fd=directory)
                self.named = True
            os.rename(self.new, self.path)
            self.named = False
            os.fsync(directory)
        finally:
            os.close(directory)
