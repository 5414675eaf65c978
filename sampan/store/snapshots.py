"""Snapshots: one directory per unpacked layer, ready to be a lower directory of an overlay.

    active = snapshots.prepare()            .active/<id>/upper and work, owned by this process
    … something fills active.upper …
    snapshots.commit(active, diff_id)       upper becomes snapshots/<number>, for good
    with snapshots.use(diff_ids):           they stay, for a process that has no record of what it does with them yet

Rules: a snapshot is found by the diff_id of its layer alone, so layers with the same content are one directory; numbers
are short, because mount options are limited to a page. Commit makes file contents durable (syncfs) before it records
them. A build of many steps leaves that to its end: such a snapshot is marked with the boot, and counts during that boot
only, until `seal` has synced it. So one that the database knows is whole, also after a power cut. Who uses snapshots
without a record or a lease (which cost a transaction) locks their numbers, bytes of one file (`Locks`); the
collector leaves what it cannot lock alone. The kernel ends a lock with its process.
"""

from __future__ import annotations

import os
import time
from _struct import Struct

from sampan.errors import NotFound
from sampan.oci import digest as digests
from sampan.store import files, owner
from sampan.store.db import Database
from sampan.store.paths import EMPTY, NAMES, Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sampan.store.leases import Lease

_MOST_LOWERS = 500  # OVL_MAX_STACK (fs/overlayfs/params.h)
_FILES = ("hosts", "resolv.conf", "hostname")
_WHOLE = "boot_id IN ('', ?)"
_LOCK = Struct("hhqqi4x")  # struct flock with 64-bit offsets: type, whence, start, len, pid


class Active:
    """A snapshot that is being made: directories `upper` and `work`, on one file system with the committed ones."""

    __slots__ = ("id", "path", "upper", "work")

    def __init__(self, active_id: str, path: str) -> None:
        self.id = active_id
        self.path = path
        self.upper = path + "/upper"
        self.work = path + "/work"


