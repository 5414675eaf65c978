"""Containers: create, start, run, wait, stop, kill, remove.

State is read, never trusted: a container is running when its process (pid, start time, boot id) lives; how it ended is
in the record that its supervisor wrote.
"""

from __future__ import annotations

import os
import sys
import time

from sampan.engine import terminal
from sampan.engine.alone import Alone
from sampan.errors import Conflict, NotFound, Unavailable
from sampan.runtime import cgroup, process
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.elsewhere import Elsewhere
    from sampan.engine.engine import Engine
    from sampan.oci.spec import RunOptions
    from sampan.runtime.cgroup import Placement
    from sampan.runtime.launch import Child, Exit
    from sampan.store.containers import Record
else:
    Elsewhere = object

SHARED = "container:"  # oci.spec.CONTAINER, without its import


class Containers(Elsewhere):
    """Operate on the containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store.containers
        self.paths = engine.store.paths

    # ---- create ----

    def create(
        self, image: str, options: RunOptions, *, name: str = "", auto_remove: bool = False, durable: bool = True
    ) -> str:
        """Create a container from an image and give its id; NotFound when the image is not here."""
        record = self.new(image, options, name, auto_remove)
        with self._enter(record, durable):
            return record.id

    def _enter(self, record: Record, durable: bool) -> Alone:
        """Put a new container into the store, and give its lock, held: nobody else starts or removes it before."""
        alone = Alone(self.paths.container(record.id))
        try:
            self.make_home(record.id)
            alone.__enter__()
            self.store.insert(record, durable=durable)
        except BaseException:
            self.discard(record)
            alone.__exit__()
            raise
        self.engine.events.container("create", record)
        return alone

    def new(self, image: str, options: RunOptions, name: str, auto_remove: bool) -> Record:
        """Make the record of a container that is not in the store yet."""
        from sampan.oci import spec as specs

        found = self.engine.images.runnable(image)
        if options.restart:
            from sampan.engine import restarting

            restarting.check(options.restart, auto_remove)
        process.signal_number(options.stop_signal or "TERM")
        if options.pid.startswith(SHARED) or options.network.startswith(SHARED):
            from sampan.engine import sharing

            sharing.resolve(self.engine, options)
        image_config = found.config.get("config") or {}
        config = {"layers": found.diff_ids, "options": specs.options_dict(options)}
        if "Healthcheck" in image_config or any("health" in key for key in config["options"]):
            from sampan.engine import health

            config.update(health.config_for(image_config, options))
        container_id = os.urandom(32).hex()
        spec = specs.config_for(found.config, options, container_id=container_id)
        if options.volumes_from or options.add_host or options.dns or options.dns_search or options.dns_option:
            from sampan.engine import naming

            naming.prepare(self.engine, spec, options, container_id, found.diff_ids)
        if any(mount["type"] in ("volume", "bind") for mount in spec["mounts"]):
            from sampan.engine import volumes

            volumes.attach(self.engine, spec, found.diff_ids, container_id)
        if options.network == "host":
            from sampan.runtime import hostfiles

            lowers = self.engine.store.snapshots.lowers(found.diff_ids)
            layers = [os.path.join(self.paths.snapshots, lower) for lower in lowers]
            hostfiles.add(spec, self.paths.container(container_id), layers)
        return self.store.new(
            container_id,
            name=name,
            image_id=found.id,
            image_reference=image,
            config={"spec": spec, **config},
            auto_remove=auto_remove,
            labels={**(image_config.get("Labels") or {}), **(options.labels or {})},
        )

    def make_home(self, container_id: str) -> None:
        """Make the directories of a container."""
        self.begin_home(container_id)
        self.fill_home(container_id)

    def begin_home(self, container_id: str) -> None:
        """Make a container's own directory, by which it is found if whoever makes it is killed."""
        try:
            os.mkdir(self.paths.container(container_id), mode=0o700)
        except OSError as exc:
            raise files.failure("make the directories of the container", exc) from exc

    def fill_home(self, container_id: str) -> None:
        """Make what is in a container's directory."""
        home = self.paths.container(container_id)
        try:
            os.mkdir(home + "/work", mode=0o700)
            os.mkdir(home + "/upper")
            os.chmod(home + "/upper", 0o755)  # the container's root directory, whatever the umask
        except OSError as exc:
            raise files.failure("make the directories of the container", exc) from exc

    # ---- start ----

    def socket(self, container_id: str) -> str:
        """Give the path of the socket on which the container's supervisor takes clients; "" when it is too long."""
        directory = os.path.join(self.paths.run, "attach")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        path = os.path.join(directory, container_id[:12])
        return path if len(os.fsencode(path)) < 100 else ""

    def mark_running(self, record: Record, child: Child) -> None:
        """Write down that it runs."""
        record.pid = child.pid
        self.store.update(
            record.id,
            durable=not record.auto_remove,
            status="running",
            pid=record.pid,
            pid_start=process.start_time(child.pid) or 0,
            boot_id=process.boot_id(),
            started=child.started_ns,
            finished=0,
            exit_code=0,
        )
        child.keep()

    def start(
        self,
        name: str,
        *,
        attach: bool = False,
        interactive: bool = False,
        detach_keys: str = terminal.DETACH_KEYS,
        id: str = "",
    ) -> int | None:
        """Start a created or exited container; with `attach` wait and give the exit code, also of one that runs.

        `id` as in `get`.
        """
        from sampan.engine import starter

        keys = terminal.keys(detach_keys)
        # Looked up once: when the lock is ours, another container may have the name.
        id = id or self.store.get(name).id
        if attach and self.get(name, id).status == "running":
            return self.attach(id, stdin=interactive, detach_keys=detach_keys)
        with terminal.Forward(attach) as forward:
            with Alone(self.paths.container(id), restore=True):
                record = self.get(name, id)
                if record.status == "running":
                    if attach:
                        raise Conflict(
                            f"cannot start container {record.name}: somebody else did",
                            "use `sampan attach` to watch it",
                        )
                    return None
                self.check_startable(record)
                files.unlink(os.path.join(self.paths.container(record.id), "stopped"))
                if attach:
                    self.engine.events.container("attach", record)
                try:
                    child = starter.start_record(
                        self.engine, record, foreground=attach, interactive=interactive, supervised=True, keys=keys
                    )
                    self.mark_running(record, child)
                except BaseException as error:
                    self._failed(record, error)
                    raise
            if not attach:
                child.close()
                return None
            return self.foreground(record, child, forward)

    def run(
        self,
        options: RunOptions,
        *,
        image: str,
        name: str = "",
        auto_remove: bool = False,
        detach: bool = False,
        detach_keys: str = terminal.DETACH_KEYS,
        sig_proxy: bool = True,
        on_create: Any = None,
        **_: Any,
    ) -> int | str:
        """Create and start: give the exit code, or the id when detached.  A container that cannot start is removed if
        `auto_remove`.
        """
        if auto_remove and not (name or detach or options.tty):
            from sampan.engine import once

            return once.run(self.engine, image, options, sig_proxy=sig_proxy, on_create=on_create)
        from sampan.engine import starter

        record = self.new(image, options, name, auto_remove)
        # Nothing is acknowledged before it runs: the next transaction makes both durable, with one sync.
        alone = self._enter(record, durable=False)
        with terminal.Forward(not detach, sig_proxy) as forward:
            with alone:
                try:
                    if on_create is not None:
                        on_create(record.id)
                    if not detach:
                        self.engine.events.container("attach", record)
                    keys = terminal.keys(detach_keys) if options.tty else ""
                    supervised = detach or options.tty or not auto_remove
                    child = starter.start_record(
                        self.engine, record, foreground=not detach, interactive=options.interactive,
                        supervised=supervised, keys=keys,
                    )  # fmt: skip
                    self.mark_running(record, child)
                except BaseException as error:
                    self._failed(record, error)
                    raise
            if detach:
                child.close()
                return record.id
            return self.foreground(record, child, forward)

    def _failed(self, record: Record, error: BaseException) -> None:
        """Undo or note a start that failed."""
        if record.auto_remove:
            self.discard(record)
        else:
            from sampan.engine import ending

            ending.start_failed(self.engine, record, error)

    def discard(self, record: Record, child: Child | None = None) -> None:
        """Remove what is left of a container that has ended or never started, and its anonymous volumes.

        `child` knows its groups, which are looked for without it.
        """
        self.delete(record, durable=False, volumes=True, placement=child.placement if child else None)

    def foreground(self, record: Record, child: Child, forward: terminal.Forward) -> int:
        """Wait for a container that has our terminal or pipes; a detached one goes on without us."""
        tty = bool(record.config["spec"]["process"].get("terminal"))
        resize = (lambda: child.resize(*terminal.size(1))) if tty else None
        forward.to(child.signal, resize)
        with terminal.Raw(0 if tty else -1):
            ended = child.wait()
        if child.detached:
            self.engine.events.container("detach", record)
            return 0
        self._ended(record, ended, child)
        return ended.code

    def _ended(self, record: Record, ended: Exit, child: Child) -> None:
        if record.auto_remove:
            self._discard_ended(record, child)
            return
        from sampan.engine import restarting

        if restarting.waiter(self.paths.container(record.id), process.boot_id()) is None:
            now = {"status": "exited", "exit_code": ended.code, "oom": int(ended.oom), "pid": 0}
            self._note(record, {**now, "finished": time.time_ns()})

    def _note(self, record: Record, state: dict[str, Any]) -> bool:
        """Write an end down, unless it runs again; False on a full disk, where its exit code can still be told."""
        try:
            self.store.update(record.id, of_pid=record.pid, **state)
        except Unavailable as error:
            self.engine.warn([error.message])
            return False
        return True

    # ---- look ----

    def get(self, name: str, id: str = "") -> Record:
        """Give the container with its state as it is now; `id` is which one `name` meant when that was looked up."""
        try:
            return self.refresh(self.store.get(id or name))
        except NotFound as error:
            raise NotFound(f"no such container: {name[:300]}", error.hint) from error

    def refresh(self, record: Record) -> Record:
        """Bring a record that says running up to date: the kernel knows better whether it is, or is paused."""
        if record.status not in ("running", "restarting"):
            return record
        if process.alive(record.pid, record.pid_start, record.boot_id):
            if record.status == "running" and cgroup.paused(record.id):
                record.status = "paused"
            return record
        if not os.path.exists(self.paths.container(record.id) + "/exit"):
            before, record = record, self.store.get(record.id)
            if record.pid != before.pid:
                return self.refresh(record)  # it has just been started again
        from sampan.engine import ending

        now, final = ending.ended(self.engine, record)
        # On a full disk `ps` still tells, and `rm`, which makes room, comes this way too.
        if final and self._note(record, now):
            return self.store.get(record.id)
        latest = self.store.get(record.id)
        if latest.pid != record.pid:
            return self.refresh(latest)  # it has been started again meanwhile
        for field, value in now.items():
            setattr(record, field, value)
        return record

    def tidied(self, record: Record) -> Record | None:
        """Bring a record up to date; remove one that should have removed itself, when its caller was killed.  None when
        it is gone.
        """
        try:
            now = self.refresh(record)
        except NotFound:  # it removed itself meanwhile
            return None
        if not (now.auto_remove and now.status == "exited"):
            return now
        return None if self._discard_ended(now) else now

    def _discard_ended(self, record: Record, child: Child | None = None) -> bool:
        """Remove a container that removes itself; False when somebody restarts it."""
        home = self.paths.container(record.id)
        with Alone(home):
            if os.path.exists(home + "/restarted"):
                from sampan.engine import ending

                return ending.discard_unless_restarted(self.engine, record)
            self.discard(record, child)
        return True

    def settled(self, record: Record) -> int:
        """Read how it ended; one that removes itself may be gone."""
        try:
            return self.get(record.id).exit_code
        except NotFound:
            return 0

    def delete(
        self, record: Record, *, durable: bool = True, volumes: bool, placement: Placement | None = None
    ) -> None:
        """Remove the record of a container that does not run, its files, and its anonymous volumes if so asked."""
        cgroup.remove(placement or cgroup.named(record.id))
        files.unlink(os.path.join(self.paths.run, "attach", record.id[:12]))
        gone = self._set_aside(record)
        try:
            emptied = self._erase(record, durable, volumes)
        except Unavailable:  # a disk that is full, with no reserve left: its files make the room
            self.engine.remove_tree(gone)
            emptied = self._erase(record, durable, volumes)
        if not files.remove_untouched_home(gone):
            self.engine.remove_tree(gone)
        for path in emptied:
            self.engine.remove_tree(path)

    def _set_aside(self, record: Record) -> str:
        """Give the directory of a container that is being removed, by a name under which nobody starts it.

        Renamed first, removed last: at no moment can a container with half of its files be started. One that removes
        itself is not started once its record has gone, before its files.
        """
        home, gone = self.paths.container(record.id), f"{self.paths.containers}/.gone-{record.id}"
        if record.auto_remove:
            return home
        try:
            os.rename(home, gone)
        except FileNotFoundError:
            return gone if os.path.isdir(gone) else home
        return gone

    def _erase(self, record: Record, durable: bool, volumes: bool) -> list[str]:
        with self.engine.store.db.transaction(durable=durable, frees=True):
            if self.store.remove(record.id):
                self.engine.events.container("destroy", record)
            inside, mounts = self.paths.volumes + "/", record.config["spec"]["mounts"] if volumes else ()
            if not any(str(mount.get("source")).startswith(inside) for mount in mounts):
                return []
            from sampan.engine import volumes as attached

            attached.let_go(self.engine, record.id)
            return attached.release(self.engine, attached.unnamed(self.engine, record))

    # ---- what is elsewhere ----

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Find an operation of elsewhere.py."""
            from sampan.engine.elsewhere import MODULES

            module = MODULES.get(name)
            if module is None:
                raise AttributeError(f"containers have no operation {name!r}")
            __import__(module)
            operation, engine = getattr(sys.modules[module], name), self.engine
            return lambda *args, **settings: operation(engine, *args, **settings)
