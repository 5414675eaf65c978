"""Removes what nobody uses: stopped containers, dangling images, volumes, the build cache, and what crashes left.

Each function gives the names of what is gone; `freed` is measured on the disk, by the ledger before and after.
"""

from __future__ import annotations

from sampan.engine.matching import has_label
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from sampan.engine.engine import Engine


class Pruned:
    """What was removed, by kind, and how many bytes that freed."""

    __slots__ = ("build_cache", "containers", "freed", "images", "volumes")

    def __init__(self) -> None:
        self.containers: list[str] = []
        self.images: list[str] = []
        self.volumes: list[str] = []
        self.build_cache = 0
        self.freed = 0


class Wanted:
    """What a prune is limited to: made before a unix time in seconds, with all these labels, without those."""

    __slots__ = ("before", "labels", "without")

    def __init__(self, before: float = 0, labels: Iterable[str] = (), without: Iterable[str] = ()) -> None:
        self.before = int(before * 1e9)
        self.labels = list(labels)
        self.without = list(without)

    def __bool__(self) -> bool:
        return bool(self.before or self.labels or self.without)

    def accepts(self, created: int, labels: Mapping[str, Any]) -> bool:
        """Tell whether something of this age (unix ns) with these labels is to go."""
        if self.before and created >= self.before:
            return False
        if not all(has_label(labels, text) for text in self.labels):
            return False
        return not any(has_label(labels, text) for text in self.without)


def measured(engine: Engine, work: Callable[[Pruned], None], *kinds: str, partials_too: bool = False) -> Pruned:
    """Do the work, collect what nothing refers to any more, measure what that freed, and record it for the `kinds`.

    `partials_too` takes what a pull left for its next try.
    """
    from sampan.store import gc

    done = Pruned()
    before = _used(engine)
    work(done)
    store = engine.store
    gc.collect(store.db, store.content, store.paths, remove_tree=engine.remove_tree, partials_too=partials_too)
    done.freed = max(0, before - _used(engine))
    for kind in kinds:
        engine.events.emit(kind, "prune", "", {"reclaimed": done.freed})
    return done


def _used(engine: Engine) -> int:
    """Add up what is not the store's own: its database grows with what is written, also about a removal."""
    from sampan.engine import disk
    from sampan.store import ledger

    return sum(line.size for line in disk.lines(engine) if line.kind != ledger.STORE)


def everything(engine: Engine, wanted: Wanted, *, all: bool = False, volumes: bool = False) -> Pruned:
    """Prune everything at once; with `all` every unused image and the whole build cache; then an empty store goes.

    Raises InvalidArgument for an age together with `volumes`, as Docker does.
    """
    from sampan.engine import leftovers

    if volumes and wanted.before:
        raise InvalidArgument("cannot prune volumes by filter until", "prune them with `sampan volume prune`")

    def work(done: Pruned) -> None:
        prune_containers(engine, wanted, done)
        if volumes:
            prune_volumes(engine, wanted, done)
        prune_build_cache(engine, wanted, done, all=all)
        prune_images(engine, wanted, done, all=all)
        if not wanted:
            leftovers.forget_salvaged(engine)

    kinds = ("container", *(["volume"] if volumes else []), "image", "builder")
    done = measured(engine, work, *kinds, partials_too=True)
    if all and not wanted:
        engine.erase_if_empty()
    return done


def prune_containers(engine: Engine, wanted: Wanted, done: Pruned) -> None:
    """Remove the containers that do not run."""
    for row in engine.containers.ls(all=True):
        if row["State"] in ("created", "exited", "dead") and wanted.accepts(row["Created"], row["LabelMap"]):
            try:
                done.containers.append(engine.containers.remove(row["ID"]))
            except (Conflict, NotFound):
                continue  # started, or removed, by somebody else meanwhile


def prune_images(engine: Engine, wanted: Wanted, done: Pruned, *, all: bool = False) -> None:
    """Forget dangling images, or with `all` every one that no container uses."""
    keep = {
        image.id
        for image in engine.store.images.ls()
        if not wanted.accepts(image.created, (image.config.get("config") or {}).get("Labels") or {})
    }
    for image in engine.store.images.prune(all=all, keep=keep):
        done.images += [f"untagged: {reference.parse(name).familiar()}" for name in (*image.references, *image.digests)]
        done.images.append(f"deleted: {image.id}")
        engine.events.emit("image", "delete", image.id, {"name": image.id})


def prune_volumes(engine: Engine, wanted: Wanted, done: Pruned, *, all: bool = False) -> None:
    """Remove the anonymous volumes, or with `all` the named ones too, that no container uses."""
    for volume in engine.store.volumes.ls():
        if (volume.anonymous or all) and wanted.accepts(volume.created, volume.labels):
            try:
                engine.store.volumes.remove(volume.name)
            except (Conflict, NotFound):
                continue  # in use
            done.volumes.append(volume.name)


def prune_build_cache(engine: Engine, wanted: Wanted, done: Pruned, *, all: bool = False) -> None:
    """Forget entries of the build cache whose layers no image has, or with `all` every entry; by last use."""
    kept = set() if all else _imaged(engine)
    for key, result, _, used in engine.store.buildcache.ls():
        layer = result.get("diff_id") if isinstance(result, dict) else None
        if (all or (layer and layer not in kept)) and wanted.accepts(used, {}):
            engine.store.buildcache.remove(key)
            done.build_cache += 1
    if all and not wanted:
        engine.store.buildcache.prune()  # the digests of contexts too


def _imaged(engine: Engine) -> set[str]:
    return {diff_id for image in engine.store.images.ls() for diff_id in image.diff_ids}
