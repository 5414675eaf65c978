"""Commands on one container at once: who has its lock, what a name means meanwhile, what the other is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lifesupport import Run
from waiting import flocks, until

import sampan
from sampan.engine import execute, outcome, stopping, supervisors
from sampan.engine.alone import Alone
from sampan.errors import Conflict
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup, process
from sampan.runtime import plan as p

LISTEN = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
    "print(flush=True); time.sleep(float(sys.argv[2]))"
)


def waits_for_a_lock(pid: int) -> bool:
    """Say whether a process is blocked in flock(2) (proc(5): /proc/locks)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and line.split()[5] == str(pid) for line in lines)


@pytest.fixture
def in_background(engine: sampan.Engine) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    begun: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        command = engine.command(list(words))
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process_ in begun:
        process_.kill()
        process_.communicate()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Callable[[float], tuple[str, int]]]:
    """Start what stands for a supervisor: it listens for so many seconds; give its socket and pid."""
    begun: list[subprocess.Popen[str]] = []

    def begin(seconds: float) -> tuple[str, int]:
        path = str(tmp_path / "attach")
        words = [sys.executable, "-c", LISTEN, path, str(seconds)]
        begun.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout is not None and begun[-1].stdout.readline() == "\n"
        threading.Thread(target=begun[-1].wait, daemon=True).start()  # which collects it
        return path, begun[-1].pid

    yield begin
    for process_ in begun:
        process_.kill()
        process_.wait()


@pytest.mark.parametrize("command", [("start",), ("rm",), ("pause",), ("unpause",), ("update", "--pids-limit", "9")])
def test_a_command_that_waited_does_not_take_a_new_container_of_that_name(
    engine: sampan.Engine, in_background: Callable[..., subprocess.Popen[str]], command: tuple[str, ...]
) -> None:
    first = engine.containers.create("base", RunOptions(command=["true"]), name="same")
    with Alone(engine.store.paths.container(first)):
        late = in_background(*command, "same")
        until(lambda: waits_for_a_lock(late.pid) or late.poll() is not None)
        engine.containers.remove(first)
        second = engine.containers.create("base", RunOptions(command=["true"]), name="same")
    try:
        errors = late.communicate(timeout=60)[1]
        assert (late.returncode, "no such container: same" in errors) == (1, True), errors
        assert engine.containers.get(second).status == "created"
    finally:
        engine.containers.remove(second)


def test_a_container_that_run_makes_is_locked_before_others_know_of_it(engine: sampan.Engine) -> None:
    found: list[str] = []

    def look(container_id: str) -> None:
        words = [sys.executable, "-c", "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), 6)"]
        done = subprocess.run([*words, engine.store.paths.container(container_id)], capture_output=True, text=True)
        found.append(done.stderr)

    options = RunOptions(command=["true"])
    name = engine.containers.run(options, image="base", name="fresh", detach=True, on_create=look)
    assert len(found) == 1 and "BlockingIOError" in found[0]
    engine.containers.remove(str(name), force=True)


def test_a_start_beside_a_removal_says_that_it_is_being_removed(engine: sampan.Engine, sampan_run: Run) -> None:
    name = engine.containers.create("base", RunOptions(command=["true"]), name="going")
    home = engine.store.paths.container(name)
    gone = f"{engine.store.paths.containers}/.gone-{name}"
    with Alone(home):
        os.rename(home, gone)  # what `rm` does first
        assert sampan_run("start", "going").stderr == "sampan: cannot start container going: it is being removed\n"
    assert "its removal was interrupted\nhint: remove it again" in sampan_run("start", "going").stderr
    assert sampan_run("rm", "going").returncode == 0
    assert not os.path.exists(gone)


def test_a_container_with_rm_that_is_started_again_is_not_removed_by_its_first_end(
    engine: sampan.Engine, sampan_run: Run
) -> None:
    name = sampan_run("run", "-d", "--rm", "base", "sleep", "1000").stdout.strip()
    home = engine.store.paths.container(name)
    with Alone(home):  # the supervisor's `rm --ended` waits
        record = engine.containers.get(name)
        process.send(record.pid, record.pid_start, record.boot_id, 9)
        until(lambda: engine.containers.get(name).status == "exited")
        engine.containers.start(name)
        until(lambda: flocks(home)[1])
    until(lambda: not flocks(home)[1])
    assert engine.containers.get(name).status == "running"
    engine.containers.remove(name, force=True)


