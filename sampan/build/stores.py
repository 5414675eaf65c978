"""What a build asks of the store: its parts as the engine holds them, and one lease for all that a build makes.

The lease is taken at the first miss, so that a build that finds everything writes nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.store.leases import Lease
    from sampan.store.parts import Store


class Claim:
    """Hold a lease from the first call of `lease` until `release`; `made` are the layers (diff_ids) of this build."""

    __slots__ = ("_lease", "_store", "made")

    def __init__(self, store: Store) -> None:
        self.made: list[str] = []
        self._store = store
        self._lease: Lease | None = None

    def lease(self) -> Lease:
        """Give the build's lease; the first time, what killed builds had begun is removed: it must not pile up."""
        if self._lease is None:
            from sampan.store import gc
            from sampan.store.leases import Leases

            gc.sweep(self._store.paths, remove_tree=self._store.snapshots.remove_tree)
            self._lease = Leases(self._store.db).take("build")
        return self._lease

    def release(self) -> None:
        """End the lease, if there is one."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
