"""The lock of a container: who starts, changes or removes one holds its directory meanwhile."""

from __future__ import annotations

import os
from _thread import get_ident

from sampan.errors import Conflict, NotFound
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

_held: set[tuple[str, int]] = set()  # the directories that threads of this process hold


class Alone:
    """Hold a container's directory within a `with` block: nobody else starts or removes it meanwhile (flock(2)).

    Whoever holds it may take it again.  A record is durable before its directory is: where a power cut took that,
    `restore` makes it again, empty as it was.  Without `wait` BlockingIOError is raised when somebody else has it.
    """

    __slots__ = ("_key", "_wait", "fd", "home", "made", "restore")

    def __init__(self, home: str, restore: bool = False, *, wait: bool = True) -> None:
        self.home = home
        self.restore = restore
        self.fd = -1
        self.made = False
        self._key = (home, get_ident())
        self._wait = wait

    def __enter__(self) -> Alone:
        import fcntl

        if self._key in _held:
            return self
        try:
            fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self.restore or is_going(self.home):
                return self  # it has been removed, as whoever looks it up next is told
            self.made = True
            make(self.home)
            fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        _held.add(self._key)
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.fd >= 0:
            _held.discard(self._key)
            os.close(self.fd)
            self.fd = -1
        if self.made and kind is not None:
            unmake(self.home)


def gone(home: str) -> str:
    """Give the name that the directory of a container has once its removal has begun (Containers.delete)."""
    directory, name = os.path.split(home)
    return f"{directory}/{files.GONE}{name}"


def is_going(home: str) -> bool:
    """Tell whether the removal of a container has begun."""
    return os.path.isdir(gone(home))


def restore(engine: Engine, record: Record, verb: str) -> None:
    """Make the directories of a container again that a power cut took; Conflict where a removal did, which stands in
    the way of what is to be done: who removes one has it renamed first, and holds it on.
    """
    home = engine.store.paths.container(record.id)
    if os.path.isdir(home + "/upper"):
        return
    try:
        with Alone(gone(home), wait=False):
            engine.store.containers.get(record.id)
    except (BlockingIOError, NotFound):
        raise Conflict(f"cannot {verb} container {record.name}: it is being removed") from None
    if is_going(home):
        raise Conflict(f"cannot {verb} container {record.name}: its removal was interrupted", "remove it again")
    make(home)


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
