"""Restart policies: what the supervisor is told at a start, the waiter that it leaves at an end, and who may stop that.

At the end of a container that its policy wants again, the supervisor leaves a process, the waiter, that waits the pause
and then becomes `sampan start --again` (helper/restart.c). The exit record names it, so a container is `restarting` as
long as that process lives, and killing it is all that it takes to call the restart off. Both are done under the
container's lock (engine/alone.py): nobody kills a waiter that has begun to start, and none starts what was called off.

    containers/<id>/restart    policy, most restarts, restarts so far, last pause in ms; absent without a policy
    containers/<id>/stopped    somebody stopped it by hand
"""

from __future__ import annotations

import os

from sampan.engine import outcome
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.oci import restart
from sampan.runtime import process
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record


class Waiter:
    """Hold who waits to start a container again: pid, start time, the number of the restart, and its pause in ms."""

    __slots__ = ("count", "pause", "pid", "start")

    def __init__(self, pid: int, start: int, count: int, pause: int) -> None:
        self.pid = pid
        self.start = start
        self.count = count
        self.pause = pause


def policy(record: Record) -> tuple[str, int]:
    """Give a container's policy and the most restarts."""
    return restart.parse(str(record.options.get("restart") or ""))


def for_supervisor(engine: Engine, record: Record, count: int = 0, pause: int = 0) -> list[str]:
    """Write the policy down for a start, the `count`-th one of its kind, and give helper/restart.c's words."""
    home = engine.store.paths.container(record.id)
    put(home, *policy(record), count, pause)
    words = engine.command(["start", "--again", record.id])
    return [f"{home}/restart", f"{home}/stopped", *words]


def put(home: str, name: str, most: int, count: int, pause: int) -> None:
    """Write the policy's file, or remove it where there is none."""
    if name == restart.NO:
        files.unlink(f"{home}/restart")
    else:
        files.replace(f"{home}/restart", f"{name} {most} {count} {pause}\n".encode(), durable=False)


def change(engine: Engine, record: Record, text: str) -> None:
    """Give a container another policy, also while it runs (`update --restart`)."""
    home = engine.store.paths.container(record.id)
    put(home, *restart.parse(text), *counted(home))
    if record.status == "exited" and policy(record)[0] == restart.NO:
        forbid(home)  # nobody noted whether it was stopped by hand: it stays as it is until somebody starts it


def check(text: str, auto_remove: bool) -> None:
    """Raise InvalidArgument when a new container cannot have a policy."""
    if restart.parse(text)[0] != restart.NO and auto_remove:
        raise InvalidArgument(
            "conflicting options: --restart and --rm: a container that removes itself cannot start again"
        )


def counted(home: str, record: Record | None = None) -> tuple[int, int]:
    """Give the restarts since somebody started it, and the last pause in ms; with `record`, the one that is due too."""
    due = waiter(home, record.boot_id) if record is not None and record.status == "restarting" else None
    if due is not None:
        return due.count, due.pause
    try:
        with open(f"{home}/restart", "rb") as file:
            words = file.read(64).split()
        return int(words[2]), int(words[3])
    except (FileNotFoundError, ValueError, IndexError):
        return 0, 0


def waiter(home: str, boot: str) -> Waiter | None:
    """Give the waiter of an ended container; None when nobody waits (any more)."""
    end = outcome.read(home)
    return Waiter(*end.waiter) if end is not None and end.is_awaited(boot) else None


def forbid(home: str) -> None:
    """Note that a container is stopped by hand, before it is."""
    if os.path.exists(f"{home}/restart") and not os.path.exists(f"{home}/stopped"):
        try:
            with open(f"{home}/stopped", "wb"):
                files.sync_directory(home)
        except FileNotFoundError:
            return  # it has just been removed
        except OSError as exc:
            if exc.errno not in files.FULL:
                raise
            files.unlink(f"{home}/restart")  # no room for a mark: without its policy nothing starts it either


def is_forbidden(home: str) -> bool:
    """Say whether a container was stopped by hand since its last start."""
    return os.path.exists(f"{home}/stopped")


def call_off(engine: Engine, record: Record) -> Record:
    """End the waiter of a container that is restarting, and give its state after that; the lock is the caller's."""
    home = engine.store.paths.container(record.id)
    found = waiter(home, record.boot_id)
    if found is not None:
        try:
            process.send(found.pid, found.start, record.boot_id, 9)
        except NotFound:
            return engine.containers.get(record.name, record.id)
        process.wait(found.pid, found.start, record.boot_id, 10)
    return engine.containers.get(record.name, record.id)


def wait(engine: Engine, record: Record) -> None:
    """Wait until a container that is restarting no longer is."""
    found = waiter(engine.store.paths.container(record.id), record.boot_id)
    if found is not None:
        process.wait(found.pid, found.start, record.boot_id)


def stop(engine: Engine, record: Record) -> Record:
    """Stop a container that is restarting, if it still is: it runs, or is over, when this returns."""
    from sampan.engine.alone import Alone

    home = engine.store.paths.container(record.id)
    forbid(home)
    with Alone(home):
        now = engine.containers.get(record.name, record.id)
        return call_off(engine, now) if now.status == "restarting" else now


def again(engine: Engine, name: str) -> bool:
    """Start a container again as its waiter, which this process must be; say whether it was."""
    from sampan.engine.alone import Alone

    record_id = engine.store.containers.get(name).id
    home = engine.store.paths.container(record_id)
    with Alone(home):
        record = engine.containers.get(name, record_id)
        found = waiter(home, record.boot_id)
        if found is None or found.pid != os.getpid():
            return False
        # The record of the end goes with the start: until that is done, this process stands for the container.
        state: dict[str, Any] = {"status": "restarting", "pid": found.pid, "pid_start": found.start}
        state.update(exit_code=record.exit_code, oom=record.oom, finished=record.finished)
        engine.store.containers.update(record.id, durable=False, **state)
        _launch(engine, record, found)
    return True


def _launch(engine: Engine, record: Record, found: Waiter) -> None:
    from sampan.engine import launching, starter

    how = (found.count, found.pause)
    try:
        child = starter.start_record(engine, record, foreground=False, interactive=False, supervised=True, restarts=how)
    except BaseException as error:
        code = error.exit_code if isinstance(error, SampanError) else 128
        engine.store.containers.update(record.id, status="exited", exit_code=code, pid=0)
        raise
    launching.mark_running(engine, record, child)
    child.close()
