"""Containers: the state of one, brought up to date, and its removal. Other operations are in other modules (MODULES).

The state in the database is only what was last known: a container is running when its first process (pid, start time,
boot id) lives, and how it ended is in the exit record that its supervisor wrote.
"""

from __future__ import annotations

import os
import sys

from sampan.engine.alone import Alone, gone
from sampan.errors import NotFound, Unavailable
from sampan.runtime import cgroup, process
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.elsewhere import Elsewhere
    from sampan.engine.engine import Engine
    from sampan.runtime.cgroup import Placement
    from sampan.runtime.launch import Child
    from sampan.store.containers import Record
else:
    Elsewhere = object

SHARED = "container:"  # oci.spec.CONTAINER, without its import

# Operations that not every command needs: `containers.ls(…)` is `sampan.engine.listing.ls(engine, …)`, and so on.
MODULES = {
    "attach": "sampan.engine.attach",
    "commit": "sampan.engine.committing",
    **dict.fromkeys(("copy_in", "copy_out", "read_archive", "write_archive"), "sampan.engine.copying"),
    "diff": "sampan.engine.differences",
    **dict.fromkeys(("check_startable", "kill", "restart", "stop", "wait"), "sampan.engine.ending"),
    "exec": "sampan.engine.execute",
    "explain": "sampan.engine.explain",
    "export": "sampan.engine.exporting",
    "inspect": "sampan.engine.inspect",
    "ls": "sampan.engine.listing",
    **dict.fromkeys(("create", "run", "start"), "sampan.engine.launching"),
    "logs": "sampan.engine.logs",
    **dict.fromkeys(("pause", "unpause"), "sampan.engine.pausing"),
    "port": "sampan.engine.ports",
    "remove": "sampan.engine.removal",
    "again": "sampan.engine.restarting",
    "top": "sampan.engine.top",
    **dict.fromkeys(("rename", "update"), "sampan.engine.updating"),
    "stats": "sampan.engine.usage",
}


