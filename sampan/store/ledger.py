"""The ledger: every file below the root of a store, how much disk it takes, and whom it belongs to.

    for line in ledger.read(db, paths): line.kind, line.path, line.size, line.owners, line.reclaimable

Rules: the lines are made from what lies on the disk, not from what the records say, and cover all of it; what no rule
explains is UNKNOWN, never left out. Sizes are what the disk gives for a file (st_blocks), a hard link counts once.
"""

from __future__ import annotations

import os
import stat

from sampan.oci import digest as digests
from sampan.oci import jsontext, reference
from sampan.store import files, owner
from sampan.store.db import Database
from sampan.store.leases import Leases
from sampan.store.paths import EMPTY, NAMES, Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    Measure = Callable[[str], int]

IMAGE, CONTAINER, VOLUME, BUILD_CACHE, STORE, IN_FLIGHT, LEFTOVER, UNKNOWN = (
    "image",
    "container",
    "volume",
    "build cache",
    "store",
    "in flight",
    "leftover",
    "unknown",
)
_BLOCK = 512  # the unit of st_blocks, whatever the file system's own (stat(2))


class Line:
    """One file or directory directly below its place: `path` relative to the root, `size` in bytes, `owners` by name.

    `key` is what the records call it: a digest, a diff_id, a container's id, a volume's name. `reclaimable`: `system
    prune --all --volumes` frees it.
    """

    __slots__ = ("key", "kind", "owners", "path", "reclaimable", "size")

    def __init__(self, kind: str, path: str, size: int, owners: list[str], reclaimable: bool, key: str = "") -> None:
        self.kind = kind
        self.path = path
        self.size = size
        self.owners = owners
        self.reclaimable = reclaimable
        self.key = key

    def __repr__(self) -> str:
        return f"Line({self.kind} {self.path} {self.size} {self.owners})"


class _Records:
    """What the database says, turned round: for each blob and layer who needs it."""

    def __init__(self, db: Database) -> None:
        self.held = Leases(db).held()
        self.containers = {row[0]: row[1] for row in db.query("SELECT id, name FROM containers")}
        self.used_images = {row[0] for row in db.query("SELECT DISTINCT image_id FROM containers")}
        self.volumes = {row[0] for row in db.query("SELECT name FROM volumes")}
        self.used_volumes = {row[0] for row in db.query("SELECT DISTINCT name FROM container_volumes")}
        self.images: dict[str, set[str]] = {}  # digest or diff_id -> image ids
        self.names: dict[str, str] = {}
        named = "SELECT id, name FROM images LEFT JOIN image_references USING (manifest_digest) ORDER BY name"
        for image_id, name in db.query(named):
            self.names.setdefault(image_id, reference.parse(name).familiar() if name else image_id[7:19])
        for image_id, blobs, diff_ids in db.query("SELECT id, blobs, diff_ids FROM images"):
            for digest in (*jsontext.loads(blobs), *jsontext.loads(diff_ids)):
                self.images.setdefault(digest, set()).add(image_id)
        self.cached: set[str] = set()
        for (diff_ids,) in db.query("SELECT diff_ids FROM build_cache"):
            self.cached.update(jsontext.loads(diff_ids))
        self.snapshots = {str(row[0]): row[1] for row in db.query("SELECT id, diff_id FROM snapshots")}

    def content(self, path: str, size: int, digest: str) -> Line:
        """Tell whose a blob or an unpacked layer is: images', else the build cache's, else an operation's in flight."""
        users = self.images.get(digest, set())
        if users:
            # One that was recorded while we asked has no name here.
            names = sorted(self.names.get(image_id, image_id[7:19]) for image_id in users)
            return Line(IMAGE, path, size, names, not users & self.used_images and digest not in self.held, digest)
        if digest in self.held:
            return Line(IN_FLIGHT, path, size, [], False, digest)
        if digest in self.cached:
            return Line(BUILD_CACHE, path, size, [], True, digest)
        return Line(LEFTOVER, path, size, [], True, digest)


def read(db: Database, paths: Paths, *, measure: Measure | None = None) -> list[Line]:
    """List all that lies below the root; `measure` sizes a directory whose files this user may not see."""
    records = _Records(db)
    lines = [Line(STORE, "", _size(os.lstat(paths.root)), ["directories"], False)]
    places: dict[str, Callable[[str, str, int], Line]] = {
        paths.blobs: lambda name, path, size: _blob(records, name, path, size),
        paths.snapshots: lambda name, path, size: _snapshot(records, name, path, size),
        paths.containers: lambda name, path, size: _container(records, name, path, size),
        paths.volumes: lambda name, path, size: _volume(records, name, path, size),
        paths.ingest: _unfinished,
        paths.active: _unfinished,
        paths.cache: _cache,
        paths.oci + "/blobs": _layout,
        paths.oci: _layout,
    }
    for place, rule in places.items():
        lines += _within(paths, place, rule, places, measure)
    lines += _within(paths, paths.root, _top, places, measure)
    return lines


