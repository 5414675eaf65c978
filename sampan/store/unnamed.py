"""Files that get their name when they are whole: of a process that is killed, or a host without power, nothing is left.

    with Unnamed(directory, 0o644) as file:         directory: an open descriptor
        files.write_all(file.fd, data)
        file.publish("name")                        replaces what has that name

The kernel frees a file without a name (O_TMPFILE, open(2)). Where the file system knows none, and for the one moment in
which another file is replaced, it is called `.sampan-<owner>.<random>`; `sweep` removes those whose owner is gone.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from sampan.store import files, owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

PREFIX = ".sampan-"
_DAY = 86_400


class Unnamed:
    """Hold a new file in a directory, within a `with` block; `mode` is subject to the umask. Raises OSError.

    `named` gives it a name at once, as where the file system knows no other way.
    """

    __slots__ = ("_directory", "_name", "fd")

    def __init__(self, directory: int, mode: int = 0o600, *, named: bool = False) -> None:
        self._directory = directory
        self._name = ""
        self.fd = -1 if named else _open_unnamed(directory, mode)
        if self.fd < 0:
            name = temporary_name()
            self.fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory)
            self._name = name

    def __enter__(self) -> Unnamed:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, which is gone unless it was published."""
        self.forget()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def forget(self) -> None:
        """Take away the name that it may have meanwhile: as long as the descriptor is open, it can be read."""
        if self._name:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)
            self._name = ""

    def publish(self, name: str) -> None:
        """Give the file its name; what had it is replaced. Its content is synced by the caller, who wants it so."""
        if not self._name:
            with suppress(FileExistsError):
                self._link(name)
                return
            self._name = fresh = temporary_name()
            self._link(fresh)
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._name = ""

    def _link(self, name: str) -> None:
        # With a directory given Python calls linkat(2) with AT_SYMLINK_FOLLOW, without one it does not.
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._directory)


def _open_unnamed(directory: int, mode: int) -> int:
    try:
        return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=directory)
    except OSError as exc:
        # EISDIR: the kernel has no O_TMPFILE there; EOPNOTSUPP: the file system has none (open(2)).
        if exc.errno not in (errno.EISDIR, errno.EOPNOTSUPP):
            raise
    return -1


def write(directory: int, name: str, data: bytes, mode: int = 0o600) -> None:
    """Replace a small file by `data`, durably; raise OSError."""
    with Unnamed(directory, mode) as file:
        files.write_all(file.fd, data)
        os.fsync(file.fd)
        file.publish(name)
    os.fsync(directory)


def temporary_name() -> str:
    """Return a fresh name for what `sweep` may remove once this process has ended."""
    return f"{PREFIX}{owner.this_process()}.{os.urandom(4).hex()}"


def sweep(directory: int) -> None:
    """Remove what killed processes have left in a directory; what this user may not remove stays."""
    for name in os.listdir(directory):
        if name.startswith(PREFIX) and _is_left(directory, name):
            with suppress(FileNotFoundError, PermissionError, IsADirectoryError):
                os.unlink(name, dir_fd=directory)


def _is_left(directory: int, name: str) -> bool:
    holder = name.removeprefix(PREFIX).rpartition(".")[0]
    if holder.count(".") != 3 or owner.is_alive(holder):
        return False
    if holder.partition(".")[0] == owner.boot_id():
        return True
    try:  # of another boot, or of another host that has the directory too: nobody writes for a day
        return abs(time.time() - os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime) > _DAY
    except FileNotFoundError:
        return False