class Containers(Elsewhere):
    """Operate on the containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store.containers
        self.paths = engine.store.paths

    def get(self, name: str, id: str = "", *, going: bool = False) -> Record:
        """Give the record of a container, brought up to date; NotFound.

        With `id` that container is meant, which had `name` when the caller looked it up before. With `going` the caller
        holds its lock and is about to remove it, so an end that is found is not written to the database.
        """
        try:
            return self.refresh(self.store.get(id or name), going)
        except NotFound as error:
            raise NotFound(f"no such container: {name[:300]}", error.hint) from error

    def refresh(self, record: Record, going: bool = False) -> Record:
        """Bring a record up to date: whether the container still runs, is paused, or how it ended."""
        if record.status not in ("running", "restarting"):
            return record
        if process.alive(record.pid, record.pid_start, record.boot_id):
            if record.status == "running" and cgroup.paused(record.id):
                record.status = "paused"
            return record
        if not os.path.exists(self.paths.container(record.id) + "/exit"):
            before, record = record, self.store.get(record.id)
            if record.pid != before.pid:
                return self.refresh(record, going)  # it has just been started again
        from sampan.engine import outcome

        now, final = outcome.ended(self.engine, record)
        if not going:
            if final and self.note(record, now):  # on a full disk `ps` still tells
                return self.store.get(record.id)
            latest = self.store.get(record.id)
            if latest.pid != record.pid:
                return self.refresh(latest)  # it has been started again meanwhile
        for field, value in now.items():
            setattr(record, field, value)
        return record

    def tidied(self, record: Record) -> Record | None:
        """Bring a record up to date, and remove a container of --rm that has ended but was not removed, because its
        caller was killed. None when it is gone.
        """
        try:
            now = self.refresh(record)
        except NotFound:  # it removed itself meanwhile
            return None
        if not (now.auto_remove and now.status == "exited"):
            return now
        return None if self.discard_ended(now) else now

    def discard_ended(self, record: Record, child: Child | None = None) -> bool:
        """Remove a container of --rm that has ended; False when somebody restarts it."""
        home = self.paths.container(record.id)
        with Alone(home):
            if os.path.exists(home + "/restarted"):
                from sampan.engine import ending

                return ending.discard_unless_restarted(self.engine, record)
            self.discard(record, child)
        return True

    def note(self, record: Record, state: dict[str, Any]) -> bool:
        """Write an end to the database, unless the container runs again; False when the disk is full."""
        try:
            self.store.update(record.id, of_pid=record.pid, **state)
        except Unavailable as error:
            self.engine.warn([error.message])
            return False
        return True

    def settled(self, record: Record, *, going: bool = False) -> int:
        """Give the exit code of a container that has ended; 0 when it is gone already. `going` as in `get`."""
        try:
            return self.get(record.id, going=going).exit_code
        except NotFound:
            return 0

    def delete(
        self, record: Record, *, durable: bool = True, volumes: bool, placement: Placement | None = None
    ) -> None:
        """Remove the record of a container that does not run, its files, and its anonymous volumes if so asked."""
        cgroup.remove(placement or cgroup.named(record.id))
        files.unlink(os.path.join(self.paths.run, "attach", record.id[:12]))
        aside = self._set_aside(record)
        try:
            emptied = self.erase(record, durable, volumes)
        except Unavailable:  # a disk that is full, with no reserve left: its files make the room
            self.engine.remove_tree(aside)
            emptied = self.erase(record, durable, volumes)
        if not files.remove_untouched_home(aside):
            self.engine.remove_tree(aside)
        for path in emptied:
            self.engine.remove_tree(path)

    def _set_aside(self, record: Record) -> str:
        """Rename the directory of a container that is being removed, and give its new name.

        So a container with half of its files can never be started. One of --rm keeps its name: its record goes before
        its files, and without a record nothing is started.
        """
        home = self.paths.container(record.id)
        if record.auto_remove:
            return home
        aside = gone(home)
        try:
            os.rename(home, aside)
        except FileNotFoundError:
            return aside if os.path.isdir(aside) else home
        return aside

    def erase(self, record: Record, durable: bool, volumes: bool) -> list[str]:
        """Remove a record; give the directories of volumes that went with it, for the caller to remove."""
        with self.engine.store.db.transaction(durable=durable, frees=True):
            if self.store.remove(record.id):
                from sampan.store import events  # not engine.events, which a removal needs nothing else of

                events.emit_container(self.paths.events, "destroy", record)
            inside, mounts = self.paths.volumes + "/", record.spec["mounts"] if volumes else ()
            if not any(str(mount.get("source")).startswith(inside) for mount in mounts):
                return []
            from sampan.engine import volumemounts

            volumemounts.let_go(self.engine, record.id)
            return volumemounts.release(self.engine, volumemounts.unnamed(self.engine, record))

    def discard(self, record: Record, child: Child | None = None) -> None:
        """Remove what is left of a container that has ended or never started, and its anonymous volumes.

        `child` knows its groups, which are looked for without it.
        """
        self.delete(record, durable=False, volumes=True, placement=child.placement if child else None)

    def socket(self, container_id: str) -> str:
        """Give the path of the socket on which the container's supervisor takes clients; "" when it is too long."""
        directory = os.path.join(self.paths.run, "attach")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        path = os.path.join(directory, container_id[:12])
        return path if len(os.fsencode(path)) < 100 else ""

    # ---- operations of other modules ----

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Import the module of an operation (MODULES) and give the operation, bound to this engine."""
            module = MODULES.get(name)
            if module is None:
                raise AttributeError(f"containers have no operation {name!r}")
            __import__(module)
            operation, engine = getattr(sys.modules[module], name), self.engine
            return lambda *args, **settings: operation(engine, *args, **settings)
