"""Makes a new database of what can still be read of a damaged one; the damaged one is kept beside it.

What its records no longer say is found again on the disk: images in the layout's index, volumes by their directories.
A container whose record is lost keeps its files, as containers/lost-<id>.

Rule: the damaged one stays the store's database until the new one is whole (dbmaking.replace), and the layout's index
as it was: whenever the power goes, a repair can be begun again.
"""

from __future__ import annotations

import os
import time

from sampan.errors import SampanError, counted
from sampan.oci import digest as digests
from sampan.oci import jsontext, reference
from sampan.store import dbfile, dbmaking, volumes
from sampan.store.db import Database
from sampan.store.images import Images
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOST = "lost-"
_TABLES = (
    *("images", "image_references", "snapshots", "containers", "container_volumes", "volumes", "build_cache"),
    *("leases", "lease_items", "manifest_lists"),
)


def faults(db: Database) -> list[str]:
    """Say what SQLite finds wrong with the database; IntegrityError if it cannot even be opened."""
    rows = [str(row[0]) for row in db.query("PRAGMA integrity_check(10)")]
    rows += [f"a row of {row[0]} refers to nothing" for row in db.query("PRAGMA foreign_key_check")]
    return [row for row in rows if row != "ok"]


def lost(db: Database, paths: Paths) -> list[str]:
    """Say what is on the disk although the database, a new one it seems, knows of nothing at all."""
    if _knows_something(db):
        return []
    entries = listed(paths)
    count = sum(1 for one in entries or () if os.path.exists(paths.blob(one["digest"])))
    found = [f"{counted(count, 'image')} in {paths.oci}/index.json"] if count else []
    # The image of a container is in the index for as long as there is the container: without any, the directory of one
    # is what a removal left, whose renaming and removing of files nobody syncs.
    places = [("volumes", paths.volumes), *([("containers", paths.containers)] if entries != [] else [])]
    for kind, directory in places:
        names = [name for name in os.listdir(directory) if not name.startswith((".", LOST))]
        if directory == paths.volumes:  # one whose making was cut short is empty
            names = [name for name in names if volumes.has_content(paths, name)]
        found += [f"{len(names)} {kind} in {directory}"] if names else []
    # What another process has just made was recorded before it could be seen.
    return [f"it is empty, but there are {', '.join(found)}"] if found and not _knows_something(db) else []


def _knows_something(db: Database) -> bool:
    found = "SELECT 1 FROM images UNION SELECT 1 FROM containers UNION SELECT 1 FROM volumes"
    return db.one(found) is not None


def listed(paths: Paths) -> list[dict[str, Any]] | None:
    """Give the entries of the layout's index, None when it cannot be read."""
    try:
        with open(paths.oci + "/index.json", "rb") as file:
            entries = jsontext.loads(file.read(64 << 20))["manifests"]
        return [one for one in entries if digests.validate(one["digest"])]
    except (OSError, SampanError, KeyError, TypeError):
        return None


def salvage(db: Database, paths: Paths, images: Images) -> list[str]:
    """Replace the database; say what became of what it held."""
    db.close()
    dbmaking.forget_unfinished(paths)
    beside = Paths(paths.root, paths.run)
    beside.database = paths.database + dbmaking.MAKING
    made = Database(beside)
    try:
        said = _fill(made, beside, paths.database)
        made.query("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        made.close()
    kept = dbmaking.replace(paths, beside.database)
    images.rewrite_index()
    return [*said, f"the damaged database is kept as {kept}"]


def _fill(db: Database, paths: Paths, source: str) -> list[str]:
    """Write down what a damaged database and the directories say; say what became of it."""
    counts = _copy(db, source)
    said = [
        f"{counted(count, 'row')} of {table} {'was' if count == 1 else 'were'} read"
        for table, count in counts.items()
        if count
    ]
    return said + _images(db, paths) + _volumes(db, paths) + _containers(db, paths)


def _copy(db: Database, source: str) -> dict[str, int]:
    sqlite = dbfile.sqlite()
    old = sqlite.connect(source, isolation_level=None)
    counts = {}
    try:
        db.query("PRAGMA foreign_keys=OFF")
        with db.transaction():
            for table in _TABLES:
                counts[table] = sum(_insert(db, table, row) for row in _rows(old, table))
            for table, number, *_ in db.query("PRAGMA foreign_key_check"):
                if number is not None:
                    db.execute(f"DELETE FROM {table} WHERE rowid = ?", (number,))
            db.execute("DELETE FROM image_references WHERE manifest_digest NOT IN (SELECT manifest_digest FROM images)")
            db.execute("DELETE FROM container_volumes WHERE container_id NOT IN (SELECT id FROM containers)")
            db.execute("DELETE FROM lease_items WHERE lease_id NOT IN (SELECT id FROM leases)")
        db.query("PRAGMA foreign_keys=ON")
    finally:
        old.close()
    return counts


def _insert(db: Database, table: str, row: tuple[Any, ...]) -> int:
    try:
        return db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * len(row))})", row)
    except SampanError:
        return 0  # not a row that this version would write


def _rows(old: Any, table: str) -> list[tuple[Any, ...]]:
    """Read a table from both ends: what lies behind a damaged page is reached from the other side."""
    found: dict[tuple[Any, ...], None] = {}
    sqlite = dbfile.sqlite()
    for order in ("", " ORDER BY 1 DESC"):
        try:
            for row in old.execute(f"SELECT * FROM {table}{order}"):
                found[row] = None
        except (sqlite.Error, UnicodeError):
            continue
        break
    return list(found)


def _images(db: Database, paths: Paths) -> list[str]:
    """Record the images that the layout's index names and the database lost."""
    manifests = listed(paths)
    if manifests is None:
        return ["the index of images cannot be read"]
    said, images = [], Images(db, paths)
    for one in manifests:
        name = (one.get("annotations") or {}).get("org.opencontainers.image.ref.name", "")
        try:
            images.put(one["digest"])
            if name and _name(db, str(reference.parse(name)), one["digest"]):
                said.append(f"image {name} was found again")
        except SampanError as exc:
            said.append(f"image {name or one['digest']} is lost: {exc}")
    return said


def _name(db: Database, name: str, digest: str) -> bool:
    """Point a reference at an image, and leave the index as it is; tell whether it named another one."""
    row = (name, digest)
    if db.one("SELECT 1 FROM image_references WHERE name = ? AND manifest_digest = ?", row) is not None:
        return False
    with db.transaction():
        db.execute("INSERT OR REPLACE INTO image_references VALUES (?, ?, ?)", (*row, time.time_ns()))
    return True


def _volumes(db: Database, paths: Paths) -> list[str]:
    said = []
    for name in os.listdir(paths.volumes):
        if name.startswith("."):
            continue
        row = (name, time.time_ns(), int(len(name) == 64), jsontext.dumps({}))
        with db.transaction():
            if db.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?)", row):
                said.append(f"volume {name} was found again")
    return said


def _containers(db: Database, paths: Paths) -> list[str]:
    said = []
    known = {row[0] for row in db.query("SELECT id FROM containers")}
    for name in os.listdir(paths.containers):
        if len(name) == 64 and name not in known:
            os.rename(f"{paths.containers}/{name}", f"{paths.containers}/{LOST}{name}")
            said.append(f"container {name[:12]} is lost; its files are kept in {paths.containers}/{LOST}{name}")
    return said
