"""How a container is ended and waited for: kill, stop, restart, wait; and what a start needs to be possible."""

from __future__ import annotations

import os

from sampan.engine import alone, restarting, state, stopping, supervisors
from sampan.engine.alone import Alone
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.oci import restart as policies
from sampan.runtime import cgroup, process
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

NOT_RUNNING, NEXT_EXIT, REMOVED = "not-running", "next-exit", "removed"


def send(record: Record, number: int, *, resume: bool = True) -> None:
    """Signal the container's first process; one that has just ended needs no signal.

    A paused one gets it when it goes on, which `resume` makes it do now.
    """
    try:
        process.send(record.pid, record.pid_start, record.boot_id, number)
    except NotFound:
        return
    if resume and record.status == state.PAUSED:
        thaw(record)


def thaw(record: Record) -> None:
    """Let a paused container go on; one that is gone needs nothing."""
    placement = cgroup.named(record.id)
    if placement.v2_dir or "freezer" in placement.v1:
        cgroup.thaw(placement)


def stop_signal(record: Record) -> int:
    """Give the number of the signal that stops a container: its own, its image's, else (also for nonsense) TERM."""
    try:
        return process.signal_number(_chosen_signal(record) or "TERM")
    except InvalidArgument:  # of an image: Docker's fallback too
        return process.signal_number("TERM")


def _chosen_signal(record: Record) -> str:
    annotations = record.spec.get("annotations", {})
    options = record.options
    return str(options.get("stop_signal") or annotations.get("sampan.stop_signal") or "")


def _ends(record: Record, number: int) -> bool:
    """Say whether Docker takes a signal of `kill` as the wish that the container ends (moby, daemon/kill.go): KILL and
    the stop signal where one was chosen, else any.
    """
    return number == 9 or not _chosen_signal(record) or number == stop_signal(record)


def _present(engine: Engine, name: str, id: str = "") -> tuple[Record, bool]:
    """Give a container as it is; the restart of one that is restarting is called off, which the flag says."""
    record = engine.containers.get(name, id)
    if record.status != state.RESTARTING:
        return record, False
    record = restarting.stop(engine, record)
    if record.status in (state.RUNNING, state.PAUSED):
        return record, False
    engine.events.container("stop", record)
    return record, True


def kill(engine: Engine, name: str, signal: str = "KILL") -> None:
    """Send a signal to the first process of a running container; Conflict when it does not run.

    As with Docker, a signal that is meant to end it (see `_ends`) also lets a paused container go on, and its restart
    policy does not start it again; after any signal the policy `unless-stopped` does not.  One that is restarting now
    is then stopped.
    """
    number = process.signal_number(signal)
    record, called_off = _present(engine, name)
    if called_off:
        return
    state.require(record.status, "kill", record.name)
    ends = _ends(record, number)
    if ends or restarting.policy(record)[0] == policies.UNLESS_STOPPED:
        restarting.forbid(engine.store.paths.container(record.id))
    engine.events.container("kill", record, signal=number)
    send(record, number, resume=ends)


def stop(
    engine: Engine,
    name: str,
    timeout: float | None = None,
    signal: str | None = None,
    *,
    full_wait: bool = False,
    id: str = "",
) -> None:
    """Send the stop signal and later KILL (engine/stopping.py says when); a stopped container is left as it is.

    `full_wait` waits Docker's ten seconds also where the signal can never arrive.  `id` as in `Containers.get`.
    """
    chosen = process.signal_number(signal) if signal else 0
    record, _ = _present(engine, name, id)
    if record.status not in (state.RUNNING, state.PAUSED):
        return
    seconds = timeout if timeout is not None else record.options.get("stop_timeout")
    if seconds is None and full_wait:
        seconds = stopping.DEFAULT
    number = chosen or stop_signal(record)
    restarting.forbid(engine.store.paths.container(record.id))
    engine.events.container("kill", record, signal=number)
    supervisors.hurry(engine.containers.socket(record.id))
    note = stopping.stop(
        record, number, seconds, lambda: engine.events.container("kill", record, signal=9)
    )  # as Docker tells it: who watches sees which ends were not clean
    if note:
        engine.warn([note])
    engine.containers.settled(record)
    engine.events.container("stop", record)


