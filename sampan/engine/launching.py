"""How a container begins: create, start, run.

A new container's directory is made and locked before its record is in the store (`_enter`), so no other process starts
or removes it until its creator is done.
"""

from __future__ import annotations

import os
import time

from sampan.engine import terminal
from sampan.engine.alone import Alone
from sampan.engine.containers import SHARED
from sampan.errors import Conflict, NotFound
from sampan.runtime import process
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.engine import Engine
    from sampan.oci.spec import RunOptions
    from sampan.runtime.launch import Child, Exit
    from sampan.store.containers import Record
    from sampan.store.images import Image
    from sampan.store.snapshots import Locks


def create(
    engine: Engine, image: str, options: RunOptions, *, name: str = "", auto_remove: bool = False, durable: bool = True
) -> str:
    """Create a container from an image and give its id; NotFound when the image is not here."""
    record = new(engine, image, options, name, auto_remove)
    with _enter(engine, record, durable):
        return record.id


def _enter(engine: Engine, record: Record, durable: bool) -> Alone:
    """Put a new container into the store, and give its lock, which is held."""
    alone = Alone(engine.store.paths.container(record.id))
    try:
        begin_home(engine, record.id)
        fill_home(engine, record.id)
        alone.__enter__()
        engine.store.containers.insert(record, durable=durable)
    except BaseException:
        engine.containers.discard(record)
        alone.__exit__()
        raise
    finally:
        record.recorded()
    engine.events.container("create", record)
    return alone


def new(engine: Engine, image: str, options: RunOptions, name: str, auto_remove: bool) -> Record:
    """Make the record of a container that is not in the store yet; its `use` keeps the image's layers until it is."""
    found, use = _held(engine, image)
    try:
        record = _new(engine, found, image, options, name, auto_remove)
    except BaseException:
        use.close()
        raise
    record.use = use
    return record


def _held(engine: Engine, image: str) -> tuple[Image, Locks]:
    """Find an image and keep its layers, whoever removes it."""
    for tries_left in (2, 1, 0):
        found = engine.images.runnable(image)  # NotFound where it was removed meanwhile
        try:
            return found, engine.store.snapshots.use(found.diff_ids)
        except NotFound:
            if not tries_left:  # the image is here, but not all of it
                raise
    raise AssertionError


def _new(engine: Engine, found: Image, image: str, options: RunOptions, name: str, auto_remove: bool) -> Record:
    from sampan.oci import spec as specs

    name = name.removeprefix("/") or name  # `inspect` prints names with one
    if options.restart:
        from sampan.engine import restarting

        restarting.check(options.restart, auto_remove)
    process.signal_number(options.stop_signal or "TERM")
    if options.pid.startswith(SHARED) or options.network.startswith(SHARED):
        from sampan.engine import sharing

        sharing.resolve(engine, options)
    image_config = found.config.get("config") or {}
    config = {"layers": found.diff_ids, "options": specs.options_dict(options)}
    if "Healthcheck" in image_config or any("health" in key for key in config["options"]):
        from sampan.engine import health

        config.update(health.config_for(image_config, options))
    container_id = os.urandom(32).hex()
    spec = specs.config_for(found.config, options, container_id=container_id, rootless=engine.host.rootless)
    if options.volumes_from or options.add_host or options.dns or options.dns_search or options.dns_option:
        from sampan.engine import naming

        naming.prepare(engine, spec, options, container_id, found.diff_ids)
    if any(mount["type"] in ("volume", "bind") for mount in spec["mounts"]):
        from sampan.engine import volumemounts

        volumemounts.attach(engine, spec, found.diff_ids, container_id)
    if options.network == "host":
        from sampan.runtime import hostfiles

        layers = engine.store.snapshots.directories(found.diff_ids)
        hostfiles.add(spec, engine.store.paths.container(container_id), layers)
    return engine.store.containers.new(
        container_id,
        name=name,
        image_id=found.id,
        image_reference=image,
        config={"spec": spec, **config},
        auto_remove=auto_remove,
        labels={**(image_config.get("Labels") or {}), **(options.labels or {})},
    )


def begin_home(engine: Engine, container_id: str) -> None:
    """Make a container's own directory; if its creator is killed, engine/leftovers.py finds the container by it."""
    try:
        os.mkdir(engine.store.paths.container(container_id), mode=0o700)
    except OSError as exc:
        raise files.failure("make the directories of the container", exc) from exc


def fill_home(engine: Engine, container_id: str) -> None:
    """Make what is in a container's directory."""
    home = engine.store.paths.container(container_id)
    try:
        os.mkdir(home + "/work", mode=0o700)
        os.mkdir(home + "/upper")
        os.chmod(home + "/upper", 0o755)  # the container's root directory, whatever the umask
    except OSError as exc:
        raise files.failure("make the directories of the container", exc) from exc


