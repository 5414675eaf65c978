"""Files that a command reads or writes for the caller: `-o FILE`, `-i FILE`, or the standard streams.

A file appears under its name only when it is whole and on disk. Archives are never written to a terminal.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import InvalidArgument, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Output:
    """Hold the descriptor to write an archive to, within a `with` block; an error leaves no file behind."""

    def __init__(self, path: str, what: str) -> None:
        self.path = path if path != "-" else ""
        self.what = what
        self.fd = -1
        self.new = ""
        self.named = False

    def __enter__(self) -> int:
        if not self.path:
            if os.isatty(1):
                raise InvalidArgument(
                    f"cannot write {self.what} to a terminal", "use -o FILE, or send the output elsewhere"
                )
            return 1
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
        if not regular:  # a device or a pipe is written in place
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


def open_input(path: str, what: str) -> int:
    """Return a descriptor to read an archive from: a file's, or standard input for `-` and an empty path."""
    if path in ("", "-"):
        if os.isatty(0):
            raise InvalidArgument(f"cannot read {what} from a terminal", "name a file, or send it to standard input")
        return 0
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise NotFound(f"cannot read {what} from {path}: there is no such file") from exc
    except OSError as exc:
        raise Unavailable(f"cannot read {what} from {path}: {exc.strerror}") from exc


def write_text(path: str, text: str, what: str) -> None:
    """Write a small file, whole or not at all."""
    with Output(path, what) as fd:
        data = text.encode()
        if os.write(fd, data) != len(data):
            raise Unavailable(f"cannot write {what} to {path}: only a part was written")