def _within(
    paths: Paths, place: str, rule: Callable[[str, str, int], Line], places: Container[str], measure: Measure | None
) -> Iterator[Line]:
    """List what lies directly in a place; places within it are listed for themselves, and counted as directories."""
    for name in sorted(files.names(place)):
        path = f"{place}/{name}"
        relative = path[len(paths.root) + 1 :]
        if path in places:
            yield Line(STORE, relative, _size(os.lstat(path)), ["directories"], False)
        else:
            try:
                yield rule(name, relative, disk_usage(path, measure))
            except FileNotFoundError:
                continue  # it ended while we looked


def _blob(records: _Records, name: str, path: str, size: int) -> Line:
    digest = digests.PREFIX + name
    return records.content(path, size, digest) if digests.is_valid(digest) else _leftover(name, path, size)


def _snapshot(records: _Records, name: str, path: str, size: int) -> Line:
    if name == EMPTY:
        return Line(STORE, path, size, ["the root of an image without layers"], False)
    if name == ".used":
        return Line(STORE, path, size, ["locks of layers"], False)
    if name == NAMES:
        return Line(STORE, path, size, ["the places of /etc/hostname and its like for images without"], False)
    diff_id = records.snapshots.get(name)
    return records.content(path, size, diff_id) if diff_id else _leftover(name, path, size)


def _container(records: _Records, name: str, path: str, size: int) -> Line:
    if name.startswith("lost-"):
        return Line(LEFTOVER, path, size, ["files of a container whose record was lost"], True)
    if name not in records.containers:
        return _leftover(name, path, size)
    return Line(CONTAINER, path, size, [records.containers[name]], False, name)


def _volume(records: _Records, name: str, path: str, size: int) -> Line:
    if name.startswith(files.TEMPORARY):
        return _unfinished(name.removeprefix(files.TEMPORARY), path, size)
    if name.startswith(files.GONE) or name not in records.volumes:
        return _leftover(name, path, size)
    return Line(VOLUME, path, size, [name], name not in records.used_volumes, name)


def _unfinished(name: str, path: str, size: int) -> Line:
    if name.startswith("partial-"):
        return Line(IN_FLIGHT, path, size, ["part of a download, for the next try"], True)
    holder = name.rpartition(".")[0]
    if owner.is_alive(holder):
        return Line(IN_FLIGHT, path, size, ["process " + holder.split(".")[2]], False)
    return _leftover(name, path, size)


def _cache(name: str, path: str, size: int) -> Line:
    if name.startswith("context-"):
        return Line(BUILD_CACHE, path, size, ["digests of a build context"], True)
    return _leftover(name, path, size) if name.startswith(files.TEMPORARY) else Line(UNKNOWN, path, size, [], False)


def _layout(name: str, path: str, size: int) -> Line:
    if name.startswith(files.TEMPORARY):
        return _unfinished(name.removeprefix(files.TEMPORARY), path, size)
    known = name in ("index.json", "oci-layout")
    return Line(STORE if known else UNKNOWN, path, size, ["index of images"] if known else [], False)


_TOP = {
    "sampan.db": "database",
    "sampan.db-wal": "database",
    "sampan.db-shm": "database",
    ".reserve": "space for a full disk",
    "events": "events of the last day",
    "run": "state of this boot",
    "lost+found": "the file system's own",
}


def _top(name: str, path: str, size: int) -> Line:
    if name.startswith(files.PROBE):
        return _unfinished(name.removeprefix(files.PROBE), path, size)
    if name.startswith("sampan.db.damaged-"):
        return Line(LEFTOVER, path, size, ["a database that was replaced by system check --repair"], True)
    if name.startswith(("sampan.db.repairing", "sampan.db.repaired-")):
        return Line(LEFTOVER, path, size, ["a database that system check --repair has begun"], True)
    if name in _TOP:
        return Line(STORE, path, size, [_TOP[name]], False)
    return Line(UNKNOWN, path, size, [], False)


def _leftover(name: str, path: str, size: int) -> Line:
    return Line(LEFTOVER, path, size, [], True, name)


def _size(state: os.stat_result) -> int:
    return state.st_blocks * _BLOCK


def disk_usage(path: str, measure: Measure | None = None) -> int:
    """Give the bytes that a file, or a directory with all that is in it, takes on the disk; links are not followed."""
    state = os.lstat(path)
    total = _size(state)
    if not stat.S_ISDIR(state.st_mode):
        return total
    seen: set[int] = set()
    try:
        for state in files.below(path, skip_closed=measure is None):
            if state.st_nlink > 1 and not stat.S_ISDIR(state.st_mode):
                if state.st_ino in seen:
                    continue
                seen.add(state.st_ino)
            total += _size(state)
    except PermissionError:
        if measure is None:
            raise
        return measure(path)  # of mapped ids: only the user namespace's root may look
    return total
