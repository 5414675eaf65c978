"""What `system df` shows: the ledger of the store, added up in Docker's rows, and whole with --verbose."""

from __future__ import annotations

from sampan.store import ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.ledger import Line


def lines(engine: Engine) -> list[Line]:
    """List every file of the store with its size and owner (store/ledger.py)."""
    from sampan.engine.listing import mapped_size

    return ledger.read(engine.store.db, engine.store.paths, measure=lambda path: mapped_size(engine, path))


def summary(engine: Engine, found: list[Line] | None = None) -> list[dict[str, Any]]:
    """Add the ledger up in Docker's rows, and one more for the store itself; sizes in bytes.

    Keys: Type, TotalCount, Active, Size, Reclaimable.
    """
    found = lines(engine) if found is None else found
    images, used = engine.store.images.ls(), {row[0] for row in _query(engine, "SELECT image_id FROM containers")}
    rows = engine.containers.ls(all=True)
    running = {row["ID"] for row in rows if row["State"] in ("running", "paused", "restarting")}
    volumes = [line for line in found if line.kind == ledger.VOLUME]
    cache = _query(engine, "SELECT count(*) FROM build_cache")[0][0]
    idle = [line for line in found if line.kind == ledger.CONTAINER and line.key not in running]
    own = [line for line in found if line.kind not in (*_DOCKERS,)]
    return [
        _row("Images", len(images), sum(image.id in used for image in images), _of(found, ledger.IMAGE)),
        _row("Containers", len(rows), len(running), _of(found, ledger.CONTAINER), sum(line.size for line in idle)),
        _row("Local Volumes", len(volumes), sum(not line.reclaimable for line in volumes), volumes),
        _row("Build Cache", cache, 0, _of(found, ledger.BUILD_CACHE)),
        _row("Store", len(own), sum(line.kind == ledger.IN_FLIGHT for line in own), own),
    ]


_DOCKERS = (ledger.IMAGE, ledger.CONTAINER, ledger.VOLUME, ledger.BUILD_CACHE)


def _query(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = engine.store.db.query(sql)
    return found


def _of(found: Iterable[Line], kind: str) -> list[Line]:
    return [line for line in found if line.kind == kind]


def _row(kind: str, total: int, active: int, found: list[Line], reclaimable: int = -1) -> dict[str, Any]:
    if reclaimable < 0:
        reclaimable = sum(line.size for line in found if line.reclaimable)
    size = sum(line.size for line in found)
    return {"Type": kind, "TotalCount": total, "Active": active, "Size": size, "Reclaimable": reclaimable}


def images(engine: Engine, found: list[Line]) -> list[dict[str, Any]]:
    """Give each image's disk usage: what it shares with others, what is its own, how many containers use it."""
    sizes: dict[str, int] = {}
    for line in _of(found, ledger.IMAGE):
        sizes[line.key] = sizes.get(line.key, 0) + line.size
    owners: dict[str, int] = {}
    needs = {image.id: _needs(engine, image.id) for image in engine.store.images.ls()}
    for parts in needs.values():
        for part in parts:
            owners[part] = owners.get(part, 0) + 1
    containers = _query(engine, "SELECT image_id FROM containers")
    rows = []
    for row in engine.images.ls():
        parts = needs.get(row["ID"], set())
        shared = sum(sizes.get(part, 0) for part in parts if owners[part] > 1)
        own = sum(sizes.get(part, 0) for part in parts if owners[part] == 1)
        count = sum(image_id == row["ID"] for (image_id,) in containers)
        rows.append({**row, "Size": shared + own, "SharedSize": shared, "UniqueSize": own, "Containers": count})
    return rows


def _needs(engine: Engine, image_id: str) -> set[str]:
    from sampan.oci import jsontext

    found: set[str] = set()
    for blobs, diff_ids in engine.store.db.query("SELECT blobs, diff_ids FROM images WHERE id = ?", (image_id,)):
        found.update((*jsontext.loads(blobs), *jsontext.loads(diff_ids)))
    return found


def cache(engine: Engine, found: list[Line]) -> list[dict[str, Any]]:
    """Give each entry of the build cache; `Size` is what its own layer takes, `Shared` whether an image has it too."""
    sizes: dict[str, int] = {}
    for line in found:
        if line.key:
            sizes[line.key] = sizes.get(line.key, 0) + line.size
    imaged = {line.key for line in found if line.kind == ledger.IMAGE}
    rows = []
    for key, result, created, used in engine.store.buildcache.ls():
        diff_id = str(result.get("diff_id") or "") if isinstance(result, dict) else ""
        row = {"ID": key.rpartition(":")[2][:12], "Size": sizes.get(diff_id, 0), "Created": created, "LastUsed": used}
        rows.append({**row, "Shared": diff_id in imaged})
    return rows
