"""Leases: what a process in the middle of something needs, which the collector must leave alone.

    with leases.take("build") as lease:
        lease.hold(digest)      # a blob's digest or a snapshot's diff_id; before it becomes visible

Rules: a lease ends with its process (pid, start time, boot: store/owner.py), so clocks that jump neither end a live one
nor keep a dead one. Only where the owner cannot be seen (another pid namespace) does it expire, by CLOCK_BOOTTIME.
"""

from __future__ import annotations

import time

from sampan.errors import Denied, Unavailable
from sampan.store import owner
from sampan.store.db import Database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LIFETIME = 24 * 3600  # seconds
_NONE = 0
VOLUME = "volume:"  # what is held is a volume, by its name: of a container that is being made


class Leases:
    """The leases of one store."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, purpose: str, *, frees: bool = False) -> Lease:
        """Take a lease for the calling process; release it, or use it as a context manager.

        `frees`: also on a full disk, at need of its reserve.
        """
        with self._db.transaction(durable=False, frees=frees):
            number = self._db.insert(
                "INSERT INTO leases (owner, boot_id, expires, purpose) VALUES (?, ?, ?, ?)",
                (owner.this_process(), owner.boot_id(), _now() + LIFETIME, purpose),
            )
        return Lease(self._db, number, frees)

    def to_read(self, purpose: str) -> Lease:
        """Take a lease for reading what is here. Where none can be written down, on a read-only or a full disk, give
        one that holds nothing: there others remove little."""
        try:
            return self.take(purpose, frees=True)
        except (Denied, Unavailable):
            return Lease(self._db, _NONE)

    def held(self) -> set[str]:
        """Return every digest under a live lease; inside a transaction it stays true until the end."""
        rows = self._db.query(
            "SELECT owner, boot_id, expires, digest FROM leases JOIN lease_items ON lease_id = leases.id"
        )
        return {digest for who, boot, expires, digest in rows if is_live(who, boot, expires)}

    def has(self, item: str) -> bool:
        """Tell whether something is under a live lease."""
        rows = self._db.query(
            "SELECT owner, boot_id, expires FROM leases JOIN lease_items ON lease_id = leases.id WHERE digest = ?",
            (item,),
        )
        return any(is_live(*row) for row in rows)

    def lost(self, prefix: str) -> list[str]:
        """Return what leases of processes that are gone hold and begins so."""
        rows = self._db.query(
            "SELECT owner, boot_id, expires, digest FROM leases JOIN lease_items ON lease_id = leases.id"
            " WHERE substr(digest, 1, ?) = ?",
            (len(prefix), prefix),
        )
        return [item for *lease, item in rows if not is_live(*lease)]

    def end(self, purpose: str) -> None:
        """End the leases that were taken for a purpose, if there are any."""
        with self._db.transaction(durable=False, frees=True):
            self._db.execute("DELETE FROM leases WHERE purpose = ?", (purpose,))

    def sweep(self) -> int:
        """Forget the leases of processes that are gone; return how many."""
        dead = [
            (number,)
            for number, who, boot, expires in self._db.query("SELECT id, owner, boot_id, expires FROM leases")
            if not is_live(who, boot, expires)
        ]
        if dead:
            with self._db.transaction(durable=False, frees=True):
                for args in dead:
                    self._db.execute("DELETE FROM leases WHERE id = ?", args)
        return len(dead)


class Lease:
    """One process's claim on content that nothing else refers to yet."""

    __slots__ = ("_db", "_frees", "_number")

    def __init__(self, db: Database, number: int, frees: bool = False) -> None:
        self._db = db
        self._number = number
        self._frees = frees

    def hold(self, *held: str) -> None:
        """Protect blobs (by digest), snapshots (by diff_id) and volumes (VOLUME, name) until the lease is released."""
        if self._number == _NONE:
            return
        with self._db.transaction(durable=False, frees=self._frees):
            for digest in held:
                self._db.execute("INSERT OR IGNORE INTO lease_items VALUES (?, ?)", (self._number, digest))

    def release(self) -> None:
        """End the lease."""
        if self._number == _NONE:
            return
        with self._db.transaction(durable=False, frees=True):
            self._db.execute("DELETE FROM leases WHERE id = ?", (self._number,))

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()


def for_container(container_id: str) -> str:
    """Return the purpose of the lease on the volumes of a container that has no record yet."""
    return f"container {container_id}"


def is_live(who: str, boot: str, expires: int) -> bool:
    """Tell whether the lease's owner is still there."""
    if boot != owner.boot_id():
        return False
    # An owner that can be seen needs no expiry: a build may take days.
    return owner.is_alive(who) if owner.is_visible(who) else _now() < expires


def _now() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