def mark_running(engine: Engine, record: Record, child: Child) -> None:
    """Write down that it runs."""
    record.pid = child.pid
    engine.store.containers.update(
        record.id,
        durable=not record.auto_remove,
        status="running",
        pid=record.pid,
        pid_start=process.started(child.pid),
        boot_id=process.boot_id(),
        started=child.started_ns,
        finished=0,
        exit_code=0,
    )
    child.keep()


def start(
    engine: Engine,
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
    # The name is looked up once: by the time we hold the lock, it may be another container's.
    id = id or engine.store.containers.get(name).id
    if attach and engine.containers.get(name, id).status == "running":
        return engine.containers.attach(id, stdin=interactive, detach_keys=detach_keys)
    with terminal.Forward(attach) as forward, terminal.Raw() as raw:
        with Alone(engine.store.paths.container(id), restore=True):
            record = engine.containers.get(name, id)
            if record.status == "running":
                if attach:
                    raise Conflict(
                        f"cannot start container {record.name}: somebody else did",
                        "use `sampan attach` to watch it",
                    )
                return None
            engine.containers.check_startable(record)
            files.unlink(os.path.join(engine.store.paths.container(record.id), "stopped"))
            if attach:
                engine.events.container("attach", record)
            try:
                _hold(raw, attach and interactive and record.has_terminal)
                child = starter.start_record(
                    engine, record, foreground=attach, interactive=interactive, supervised=True, keys=keys
                )
                raw.whole()
                mark_running(engine, record, child)
            except BaseException as error:
                _failed(engine, record, error)
                raise
        if not attach:
            child.close()
            return None
        return foreground(engine, record, child, forward)


def _hold(raw: terminal.Raw, wanted: bool) -> None:
    """Put our terminal into raw mode if the program reads from it; else Ctrl-C stays a signal to us."""
    if wanted:
        raw.hold(0)


def run(
    engine: Engine,
    /,
    options: RunOptions,
    *,
    image: str,
    name: str = "",
    auto_remove: bool = False,
    detach: bool = False,
    detach_keys: str = terminal.DETACH_KEYS,
    sig_proxy: bool = True,
    on_create: Callable[[str], None] | None = None,
) -> int | str:
    """Create and start: give the exit code, or the id when detached.  A container that cannot start is removed if
    `auto_remove`.
    """
    keys = terminal.keys(detach_keys)  # wrong ones are told also where nothing can use them, as Docker does
    if auto_remove and not (name or detach or options.tty):
        from sampan.engine import once

        return once.run(engine, image, options, sig_proxy=sig_proxy, on_create=on_create)
    from sampan.engine import starter

    record = new(engine, image, options, name, auto_remove)
    # Nothing is acknowledged before it runs: the next transaction makes both durable, with one sync.
    alone = _enter(engine, record, durable=False)
    with terminal.Forward(not detach, sig_proxy) as forward, terminal.Raw() as raw:
        with alone:
            try:
                if on_create is not None:
                    on_create(record.id)
                if not detach:
                    engine.events.container("attach", record)
                _hold(raw, options.tty and options.interactive and not detach)
                supervised = detach or options.tty or not auto_remove
                child = starter.start_record(
                    engine, record, foreground=not detach, interactive=options.interactive,
                    supervised=supervised, keys=keys if options.tty else "",
                )  # fmt: skip
                raw.whole()
                mark_running(engine, record, child)
            except BaseException as error:
                _failed(engine, record, error)
                raise
        if detach:
            child.close()
            return record.id
        return foreground(engine, record, child, forward)


def _failed(engine: Engine, record: Record, error: BaseException) -> None:
    """Undo or note a start that failed."""
    if record.auto_remove:
        engine.containers.discard(record)
    else:
        from sampan.engine import ending

        ending.start_failed(engine, record, error)


def foreground(engine: Engine, record: Record, child: Child, forward: terminal.Forward) -> int:
    """Wait for a container that has our terminal or pipes; a detached one goes on without us."""
    resize = (lambda: child.resize(*terminal.size(1))) if record.has_terminal else None
    forward.to(child.signal, resize)
    ended = child.wait()
    if child.detached:
        engine.events.container("detach", record)
        return 0
    _ended(engine, record, ended, child)
    return ended.told()


def _ended(engine: Engine, record: Record, ended: Exit, child: Child) -> None:
    if record.auto_remove:
        engine.containers.discard_ended(record, child)
        return
    from sampan.engine import restarting

    if restarting.waiter(engine.store.paths.container(record.id), process.boot_id()) is None:
        now = {"status": "exited", "exit_code": ended.code, "oom": int(ended.oom), "pid": 0}
        engine.containers.note(record, {**now, "finished": time.time_ns()})
