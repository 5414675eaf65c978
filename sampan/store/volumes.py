"""Volumes: named directories that outlive containers; `volumes/<name>/_data` is what a container sees.

Rules: a volume that a container's record names is not removed, nor one under the lease of who makes a container; an
unnamed one goes when that process was killed before the record was there. Removing renames the directory away in the
transaction that forgets the name, so a new volume of that name never shows old content; store/gc.py finishes what a
crash stopped. Where the crash came between the two, the volume is there and its directory is put back (`recover`).
"""

from __future__ import annotations

import os
import time

from sampan.errors import Conflict, NotFound
from sampan.oci import jsontext
from sampan.store import files, leases, names
from sampan.store.db import Database
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SELECT = "SELECT name, created, anonymous, labels FROM volumes"


class Volume:
    """One volume: `name`, `created` (unix ns), `anonymous`, `labels`, `path` (what a container sees)."""

    __slots__ = ("name", "created", "anonymous", "labels", "path")

    def __init__(self, row: tuple[Any, ...], path: str) -> None:
        self.name: str = row[0]
        self.created: int = row[1]
        self.anonymous = bool(row[2])
        self.labels: dict[str, str] = jsontext.loads(row[3])
        self.path = path

    def __repr__(self) -> str:
        return f"Volume({self.name})"