def restart(engine: Engine, name: str, timeout: float | None = None, signal: str | None = None) -> None:
    """Stop it if it runs, then start it; one that removes itself does so at its next end."""
    record = engine.containers.get(name)
    home = engine.store.paths.container(record.id)
    with Alone(home if record.auto_remove else ""):
        if record.auto_remove:
            _outlive(home)
        stop(engine, name, timeout, signal, id=record.id)
        engine.containers.start(name, id=record.id)
    engine.events.container("restart", record)


def _outlive(home: str) -> None:
    """Mark a container of --rm so that it outlives its next end: who would remove it waits and looks again."""
    try:
        with open(f"{home}/restarted", "wb"):
            files.sync_directory(home)
    except FileNotFoundError:
        return  # it has just been removed, as whoever looks it up next is told


def discard_unless_restarted(engine: Engine, record: Record) -> bool:
    """Remove a container of --rm that has ended, unless a restart under way succeeds; tell whether it is gone."""
    with Alone(engine.store.paths.container(record.id)):
        try:
            if engine.containers.get(record.id).status in (state.RUNNING, state.PAUSED):
                return False
        except NotFound:
            return True
        engine.containers.discard(record)
    return True


def check_startable(engine: Engine, record: Record) -> None:
    """Raise Conflict or Unavailable if a container cannot be started; call off a restart that its policy waits for."""
    containers = engine.containers
    state.require(record.status, "start", record.name)
    if record.status == state.RESTARTING:
        restarting.call_off(engine, record)
    home = containers.paths.container(record.id)
    alone.restore(engine, record, "start")
    if record.started:
        supervisors.require_told(home, containers.socket(record.id), record.name)
        if record.auto_remove:  # a volatile overlay leaves a mark there, with which it cannot be mounted again
            _outlive(home)
            engine.remove_tree(f"{home}/work/work")


def start_failed(engine: Engine, record: Record, error: BaseException) -> None:
    """Note why a start failed: `inspect` shows it as State.Error, beside Docker's exit codes."""
    code = error.exit_code if isinstance(error, SampanError) else 128
    status = state.EXITED if record.started else state.CREATED
    engine.store.containers.update(record.id, status=status, exit_code=code, pid=0)
    text = error.message if isinstance(error, SampanError) else type(error).__name__
    try:
        with open(error_file(engine, record), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError:
        files.unlink(error_file(engine, record))  # a full disk: the failure itself is told


def error_file(engine: Engine, record: Record) -> str:
    """Give the file that holds why the last start failed; what started has none."""
    return os.path.join(engine.store.paths.container(record.id), "error")


def wait(engine: Engine, name: str, condition: str = NOT_RUNNING) -> int:
    """Wait until a container does not run (at once if it does not), until its next exit, or until it is removed; give
    its exit code.
    """
    if condition not in (NOT_RUNNING, NEXT_EXIT, REMOVED):
        known = f"{NOT_RUNNING}, {NEXT_EXIT}, {REMOVED}"
        raise InvalidArgument(f"cannot wait for {condition!r}", f"one of: {known}")
    record = engine.containers.get(name)
    code = record.exit_code
    while record.status == state.RESTARTING:
        restarting.wait(engine, record)
        record = engine.containers.get(record.id)
        code = record.exit_code
    while record.status not in (state.RUNNING, state.PAUSED) and condition == NEXT_EXIT:
        _doze()
        record = engine.containers.get(record.id)
    if record.status in (state.RUNNING, state.PAUSED):
        code = _wait_for_end(engine, record)
    while condition == REMOVED and _exists(engine, record):
        _doze()
    return code


def _wait_for_end(engine: Engine, record: Record) -> int:
    watch = supervisors.Watch(engine.store.paths.container(record.id))
    try:
        process.wait(record.pid, record.pid_start, record.boot_id)
        code = engine.containers.settled(record)
        return code if (seen := watch.code()) is None else seen
    finally:
        watch.close()


def _exists(engine: Engine, record: Record) -> bool:
    try:
        return engine.containers.tidied(engine.store.containers.get(record.id)) is not None
    except NotFound:
        return False


def _doze() -> None:
    import time

    time.sleep(0.05)
