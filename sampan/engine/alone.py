"""The lock of a container: who starts, changes or removes one holds its directory meanwhile."""

from __future__ import annotations

import os


class Alone:
    """Hold a container's directory within a `with` block: nobody else starts or removes it meanwhile (flock(2))."""

    __slots__ = ("fd", "home")

    def __init__(self, home: str) -> None:
        self.home = home
        self.fd = -1

    def __enter__(self) -> Alone:
        import fcntl

        try:
            self.fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self  # it has been removed, as whoever looks it up next is told
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