class Volumes:
    """The volumes of one store; `remove_tree` removes a directory whose files may belong to mapped ids."""

    def __init__(self, db: Database, paths: Paths, *, remove_tree: Callable[[str], None] = files.remove_tree) -> None:
        self._db = db
        self._paths = paths
        self._remove_tree = remove_tree
        self._leases = leases.Leases(db)

    def create(self, name: str = "", *, labels: dict[str, str] | None = None) -> Volume:
        """Return the volume of that name, made if it is missing; without a name a new anonymous one."""
        chosen = names.check(name, "volume") if name else os.urandom(32).hex()
        row = (chosen, time.time_ns(), int(not name), jsontext.dumps(labels or {}))
        try:
            with self._db.transaction():
                new = self._db.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?)", row) > 0
                self._make_directory(chosen, new)
        except OSError as exc:
            raise files.failure(f"create volume {chosen}", exc) from exc
        return self.get(chosen)

    def get(self, name: str) -> Volume:
        """Return a volume; raise NotFound."""
        row = self._db.one(_SELECT + " WHERE name = ?", (name,)) if name.isascii() else None
        if row is None:
            known = [row[0] for row in self._db.query("SELECT name FROM volumes WHERE anonymous = 0 LIMIT 2000")]
            raise NotFound(f"no such volume: {name[:300]}", names.meant(name, known, "volume ls"))
        return Volume(row, self._paths.volume_data(name))

    def ls(self) -> list[Volume]:
        """Return every volume, by name."""
        return [Volume(row, self._paths.volume_data(row[0])) for row in self._db.query(_SELECT + " ORDER BY name")]

    def users(self, name: str) -> list[str]:
        """Return the names of the containers that use a volume."""
        rows = self._db.query(
            "SELECT containers.name FROM containers JOIN container_volumes ON container_id = id"
            " WHERE container_volumes.name = ? ORDER BY 1",
            (name,),
        )
        return [user for (user,) in rows]

    def remove(self, name: str) -> None:
        """Remove a volume and its content; raise NotFound, or Conflict while a container uses it."""
        self.get(name)
        gone = self.forget(name)
        try:
            self._remove_tree(gone)
        except OSError as exc:
            raise files.failure(f"remove volume {name}", exc) from exc

    def forget(self, name: str) -> str:
        """Remove a volume from the store, and return where its content waits to be removed; raise as `remove`."""
        path = self._paths.volume(name)
        gone = ""
        try:
            with self._db.transaction(frees=True):
                users = self.users(name)
                if users:
                    raise Conflict(f"cannot remove volume {name}: container {users[0]} uses it", "remove it first")
                if self._leases.has(leases.VOLUME + name):
                    raise Conflict(f"cannot remove volume {name}: a container that uses it is being made")
                row = self._db.one("SELECT created FROM volumes WHERE name = ?", (name,))
                if row is None:
                    raise NotFound(f"no such volume: {name}")
                self._db.execute("DELETE FROM volumes WHERE name = ?", (name,))
                gone = _gone(self._paths, name, row[0])
                if os.path.isdir(path):
                    os.rename(path, gone)
                    files.sync_directory(self._paths.volumes)
        except OSError as exc:
            raise files.failure(f"remove volume {name}", exc) from exc
        return gone

    def forget_abandoned(self) -> None:
        """Remove from the store, as `forget`, the unnamed volumes of containers whose making was killed."""
        for item in self._leases.lost(leases.VOLUME):
            try:
                volume = self.get(item.removeprefix(leases.VOLUME))
                if volume.anonymous:
                    self.forget(volume.name)
            except (Conflict, NotFound):
                continue  # a container has it, or somebody was faster

    def prune(self, *, all: bool = False) -> list[str]:
        """Remove the anonymous volumes (or all) that no container uses; return their names."""
        removed = []
        for volume in self.ls():
            if (volume.anonymous or all) and not self.users(volume.name):
                try:
                    self.remove(volume.name)
                except (Conflict, NotFound):
                    continue  # another process was faster
                removed.append(volume.name)
        return removed

    def recover(self, name: str) -> bool:
        """Put the content of a volume back whose removal was cut short; tell whether its directory is there now."""
        try:
            with self._db.transaction(durable=False, frees=True):
                _put_back(self._db, self._paths, name)
        except OSError as exc:
            raise files.failure(f"recover volume {name}", exc) from exc
        return os.path.isdir(self._paths.volume_data(name))

    def _make_directory(self, name: str, new: bool) -> None:
        path = self._paths.volume(name)
        _put_back(self._db, self._paths, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        data = self._paths.volume_data(name)
        if not os.path.isdir(data):
            os.mkdir(data)
            os.chmod(data, 0o755)
            new = True
        if new:  # also where a killed command has made it, and not synced it
            files.sync_directory(path)
            files.sync_directory(self._paths.volumes)


def _gone(paths: Paths, name: str, created: int) -> str:
    """Give the path of what a removal takes away: never that of another volume that had this name."""
    return f"{paths.volumes}/{files.GONE}{created:016x}-{name}"


def _put_back(db: Database, paths: Paths, name: str) -> None:
    """Undo the renaming of a removal that was never committed, if there is one; the caller has the write lock."""
    row = db.one("SELECT created FROM volumes WHERE name = ?", (name,))
    if row is not None and not os.path.lexists(paths.volume(name)):
        try:
            os.rename(_gone(paths, name, row[0]), paths.volume(name))
        except FileNotFoundError:
            return  # it was lost in another way


def orphans(db: Database, paths: Paths) -> list[str]:
    """Give the directories that removals have left, and remove empty ones of volumes whose making was cut short.

    What has content and no record stays: a damaged database may have lost the record.
    """
    with db.transaction(durable=False, frees=True):
        known = {row[0] for row in db.query("SELECT name FROM volumes")}
        present = set(os.listdir(paths.volumes)) if os.path.isdir(paths.volumes) else set()
        for name in known - present:
            _put_back(db, paths, name)
        for name in present - known:
            if not name.startswith("."):
                _remove_empty(paths, name)
        return [f"{paths.volumes}/{name}" for name in os.listdir(paths.volumes) if name.startswith(files.GONE)]


def has_content(paths: Paths, name: str) -> bool:
    """Tell whether there are files in a volume, as far as this user may look."""
    try:
        with os.scandir(paths.volume_data(name)) as entries:
            return next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True


def _remove_empty(paths: Paths, name: str) -> None:
    for path in (paths.volume_data(name), paths.volume(name)):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            return  # it has content