def test_a_start_waits_for_a_supervisor_that_has_no_more_to_tell(
    tmp_path: Path, listener: Callable[[float], tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "PATIENCE", 60.0)
    supervisors.require_told(str(tmp_path), listener(0.3)[0], "one")


def test_the_supervisor_of_the_next_start_is_not_asked_about_the_last_end(
    tmp_path: Path, listener: Callable[[float], tuple[str, int]]
) -> None:
    path, pid = listener(1000)
    before = process.start_time(1)
    assert before is not None
    ends: list[outcome.End] = []
    asking = threading.Thread(
        target=lambda: ends.append(supervisors.await_end(str(tmp_path), path, 1, before, patience=1000)), daemon=True
    )
    asking.start()
    asking.join(60)
    assert ends and (ends[0].holder, ends[0].lost) == (pid, False)


def test_the_end_of_what_was_gone_before_its_start_was_noted_is_waited_for(
    tmp_path: Path, listener: Callable[[float], tuple[str, int]]
) -> None:
    path, _ = listener(1000)
    program = subprocess.Popen(["true"])
    program.wait()
    began = process.started(program.pid)
    assert not process.alive(program.pid, began, process.boot_id())
    write = threading.Timer(0.3, lambda: (tmp_path / "exit").write_bytes(b"768 0 1.000000001 2.000000002\n"))
    write.start()
    end = supervisors.await_end(str(tmp_path), path, program.pid, began, patience=60)
    write.join()
    assert (end.code, end.holder) == (3, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a control group of its own")
def test_whoever_looks_does_not_kill_what_another_starts(
    engine: sampan.Engine, in_background: Callable[..., subprocess.Popen[str]]
) -> None:
    name = engine.containers.create("base", RunOptions(command=["true"]), name="lost")
    engine.store.containers.update(
        name, status="running", pid=2**22 - 1, pid_start=1, boot_id=process.boot_id(), started=1
    )
    placement = cgroup.create(name, {})
    program = subprocess.Popen(["sleep", "1000"])
    try:
        Path(placement.directories()[0], "cgroup.procs").write_text(str(program.pid))
        with Alone(engine.store.paths.container(name)):  # somebody starts it
            assert in_background("ps", "-a").wait(60) == 0
            assert program.poll() is None
        assert in_background("ps", "-a").wait(60) == 0 and program.wait(60) == -9  # nobody does: a lost supervisor's
    finally:
        program.kill()
        program.wait()
        engine.containers.remove(name, force=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a control group of its own")
def test_an_exec_that_a_stop_overtakes_says_so(engine: sampan.Engine, started: Callable[..., str]) -> None:
    record = engine.containers.get(started("exec sleep 1000"))
    spec = execute.spec_for(record, ["true"], [], "", "", False, False)
    plan = execute.plan_for(engine, record, spec, p.NULL_OUT, "", (0, 0), True)
    placement = cgroup.named(record.id)

    def kill() -> None:
        until(lambda: stopping.others(record))
        os.kill(stopping.others(record)[0], 9)

    cgroup.freeze(placement)  # so it is born still
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        with pytest.raises(Conflict, match="SIGKILL ended it before its program began") as told:
            execute.start(engine, record, plan, spec, (0, 1, 2))
    finally:
        cgroup.thaw(placement)
    assert told.value.exit_code == 126


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: newuidmap has no rights below a tracer")
def test_a_report_is_written_in_one_go(sampan_run: Run, engine: sampan.Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = [
        "strace",
        "-f",
        "-e",
        "trace=write,writev",
        "-o",
        str(log),
        *engine.command(["run", "--rm", "base", "true"]),
    ]
    subprocess.run(words, check=True, timeout=60)
    calls = [line.partition(" ")[2].strip() for line in log.read_text().splitlines()]
    assert sum(call.startswith("writev(4, [{") for call in calls) >= 3  # two files of accounts, the start, the end
    assert not [call for call in calls if call.startswith("write(4, ") and call.endswith(" = 32")]