class Locks:
    """Locks on numbers of snapshots, until it is closed: of open file descriptions (fcntl(2), Linux 3.15), so that
    threads exclude each other too. `lowers` are those that `Snapshots.use` has locked."""

    __slots__ = ("_fd", "lowers")

    def __init__(self, paths: Paths, *, frees: bool = False) -> None:
        """Open them; with `frees` a full disk is no hindrance."""
        self._fd = -1
        self.lowers: list[str] = []
        for tries_left in (1, 0):
            try:
                self._fd = os.open(paths.used, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError as exc:
                if not tries_left:
                    raise files.failure(f"open {paths.used}", exc) from exc
                paths.make()
            except OSError as exc:
                if frees and exc.errno in files.FULL and not os.path.lexists(paths.used):
                    return  # nobody has locked anything, and nobody can
                raise files.failure(f"open {paths.used}", exc) from exc
            else:
                return

    def take(self, number: int, kind: int) -> bool:
        """Lock a number, fcntl.F_RDLCK or F_WRLCK; False where somebody else has locked it."""
        from fcntl import F_OFD_SETLK, fcntl

        if self._fd < 0:
            return True
        try:
            fcntl(self._fd, F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, number, 1, 0))
        except BlockingIOError:
            return False
        except OSError as exc:
            raise files.failure("lock an unpacked layer", exc) from exc
        return True

    def close(self) -> None:
        """Give back what is locked."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Snapshots:
    """The snapshots of one store; `remove_tree` is what removes a directory whose files may belong to mapped ids."""

    def __init__(self, db: Database, paths: Paths, *, remove_tree: Callable[[str], None] = files.remove_tree) -> None:
        self._db = db
        self._paths = paths
        self.remove_tree = remove_tree

    def find(self, diff_id: str) -> str | None:
        """Return the short id of the snapshot of a layer, or None."""
        row = self._db.one(f"SELECT id FROM snapshots WHERE diff_id = ? AND {_WHOLE}", (diff_id, owner.boot_id()))
        return None if row is None else str(row[0])

    def path(self, diff_id: str) -> str:
        """Return the directory of a layer's snapshot; raise NotFound."""
        found = self.find(diff_id)
        if found is None:
            raise NotFound(f"cannot find the unpacked layer {diff_id}", "pull or build its image again")
        return self._paths.snapshot(found)

    def lowers(self, diff_ids: Iterable[str]) -> list[str]:
        """Return the short ids of layers given lowest first, top first as overlayfs wants; raise NotFound.

        A repeated layer is dropped below its topmost place: overlayfs refuses a directory that is named twice.
        """
        wanted = list(dict.fromkeys(reversed(list(diff_ids))))
        marks = ",".join("?" * len(wanted))
        rows = self._db.query(
            f"SELECT diff_id, id FROM snapshots WHERE diff_id IN ({marks}) AND {_WHOLE}", [*wanted, owner.boot_id()]
        )
        numbers = {diff_id: str(number) for diff_id, number in rows}
        for diff_id in wanted:
            if diff_id not in numbers:
                raise NotFound(f"cannot find the unpacked layer {diff_id}", "pull or build its image again")
        return [numbers[diff_id] for diff_id in wanted]

    def use(self, diff_ids: Iterable[str]) -> Locks:
        """Keep layers unpacked until what is returned is closed, or this process ends; raise NotFound."""
        from fcntl import F_RDLCK

        wanted = list(diff_ids)
        lowers = self.lowers(wanted)
        locks = Locks(self._paths)
        try:
            # Looked up once more under the lock: a collector may have been faster. Numbers are never given again.
            if all(locks.take(int(number), F_RDLCK) for number in lowers) and self.lowers(wanted) == lowers:
                locks.lowers = lowers
                return locks
            raise NotFound("cannot use an unpacked layer: it is being removed")
        except BaseException:
            locks.close()
            raise

    def directories(self, diff_ids: Iterable[str]) -> list[str]:
        """Return the directories of layers, top first; raise NotFound."""
        return [self._paths.snapshot(number) for number in self.lowers(diff_ids)]

    def read_only(self, diff_ids: Iterable[str]) -> list[str]:
        """Return the lower directories of a root without an upper one; raise NotFound.

        The last is empty: a lone layer would be taken as it is (runtime/mounts.py), with its marks of what is removed.
        """
        return [*self.lowers(diff_ids), EMPTY]

    def with_names(self, lowers: list[str]) -> list[str]:
        """Return a container's layers with a lowest one, of empty files of /etc that a start may have its own of.

        So no start has to make a place to mount them on in the container's own layer: that would cost time and look
        like a change.
        """
        if not os.path.lexists(f"{self._paths.names}/etc/{_FILES[-1]}"):
            _make_names(self._paths.names)
        return [*lowers, NAMES] if len(lowers) < _MOST_LOWERS else lowers

    def prepare(self) -> Active:
        """Make the directories of a new snapshot; commit or abort it."""
        active_id = f"{owner.this_process()}.{os.urandom(4).hex()}"
        active = Active(active_id, self._paths.active_snapshot(active_id))
        try:
            try:
                os.mkdir(active.path, 0o700)
            except FileNotFoundError:
                self._paths.make()
                os.mkdir(active.path, 0o700)
            os.mkdir(active.upper)
            os.chmod(active.upper, 0o755)  # the root directory of what is made of it, whatever the umask
            os.mkdir(active.work, 0o700)
        except OSError as exc:
            raise files.failure(f"prepare a snapshot in {self._paths.active}", exc) from exc
        return active

    def commit(
        self, active: Active, diff_id: str, *, size: int = 0, lease: Lease | None = None, durable: bool = True
    ) -> str:
        """Keep `active.upper` as the snapshot of a layer and return its short id; `size` is in unpacked bytes.

        If the layer has a snapshot already, that one stays and the new directory is dropped. Without `durable`, the
        snapshot is lost with this boot unless it is sealed; recording an image with Images.put does that.
        """
        digests.validate(diff_id)
        try:
            if lease is not None:
                lease.hold(diff_id)
            found = self.find(diff_id)
            if found is None:
                if durable:
                    files.sync_filesystem(active.upper)
                found = self._publish(active, diff_id, size, durable)
        except OSError as exc:
            raise files.failure(f"commit the snapshot of {diff_id}", exc) from exc
        finally:
            self.abort(active)
        return found

    def abort(self, active: Active) -> None:
        """Remove what was prepared; after a commit only what is left beside the upper directory."""
        self.remove_tree(active.path)

    def remove(self, diff_id: str) -> None:
        """Remove the snapshot of a layer; a missing one is fine. The caller makes sure that nothing uses it."""
        found = self.find(diff_id)
        if found is None:
            return
        with self._db.transaction(frees=True):
            self._db.execute("DELETE FROM snapshots WHERE id = ?", (int(found),))
        self.remove_tree(self._paths.snapshot(found))

    def ls(self) -> list[tuple[str, str, int]]:
        """Return (diff_id, short id, size) of every snapshot."""
        rows = self._db.query("SELECT diff_id, id, size FROM snapshots ORDER BY id")
        return [(diff_id, str(number), size) for diff_id, number, size in rows]

    def _publish(self, active: Active, diff_id: str, size: int, durable: bool) -> str:
        # Row and rename share one transaction: the collector, which takes the write lock too, sees both or none.
        with self._db.transaction(durable=durable):
            found = self.find(diff_id)
            if found is not None:
                return found
            self._db.execute("DELETE FROM snapshots WHERE diff_id = ?", (diff_id,))  # not whole: of an earlier boot
            number = self._db.insert(
                "INSERT INTO snapshots (diff_id, size, created, boot_id) VALUES (?, ?, ?, ?)",
                (diff_id, size, time.time_ns(), "" if durable else owner.boot_id()),
            )
            target = self._paths.snapshot(str(number))
            if os.path.lexists(target):
                # A crash came between the rename and the commit of the row, and the number is given again.
                self.remove_tree(target)
            os.rename(active.upper, target)
            if durable:
                files.sync_directory(self._paths.snapshots)
        return str(number)


def seal(db: Database, paths: Paths, diff_ids: Iterable[str]) -> None:
    """Make the snapshots of these layers durable, with one syncfs for all; raise Unavailable or IntegrityError."""
    open_ids = {row[0] for row in db.query("SELECT diff_id FROM snapshots WHERE boot_id = ?", (owner.boot_id(),))}
    wanted = open_ids.intersection(diff_ids)
    if not wanted:
        return
    try:
        files.sync_filesystem(paths.snapshots)
    except OSError as exc:
        raise files.failure(f"make the snapshots in {paths.snapshots} durable", exc) from exc
    with db.transaction():
        for diff_id in wanted:
            db.execute("UPDATE snapshots SET boot_id = '' WHERE diff_id = ?", (diff_id,))


def _make_names(place: str) -> None:
    try:
        os.makedirs(place + "/etc", exist_ok=True)
        for directory in (place, place + "/etc"):
            os.chmod(directory, 0o755)  # whatever the umask
        for name in _FILES:
            fd = os.open(f"{place}/etc/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.fchmod(fd, 0o644)
            os.close(fd)
    except OSError as exc:
        raise files.failure(f"make {place}", exc) from exc
