"""What a build asks of the store: its parts as the engine holds them, and one lease for all that it finds and makes.

The lease is taken before the first thing that takes time: a step that is executed, files that are read, an image that
is pulled. So a build that finds everything writes nothing. What it found until then is looked for once more under the
lease, and where a collector was faster the build is solved again (`Gone`); from then on what it finds stays. An image
whose name is removed meanwhile, or a step that is forgotten, goes with the first collection after the build.
"""

from __future__ import annotations

from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.store.images import Image
    from sampan.store.leases import Lease
    from sampan.store.parts import Store


class Gone(Exception):
    """What was found before there was a lease has been collected: the build has to be solved again, under the lease."""


class Claim:
    """Hold a lease from the first call of `lease` until `release`; `made` are the layers (diff_ids) of this build.

    `names` are those of images that the build will ask for later: they are held from the beginning where they are here.
    """

    __slots__ = ("_early", "_found", "_layers", "_lease", "_names", "_store", "made")

    def __init__(self, store: Store, names: Iterable[str] = ()) -> None:
        self.made: list[str] = []
        self._store = store
        self._names = names
        self._lease: Lease | None = None
        self._found: list[Image] = []  # without a lease
        self._layers: list[str] = []
        self._early: dict[str, Image] = {}

    def lease(self) -> Lease:
        """Give the build's lease; the first time, what killed builds had begun is removed: it must not pile up.

        Raises Gone, the first time only.
        """
        if self._lease is None:
            from sampan.store import gc
            from sampan.store.leases import Leases

            gc.sweep(self._store.paths, remove_tree=self._store.snapshots.remove_tree)
            self._lease = Leases(self._store.db).take("build")
            self._hold_what_was_found(self._lease)
        return self._lease

    def _hold_what_was_found(self, lease: Lease) -> None:
        images = self._store.images
        with self._store.db.transaction(durable=False):
            lease.hold(*self._layers)
            whole = all(images.hold(image, lease) for image in self._found) and all(map(self._is_here, self._layers))
            for name in self._names:
                try:
                    self._early[name] = images.claim(name, lease)
                except SampanError:
                    continue  # told when it is asked for
        if not whole:
            raise Gone

    def _is_here(self, diff_id: str) -> bool:
        return self._store.snapshots.find(diff_id) is not None and self._store.content.has(diff_id)

    def layer(self, diff_id: str) -> bool:
        """Tell whether a local layer is here, packed and unpacked, and keep it."""
        if self._lease is not None:
            self._lease.hold(diff_id)
            return self._is_here(diff_id)
        if not self._is_here(diff_id):
            return False
        self._layers.append(diff_id)
        return True

    def image(self, text: str) -> Image:
        """Find an image as Images.resolve does, and keep all that it consists of."""
        if self._lease is not None:
            return self._early.get(text) or self._store.images.claim(text, self._lease)
        found = self._store.images.resolve(text)
        self._found.append(found)
        return found

    def release(self) -> None:
        """End the lease, if there is one."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
