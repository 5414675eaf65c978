"""A file that appears under its name only when it is whole and on the disk."""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import Unavailable
from sampan.store import files
from sampan.store.unnamed import Unnamed, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


UNWRITTEN = "cannot write the archive: "  # so begins what is said by those who know a descriptor only


def full(action: str, exc: OSError) -> Unavailable:
    """Return the error for a file of the user's that cannot be written."""
    hint = "free some space there, or write it elsewhere" if exc.errno in files.FULL else ""
    if exc.errno == errno.EBADF:
        return Unavailable(f"{action}: it is open for reading only", "write it to what is open for writing")
    return Unavailable(f"{action}: {exc.strerror}", hint)


def is_in_place(path: str) -> bool:
    """Tell whether what has this path is to be written to, not replaced; raise OSError.

    Devices and pipes are, and so is what a link in /dev or /proc leads to: /dev/stdout must not become a file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return True
    except FileNotFoundError:
        return False
    at = os.path.abspath(path)
    while os.path.islink(at):
        if at.startswith(("/dev/", "/proc/")):
            return True
        at = os.path.normpath(os.path.join(os.path.dirname(at), os.readlink(at)))
    return at.startswith("/proc/")


def open_in_place(path: str) -> int:
    """Open it; raise OSError."""
    return os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)


class WholeFile:
    """Hold the descriptor to write to, within a `with` block; an error leaves no file behind.

    A device or a pipe at the path is written in place.  Unavailable says `what` could not be written.
    """

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self.what = what
        self.fd = -1
        self._directory = -1
        self._file: Unnamed | None = None

    def __enter__(self) -> int:
        try:
            self.fd = self._open()
        except OSError as exc:
            self._close()
            raise Unavailable(f"cannot write {self.what} to {self.path}: {exc.strerror}") from exc
        return self.fd

    def _open(self) -> int:
        if is_in_place(self.path):
            return open_in_place(self.path)
        self._directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        sweep(self._directory)
        self._file = Unnamed(self._directory)
        return self._file.fd

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        where = "standard output" if self.path in ("", "-") else self.path
        if isinstance(exc, Unavailable) and exc.message.startswith(UNWRITTEN):
            exc.message = f"cannot write {self.what} to {where}: {exc.message.removeprefix(UNWRITTEN)}"
            exc.args = (exc.message,)
        try:
            if self._file is not None and kind is None:
                os.fsync(self.fd)
                self._file.publish(os.path.basename(self.path))
                os.fsync(self._directory)
        except OSError as error:
            raise full(f"cannot write {self.what} to {self.path}", error) from error
        finally:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        elif self.fd >= 0:
            os.close(self.fd)
        if self._directory >= 0:
            os.close(self._directory)
