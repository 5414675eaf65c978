"""Collects what nothing refers to any more: blobs, snapshots, and what crashed processes left behind.

Roots are image records, build cache entries, live leases, and unpacked layers that a process has locked. Everything is
decided and blobs are deleted under the database's write lock; whoever makes content visible holds a lease on it first,
so content in flight is never taken. Rows go before blobs and directories, durably, so a crash leaves files without a
row, which the next collection finds.
"""

from __future__ import annotations

import fcntl
import os
import time

from sampan.oci import jsontext
from sampan.store import files, owner, partials, reserve, volumes
from sampan.store.content import Content
from sampan.store.db import Database
from sampan.store.leases import Leases
from sampan.store.paths import Paths
from sampan.store.snapshots import Locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_TO_LOCK = 60


class Collected:
    """What was removed: digests of `blobs`, diff_ids of `snapshots`, `leftovers` (paths), and how many `bytes`."""

    __slots__ = ("blobs", "snapshots", "leftovers", "bytes")

    def __init__(self) -> None:
        self.blobs: list[str] = []
        self.snapshots: list[str] = []
        self.leftovers: list[str] = []
        self.bytes = 0


def collect(
    db: Database,
    content: Content,
    paths: Paths,
    *,
    remove_tree: Callable[[str], None] = files.remove_tree,
    partials_too: bool = False,
) -> Collected:
    """Remove everything that nothing refers to; raise Unavailable when the store is locked for too long.

    Blobs that arrived in part are left for a day, for the next pull, unless `partials_too`.
    """
    done = Collected()
    volumes.Volumes(db, paths).forget_abandoned()
    Leases(db).sweep()
    doomed: list[str] = []
    with Locks(paths, frees=True) as locks, db.transaction(frees=True):
        layers = _roots(db)[1] | _of_containers(db)
        for diff_id, number, size in db.query("SELECT diff_id, id, size FROM snapshots"):
            if diff_id not in layers and locks.take(number, fcntl.F_WRLCK):
                db.execute("DELETE FROM snapshots WHERE id = ?", (number,))
                done.snapshots.append(diff_id)
                done.bytes += size
                doomed.append(paths.snapshot(str(number)))
    # Only now, as build steps are forgotten without a sync: none may come back with its layer and without its blob.
    with db.transaction(frees=True):
        blobs, _ = _roots(db)
        for digest in content.ls():
            if digest not in blobs:
                done.bytes += content.delete(digest)
                done.blobs.append(digest)
    done.leftovers += _orphans(db, paths)
    for path in doomed + done.leftovers:
        _remove(path, remove_tree)
    done.leftovers += _partials(paths, partials_too)
    reserve.make(paths)
    return done


def sweep(paths: Paths, *, remove_tree: Callable[[str], None] = files.remove_tree) -> None:
    """Remove what processes that are gone had begun: a pull that is tried again and again must not pile it up."""
    for path in _unfinished(paths):
        _remove(path, remove_tree)


def _roots(db: Database) -> tuple[set[str], set[str]]:
    """Return the blobs (digests) and the snapshots (diff_ids) that something refers to."""
    held = Leases(db).held()
    blobs, layers = set(held), set(held)
    for listed, diff_ids in db.query("SELECT blobs, diff_ids FROM images"):
        blobs.update(jsontext.loads(listed))
        layers.update(jsontext.loads(diff_ids))
    for (diff_ids,) in db.query("SELECT diff_ids FROM build_cache"):
        # A local layer's blob is uncompressed, so its digest is the diff_id.
        kept = jsontext.loads(diff_ids)
        blobs.update(kept)
        layers.update(kept)
    return blobs, layers


def _of_containers(db: Database) -> set[str]:
    """Return the layers of containers whose image was removed while they were being started."""
    rows = db.query("SELECT config FROM containers WHERE image_id NOT IN (SELECT id FROM images)")
    return {diff_id for (config,) in rows for diff_id in jsontext.loads(config).get("layers") or ()}


def _orphans(db: Database, paths: Paths) -> list[str]:
    """Return paths that a crash left; directories are listed before rows, because rows are made before directories."""
    found = _unfinished(paths)
    for directory in (paths.oci, paths.oci + "/blobs", paths.cache, paths.volumes):
        found += [f"{directory}/{name}" for name in files.names(directory) if _is_stale_temporary(name)]
    found += [f"{paths.root}/{name}" for name in files.names(paths.root) if is_stale_probe(name)]
    found += volumes.orphans(db, paths)
    found += [f"{paths.snapshots}/{name}" for name in files.names(paths.snapshots) if name.startswith(files.GONE)]
    containers = [name for name in files.names(paths.containers) if _is_container(name)]
    known = {row[0] for row in db.query("SELECT id FROM containers")}
    homes = [f"{paths.containers}/{name}" for name in containers if name.removeprefix(files.GONE) not in known]
    found += [home for home in homes if not is_starting(home)]
    return found + _orphaned_snapshots(db, paths)


def _unfinished(paths: Paths) -> list[str]:
    ingests = (name for name in files.names(paths.ingest) if not name.startswith(partials.PREFIX))
    found = [f"{paths.ingest}/{name}" for name in ingests if not _is_owned(name)]
    return found + [f"{paths.active}/{name}" for name in files.names(paths.active) if not _is_owned(name)]


def _partials(paths: Paths, whatever_age: bool) -> list[str]:
    named = [f"{paths.ingest}/{name}" for name in files.names(paths.ingest) if name.startswith(partials.PREFIX)]
    return [path for path in named if partials.remove_stale(path, whatever_age=whatever_age)]


def _orphaned_snapshots(db: Database, paths: Paths) -> list[str]:
    """Rename snapshots without a row, under the lock that a commit takes: their numbers may be given again."""
    moved = []
    with db.transaction(durable=False, frees=True):
        known = {str(row[0]) for row in db.query("SELECT id FROM snapshots")}
        for name in files.names(paths.snapshots):
            if name.isdecimal() and name not in known:
                gone = f"{paths.snapshots}/{files.GONE}{name}-{os.urandom(4).hex()}"
                os.rename(f"{paths.snapshots}/{name}", gone)
                moved.append(gone)
    return moved


def _is_container(name: str) -> bool:
    return len(name) == 64 or name.startswith(files.GONE)


def is_starting(home: str, seconds: float = _SECONDS_TO_LOCK) -> bool:
    """Say whether a container without a record may be about to get one, or be removed: who does that locks its
    directory, a new one at once."""
    try:
        fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(fd)
        # Renaming shows in the one, starting in the other.
        begun = state.st_ctime if os.path.basename(home).startswith(files.GONE) else state.st_mtime
        return abs(time.time() - begun) < seconds
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _is_stale_temporary(name: str) -> bool:
    return name.startswith(files.TEMPORARY) and not _is_owned(name.removeprefix(files.TEMPORARY))


def is_stale_probe(name: str) -> bool:
    """Tell whether a file has the name of a trial of `doctor` that was killed."""
    return name.startswith(files.PROBE) and not _is_owned(name.removeprefix(files.PROBE))


def _is_owned(name: str) -> bool:
    return owner.is_alive(name.rpartition(".")[0])


def _remove(path: str, remove_tree: Callable[[str], None]) -> None:
    try:
        remove_tree(path)
    except OSError as exc:
        raise files.failure(f"remove {path}", exc) from exc
