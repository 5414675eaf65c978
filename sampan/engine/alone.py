"""The lock of a container: who starts, changes or removes one holds its directory meanwhile."""

from __future__ import annotations

import os


class Alone:
    """Hold a container's directory within a `with` block: nobody else starts or removes it meanwhile (flock(2)).

    A record is durable before its directory is: where a power cut took that, `restore` makes it again, empty as it was.
    """

    __slots__ = ("fd", "home", "made", "restore")

    def __init__(self, home: str, restore: bool = False) -> None:
        self.home = home
        self.restore = restore
        self.fd = -1
        self.made = False

    def __enter__(self) -> Alone:
        import fcntl

        try:
            self.fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self.restore or is_going(self.home):
                return self  # it has been removed, as whoever looks it up next is told
            self.made = True
            make(self.home)
            self.fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        if self.made and kind is not None:
            unmake(self.home)


def is_going(home: str) -> bool:
    """Tell whether the removal of a container has begun: its directory has another name (Containers.delete)."""
    directory, name = os.path.split(home)
    return os.path.isdir(f"{directory}/.gone-{name}")


def make(home: str) -> None:
    """Make the directories of a container, those that are missing."""
    for path, mode in ((home, 0o700), (home + "/work", 0o700), (home + "/upper", 0o755)):
        try:
            os.mkdir(path, mode)
            os.chmod(path, mode)  # whatever the umask: upper is the container's root directory
        except FileExistsError:
            continue


def unmake(home: str) -> None:
    """Take directories away again that nobody needed: the container had been removed."""
    for path in (home + "/upper", home + "/work", home):
        try:
            os.rmdir(path)
        except OSError:
            return
