"""A container of which nothing is kept and that nobody supervises: `Engine.run`, `run --rm` without name or terminal.

It is recorded when it runs, while it runs: one transaction on the way where others have two. Until then its directory
is locked, so that the collector (store/gc.py) lets it be.
"""

from __future__ import annotations

from sampan.engine import launching, terminal
from sampan.engine.alone import Alone
from sampan.engine.containers import SHARED
from sampan.errors import Unavailable
from sampan.runtime import cgroup, process
from sampan.runtime import launch as helpers
from sampan.store import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.containers import Containers
    from sampan.engine.engine import Engine
    from sampan.oci.spec import RunOptions
    from sampan.runtime.launch import Child
    from sampan.store.containers import Record


def run(
    engine: Engine, image: str, options: RunOptions, *, sig_proxy: bool, on_create: Callable[[str], None] | None
) -> int:
    """Run it with the caller's streams and give its exit code."""
    containers = engine.containers
    with terminal.Forward(True, sig_proxy) as forward:
        record, child = launch(containers, image, options, (0, 1, 2), options.interactive, on_create)
        return launching.foreground(engine, record, child, forward)


def launch(
    containers: Containers,
    image: str,
    options: RunOptions,
    fds: tuple[int, int, int],
    interactive: bool,
    on_create: Callable[[str], None] | None = None,
    sweep: bool = False,
) -> tuple[Record, Child]:
    """Start it on given descriptors; the caller waits and then discards it, with `end` if it is to `sweep`."""
    shares = options.pid.startswith(SHARED) or options.network.startswith(SHARED)
    # The helper gets ready while the container is thought out; one that joins another is given that one's pidfd.
    alone = options.network in ("", "none") and not containers.engine.host.rootless
    child = None if shares else helpers.spawn(*fds, network=alone)
    record = None
    try:
        containers.engine.store.db.prepare()  # it is recorded after its start: what a full disk refuses, it refuses now
        record = launching.new(containers.engine, image, options, "", True)
        record.name = names.pick(9)  # known before it is in the store, for its events
        containers.engine.events.container("create", record)
        # Before its groups: who clears up after killed commands finds them by it.
        launching.begin_home(containers.engine, record.id)
        with Alone(containers.paths.container(record.id)):
            child = _start(containers, record, interactive, fds, on_create, child, sweep)
            record.status, record.pid, record.started = "running", child.pid, child.started_ns
            record.pid_start, record.boot_id = process.started(child.pid), process.boot_id()
            containers.store.insert(record, durable=False)
            record.recorded()
    except BaseException:
        if child is not None:
            child.close()  # which ends what nobody supervises
        if record is not None:
            record.recorded()
            containers.discard(record)
            containers.engine.events.container("destroy", record)
        raise
    return record, child


def _start(
    containers: Containers,
    record: Record,
    interactive: bool,
    fds: tuple[int, int, int],
    on_create: Callable[[str], None] | None,
    child: Child | None,
    sweep: bool,
) -> Child:
    from sampan.engine import starter

    def meanwhile() -> None:
        containers.engine.events.container("attach", record)
        launching.fill_home(containers.engine, record.id)
        if on_create is not None:
            on_create(record.id)

    return starter.start_record(
        containers.engine, record, foreground=True, interactive=interactive, supervised=False, fds=fds,
        meanwhile=meanwhile, child=child, sweep=sweep,
    )  # fmt: skip


def end(containers: Containers, record: Record, child: Child) -> None:
    """Remove what is left of a container whose end was told: its record, while its helper removes groups and files."""
    try:
        emptied = containers.erase(record, False, True)
    except Unavailable:  # a disk that is full: its files make the room
        child.swept()
        containers.discard(record, child)
        return
    except BaseException:
        child.close()
        raise
    is_gone = child.swept()
    assert child.placement is not None
    cgroup.remove(child.placement)
    if not is_gone:
        containers.engine.remove_tree(containers.paths.container(record.id))
    for path in emptied:
        containers.engine.remove_tree(path)
