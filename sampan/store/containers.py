"""Containers: the record of each, its name, and the state that the engine writes down.

    record = containers.new(container_id, image_id=…, config={…})
    containers.insert(record)                   the name is taken from here on; random if none was given
    containers.update(record.id, status="running", pid=…)
    containers.get("web")                       by name, id, or prefix of an id

Rules: the database decides who has a name, so of a hundred processes that want it one gets it. What is running is a
matter of processes: the columns say what was last known, the engine compares them with the host.
"""

from __future__ import annotations

import time

from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci import jsontext
from sampan.store.db import Database
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.store.snapshots import Locks

STATUSES = ("created", "running", "paused", "restarting", "exited")
_STATE = ("status", "pid", "pid_start", "boot_id", "exit_code", "oom", "started", "finished")
_COLUMNS = ("id", "name", "image_id", "image_reference", "created", "config", "auto_remove", "labels", *_STATE)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM containers"
_INSERT = f"INSERT INTO containers ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_HEX = frozenset("0123456789abcdef")


class Record:
    """One container: `id` (64 hex), `name`, `image_id`, `image_reference`, `created` (unix ns), `config` (dict),
    `auto_remove`, `labels`; `volumes` (names that it uses, written by insert only); and its last known state: `status`,
    `pid`, `pid_start`, `boot_id`, `exit_code`, `oom`, `started` and `finished` (unix ns, 0 if never).  `use` keeps the
    layers of one that is not in the store yet."""

    __slots__ = (*_COLUMNS, "use", "volumes")

    def __init__(
        self,
        id: str,
        *,
        name: str = "",
        image_id: str = "",
        image_reference: str = "",
        created: int = 0,
        config: dict[str, Any] | None = None,
        auto_remove: bool = False,
        labels: dict[str, str] | None = None,
        volumes: Iterable[str] = (),
    ) -> None:
        self.id = id
        self.name = name
        self.image_id = image_id
        self.image_reference = image_reference
        self.created = created or time.time_ns()
        self.config = config if config is not None else {}
        self.auto_remove = auto_remove
        self.labels = labels if labels is not None else {}
        self.volumes = list(volumes)
        self.status = "created"
        self.pid = 0
        self.pid_start = 0
        self.boot_id = ""
        self.exit_code = 0
        self.oom = 0
        self.started = 0
        self.finished = 0
        self.use: Locks | None = None

    def recorded(self) -> None:
        """Let go of what kept its layers: the record does now, or it will never be there."""
        if self.use is not None:
            self.use.close()

    @property
    def spec(self) -> dict[str, Any]:
        """The OCI runtime configuration."""
        spec: dict[str, Any] = self.config["spec"]
        return spec

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for at its creation (oci/options.py), without what has its default."""
        return self.config.get("options") or {}

    @property
    def has_terminal(self) -> bool:
        """Whether its program has a pseudo-terminal."""
        return bool(self.spec["process"].get("terminal"))

    def __repr__(self) -> str:
        return f"Record({self.id[:12]}, {self.name}, {self.status})"


class Containers:
    """The containers of one store."""

    def __init__(self, db: Database, paths: Paths) -> None:
        self._db = db
        self._paths = paths

    def new(self, container_id: str, **fields: Any) -> Record:
        """Return a record that is not in the store yet; `fields` are Record's."""
        return Record(container_id, **fields)

    def insert(self, record: Record, *, durable: bool = True) -> Record:
        """Add a container; without a name it gets a random one. Raises Conflict when id or name is taken, NotFound when
        its image was removed meanwhile, unless it was started: then its layers stay for as long as the record."""
        if len(record.id) != 64 or not _HEX.issuperset(record.id):
            raise InvalidArgument(f"invalid container id {record.id[:100]!r}: it must be 64 hexadecimal digits")
        if record.name:
            from sampan.store import names

            names.check(record.name, "container")
        config, labels = jsontext.dumps(record.config), jsontext.dumps(record.labels)
        with self._db.transaction(durable=durable):
            if not record.started:
                self._check_image(record)
            self._choose_name(record)
            values = [getattr(record, column) for column in _COLUMNS]
            values[5:8] = config, int(record.auto_remove), labels
            self._db.execute(_INSERT, values)
            mounted = {*record.volumes, *self._mounted(record)}
            for name in mounted:
                self._db.execute("INSERT OR IGNORE INTO container_volumes VALUES (?, ?)", (record.id, name))
            if mounted:  # from now on the record keeps them, no longer a lease
                from sampan.store import leases

                leases.Leases(self._db).end(leases.for_container(record.id))
        return record

    def get(self, text: str) -> Record:
        """Return the container that a name, an id or a prefix of an id means; raise NotFound, InvalidArgument.

        An id wins over a name, a name over a prefix; a prefix of several ids is an InvalidArgument.
        """
        is_prefix = 0 < len(text) <= 64 and _HEX.issuperset(text)
        rows = self._db.query(f"{_SELECT} WHERE id = ?", (text,)) if is_prefix and len(text) == 64 else []
        if not rows and text.isascii():
            rows = self._db.query(f"{_SELECT} WHERE name = ?", (text.removeprefix("/"),))
        if not rows and is_prefix:
            rows = self._db.query(f"{_SELECT} WHERE id >= ? AND id < ? LIMIT 2", (text, text + "g"))
        if not rows:
            raise NotFound(f"no such container: {text[:300]}", self._meant(text))
        if len(rows) > 1:
            raise InvalidArgument(f"container id {text} is ambiguous: several begin with it", self._begin_with(text))
        return _record(rows[0])

    def _begin_with(self, prefix: str) -> str:
        """List the containers whose ids begin so, each with enough digits to tell them apart."""
        found = self._db.query(
            "SELECT id, name FROM containers WHERE id >= ? AND id < ? ORDER BY created DESC LIMIT 9",
            (prefix, prefix + "g"),
        )
        more = ", …" if len(found) > 8 else ""
        digits = max(12, len(prefix) + 4)
        return "it is one of: " + ", ".join(f"{row[0][:digits]} ({row[1]})" for row in found[:8]) + more

    def _meant(self, text: str) -> str:
        """Return a hint with the name that a mistyped one was meant to be."""
        from sampan.store import names

        known = [row[0] for row in self._db.query("SELECT name FROM containers LIMIT 2000")]
        return names.meant(text, known, "ps -a")

    def ls(self, *, ended: bool = True) -> list[Record]:
        """Return every container, newest first; without `ended` not those that are created or exited."""
        where = "" if ended else " WHERE status NOT IN ('created', 'exited')"
        return [_record(row) for row in self._db.query(f"{_SELECT}{where} ORDER BY created DESC, id")]

    def update(self, container_id: str, *, durable: bool = True, of_pid: int = 0, **state: Any) -> None:
        """Write down state columns of one container; raise NotFound if it is gone.

        With `of_pid` nothing changes unless that is still the process that is written down.
        """
        unknown = set(state).difference(_STATE)
        if unknown or state.get("status", "created") not in STATUSES:
            raise InvalidArgument(f"cannot update container {container_id[:12]}: no such state {unknown or state}")
        assignments = ", ".join(f"{column} = ?" for column in state)
        with self._db.transaction(durable=durable, frees=True):
            count = self._db.execute(
                f"UPDATE containers SET {assignments} WHERE id = ? AND (? = 0 OR pid = ?)",
                [*state.values(), container_id, of_pid, of_pid],
            )
        if not count and not of_pid:
            raise NotFound(f"no such container: {container_id[:12]}")

    def reconfigure(self, container_id: str, config: dict[str, Any]) -> None:
        """Write down another configuration of a container; raise NotFound if it is gone."""
        with self._db.transaction():
            data = jsontext.dumps(config)
            if not self._db.execute("UPDATE containers SET config = ? WHERE id = ?", (data, container_id)):
                raise NotFound(f"no such container: {container_id[:12]}")

    def rename(self, container_id: str, name: str) -> None:
        """Give a container another name; raise Conflict when it is taken."""
        from sampan.store import names

        names.check(name, "container")
        with self._db.transaction():
            self._check_name(name, container_id)
            if not self._db.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container_id)):
                raise NotFound(f"no such container: {container_id[:12]}")

    def remove(self, container_id: str, *, durable: bool = True) -> bool:
        """Remove a record by its full id; tell whether it was there. Its directory is the caller's."""
        with self._db.transaction(durable=durable, frees=True):
            return self._db.execute("DELETE FROM containers WHERE id = ?", (container_id,)) > 0

    def _check_image(self, record: Record) -> None:
        # In the same transaction as the insert: an image is removed before, and then this fails, or it is in use.
        image_id = record.image_id
        if image_id and self._db.one("SELECT 1 FROM images WHERE id = ?", (image_id,)) is None:
            raise NotFound(f"cannot create container: image {record.image_reference or image_id} is not in the store")

    def _mounted(self, record: Record) -> set[str]:
        """Return the volumes whose directories the container's mounts name."""
        mounts = (record.config.get("spec") or {}).get("mounts") or ()
        inside = self._paths.volumes + "/"
        sources = (mount.get("source") or "" for mount in mounts)
        return {source[len(inside) :].partition("/")[0] for source in sources if source.startswith(inside)}

    def _choose_name(self, record: Record) -> None:
        if record.name:
            self._check_name(record.name, record.id)
            return
        from sampan.store import names

        attempt = 0
        record.name = names.pick()
        while self._db.one("SELECT 1 FROM containers WHERE name = ?", (record.name,)) is not None:
            attempt += 1
            record.name = names.pick(attempt)

    def _check_name(self, name: str, container_id: str) -> None:
        row = self._db.one("SELECT id FROM containers WHERE name = ? AND id <> ?", (name, container_id))
        if row is not None:
            raise Conflict(
                f"cannot name a container {name}: container {row[0][:12]} has that name",
                "remove or rename that container, or choose another name",
            )


def _record(row: tuple[Any, ...]) -> Record:
    record = Record(row[0])
    for column, value in zip(_COLUMNS, row, strict=True):
        setattr(record, column, value)
    record.config = jsontext.loads(row[5])
    record.auto_remove = bool(row[6])
    record.labels = jsontext.loads(row[7])
    return record
