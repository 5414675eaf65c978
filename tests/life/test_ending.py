"""How a container is paused, stopped, killed and waited for, and that what is told of its end is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lifesupport import Run, heard, holds
from waiting import until

import sampan
from sampan.engine import stopping, supervisors
from sampan.runtime import cgroup, process

COUNTER = "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


@pytest.fixture
def freezer() -> None:
    layout = cgroup.detect()
    if not layout.v2_base and "freezer" not in layout.v1:
        pytest.skip(f"needs a freezer: {layout.why}")


def supervisor_of(engine: sampan.Engine, name: str) -> int:
    return supervisors.supervisor(engine.containers.socket(engine.containers.get(name).id))


def lives(pid: int) -> bool:
    return process.stat(pid)[:1] not in ([], [b"Z"])


# ---- pause ----


@pytest.mark.usefixtures("freezer")
def test_a_paused_container_stands_still_and_goes_on(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started(COUNTER.replace("do i=", "do echo $i > /count; i="))
    count = Path(engine.store.paths.container(name), "upper/count")
    heard(engine, name)
    assert sampan_run("pause", name).stdout == name + "\n"
    assert sampan_run("inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", name).stdout == (
        "paused true true\n"
    )
    assert "(Paused)" in sampan_run("ps", "--format", "{{.Status}}", "--filter", "status=paused").stdout
    before = count.read_text()
    time.sleep(0.3)
    assert count.read_text() == before
    for words in (["exec", name, "true"], ["attach", name], ["pause", name], ["start", name], ["rm", name]):
        done = sampan_run(*words)
        assert done.returncode != 0 and "paused" in done.stderr.splitlines()[0], done
    assert sampan_run("unpause", name).returncode == 0
    until(lambda: count.read_text() not in ("", before))
    assert sampan_run("unpause", name).returncode != 0


@pytest.mark.usefixtures("freezer")
@pytest.mark.parametrize(
    ("words", "code"), [(["stop"], 3), (["kill"], 137), (["kill", "-s", "TERM"], 3), (["rm", "-f"], None)]
)
def test_a_paused_container_can_be_ended(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, words: list[str], code: int | None
) -> None:
    name = started(COUNTER)
    heard(engine, name)
    sampan_run("pause", name)
    assert sampan_run(*words, name).returncode == 0
    if code is not None:
        assert sampan_run("wait", name).stdout == f"{code}\n"


def test_pause_without_a_freezer_names_the_gap(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    layout = cgroup.detect()
    if layout.v2_base or "freezer" in layout.v1:
        pytest.skip("this user has a freezer")
    done = sampan_run("pause", started("sleep 60"))
    assert done.returncode != 0 and "control group" in done.stderr


# ---- stop, kill, wait ----


def test_several_stops_wait_side_by_side(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, tmp_path: Path
) -> None:
    """Each ends once all six have been told to: in turn none would."""
    tmp_path.chmod(0o777)
    end = ": >/told/$me; set --; while [ $# -lt 6 ]; do sleep 0.02; set -- /told/*; done; exit 0"
    script = f"read me </proc/sys/kernel/hostname; trap '{end}' TERM; echo ready; while :; do sleep 0.02; done"
    names = [started(script, "-v", f"{tmp_path}:/told") for _ in range(6)]
    for name in names:
        heard(engine, name)
    done = sampan_run("stop", "-t", "600", *names)
    assert done.stdout.split() == names and done.returncode == 0
    assert [engine.containers.get(name).exit_code for name in names] == [0] * 6


def test_one_that_cannot_be_stopped_does_not_keep_the_others(started: Callable[..., str], sampan_run: Run) -> None:
    name = started(COUNTER)
    done = sampan_run("stop", "nobody", name)
    assert (done.returncode, done.stdout) == (1, name + "\n") and "nobody" in done.stderr


def test_full_wait_waits_for_what_cannot_happen(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("sleep 100; :")
    record = engine.containers.get(name)
    until(lambda: [pid for pid in stopping.others(record) if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"])
    until(lambda: not stopping.receives(record.pid, signal.SIGTERM))  # a shell blocks all signals while it forks
    done = sampan_run("stop", name)
    assert done.returncode == 0 and "its other processes got it" in done.stderr
    assert sampan_run("wait", name).stdout == "0\n"
    name = started("exec sleep 100")
    begun = time.monotonic()
    assert sampan_run("stop", "--full-wait", name).returncode == 0
    assert time.monotonic() - begun >= 10


@pytest.mark.parametrize(
    ("number", "code"), [("USR1", 130), ("sigusr1", 130), ("10", 130), ("RTMIN+3", 131), ("37", 131), ("9", 137)]
)
def test_any_signal_by_name_or_number(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, number: str, code: int
) -> None:
    name = started("trap 'exit 130' USR1; trap 'exit 131' 37; echo ready; while :; do sleep 0.02; done")
    heard(engine, name)
    assert sampan_run("kill", "-s", number, name).returncode == 0
    assert sampan_run("wait", name).stdout == f"{code}\n"


@pytest.mark.parametrize("bad", ["SIGNONE", "0", "65", "-1", " ", "RTMIN+99"])
def test_bad_signals_are_named(started: Callable[..., str], sampan_run: Run, bad: str) -> None:
    done = sampan_run("kill", "-s", bad, started("sleep 60"))
    assert done.returncode != 0 and "signal" in done.stderr.splitlines()[0]


def test_wait_for_several_and_for_conditions(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, tmp_path: Path
) -> None:
    def waiting(name: str, condition: str) -> subprocess.Popen[str]:
        words = engine.command(["wait", "--condition", condition, name])
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    tmp_path.chmod(0o777)
    codes = [started(f"sleep 0.{n}; exit {n}") for n in (3, 1, 2)]
    assert sampan_run("wait", *codes).stdout == "3\n1\n2\n"
    assert sampan_run("wait", codes[0]).stdout == "3\n"
    script = "while [ ! -e /go/on ]; do sleep 0.02; done; exit 9"
    (tmp_path / "on").touch()
    again = started(script, "-v", f"{tmp_path}:/go")
    assert sampan_run("wait", again).stdout == "9\n"
    (tmp_path / "on").unlink()
    following = waiting(again, "next-exit")
    sampan_run("start", again)
    until(lambda: holds(following.pid, "/exit.new"))  # it has not ended with the end of before, and sees the next one
    own = started(script, "--rm", "-v", f"{tmp_path}:/go")
    removed = waiting(own, "removed")
    until(lambda: holds(removed.pid, "/exit.new"))
    (tmp_path / "on").touch()
    assert [process_.communicate(timeout=60)[0] for process_ in (following, removed)] == ["9\n"] * 2
    assert sampan_run("ps", "-aq", "--filter", f"id={own}").stdout == ""
    assert sampan_run("wait", "--condition", "never", own).returncode != 0


# ---- truth ----


def test_many_ends_at_once_are_all_told(started: Callable[..., str], sampan_run: Run, engine: sampan.Engine) -> None:
    names = [started(f"trap 'exit {n}' TERM; echo ready; while :; do sleep 0.02; done") for n in range(1, 21)]
    for name in names:
        heard(engine, name)
    for name in names:
        engine.containers.kill(name, "TERM")
    assert sampan_run("wait", *names).stdout.split() == [str(n) for n in range(1, 21)]


def test_a_supervisor_that_is_told_to_end_gives_the_time_of_a_stop_and_no_more(
    engine: sampan.Engine, started: Callable[..., str]
) -> None:
    """As when the host shuts down: PID 1 without a handler never gets the signal, and nobody may wait for it."""
    name = started("echo ready; while :; do sleep 0.02; done", "--stop-timeout", "1", "--restart", "always")
    heard(engine, name)
    os.kill(supervisor_of(engine, name), signal.SIGTERM)
    until(lambda: engine.containers.get(name).status == "exited")
    assert engine.containers.get(name).exit_code == 137
    patient = started("echo ready; while :; do sleep 0.02; done", "--stop-timeout", "-1")
    heard(engine, patient)
    os.kill(supervisor_of(engine, patient), signal.SIGTERM)
    time.sleep(1.5)
    assert engine.containers.get(patient).status == "running"


def test_an_end_that_nobody_saw_says_so(engine: sampan.Engine, started: Callable[..., str], sampan_run: Run) -> None:
    def state() -> tuple[str, int, str]:
        found = engine.containers.inspect(name)["State"]
        return found["Status"], found["ExitCode"], found["Error"]

    name = started("sleep 60", "--restart", "always")
    os.kill(supervisor_of(engine, name), signal.SIGKILL)
    until(lambda: engine.containers.get(name).status == "exited")
    assert state() == ("exited", 137, "nobody saw its end: its supervisor was killed, and it with it")
    engine.containers.store.update(name, boot_id="00000000-0000-0000-0000-000000000000")
    assert state()[2].startswith("nobody saw its end: the host went down")
    engine.containers.start(name)
    assert state() == ("running", 0, "")
    sampan_run("kill", name)
    until(lambda: state() == ("exited", 137, ""))


def test_who_runs_in_the_foreground_is_given_all_the_time_of_the_world(engine: sampan.Engine, sampan_run: Run) -> None:
    """As a unit of systemd does, which has a time limit of its own."""
    script = "echo ready; while :; do sleep 0.02; done"
    words = engine.command(["run", "--name", "front", "--stop-timeout", "0", "base", "sh", "-c", script])
    with subprocess.Popen(words, stdout=subprocess.PIPE) as front:
        assert front.stdout is not None and front.stdout.readline() == b"ready\n"
        os.kill(supervisor_of(engine, "front"), signal.SIGTERM)
        time.sleep(0.5)
        assert engine.containers.get("front").status == "running"
        sampan_run("rm", "-f", "front")


def test_a_supervisor_that_is_told_to_end_does_not_wait_for_a_caller_who_is_gone(
    engine: sampan.Engine, sampan_run: Run
) -> None:
    """It may see the signal before it sees that the caller has left, as on a busy machine right after `run -d`."""
    script = "echo ready; while :; do sleep 0.02; done"
    words = engine.command(["run", "--name", "left", "--stop-timeout", "0", "base", "sh", "-c", script])
    with subprocess.Popen(words, stdout=subprocess.PIPE) as front:
        assert front.stdout is not None and front.stdout.readline() == b"ready\n"
        until(lambda: engine.containers.get("left").status == "running")
        supervisor = supervisor_of(engine, "left")
        os.kill(supervisor, signal.SIGSTOP)
        front.kill()
    os.kill(supervisor, signal.SIGTERM)
    os.kill(supervisor, signal.SIGCONT)
    try:
        until(lambda: engine.containers.get("left").status == "exited")
        assert engine.containers.get("left").exit_code == 137
    finally:
        sampan_run("rm", "-f", "left")


def test_the_shortest_of_lives_is_told(started: Callable[..., str], sampan_run: Run) -> None:
    for code in (0, 7):
        assert sampan_run("wait", started(f"exit {code}")).stdout == f"{code}\n"


@pytest.mark.parametrize(("program", "code"), [("/nothing", 127), ("/etc", 126)])
def test_a_start_that_failed_is_told_as_docker_does(sampan_run: Run, program: str, code: int) -> None:
    try:
        assert sampan_run("run", "--name", "broken", "base", program).returncode == code
        state = json.loads(sampan_run("inspect", "-f", "{{json .State}}", "broken").stdout)
        assert (state["Status"], state["ExitCode"], state["Running"]) == ("created", code, False)
        assert program in state["Error"]
    finally:
        sampan_run("rm", "broken")


def test_nothing_of_the_callers_oom_score_is_inherited(engine: sampan.Engine, sampan_run: Run) -> None:
    words = engine.command(["run", "--rm", "base", "cat", "/proc/self/oom_score_adj"])
    script = 'echo 321 > /proc/self/oom_score_adj; exec "$@"'
    done = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", ""), done


@pytest.mark.parametrize("score", ["0", "7"])
def test_an_exec_has_the_containers_oom_score(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, score: str
) -> None:
    name = started("sleep 60", "--oom-score-adj", score)
    words = engine.command(["exec", name, "cat", "/proc/self/oom_score_adj"])
    script = 'echo 5 > /proc/self/oom_score_adj; exec "$@"'
    done = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{score}\n", ""), done


# ---- frozen and killed ----


@pytest.fixture
def stopped_supervisor(engine: sampan.Engine, started: Callable[..., str]) -> Iterator[tuple[str, int]]:
    name = started("trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done")
    heard(engine, name)
    pid = supervisor_of(engine, name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield name, pid
    finally:
        if Path(f"/proc/{pid}").exists():  # it may have gone on and ended in the test
            os.kill(pid, signal.SIGCONT)


def test_a_stopped_supervisor_holds_nobody_up_and_is_named(
    engine: sampan.Engine, sampan_run: Run, stopped_supervisor: tuple[str, int]
) -> None:
    name, pid = stopped_supervisor
    assert sampan_run("stop", name).returncode == 0
    assert "Exited (6)" in sampan_run("ps", "-a", "--filter", f"id={name}", "--format", "{{.Status}}").stdout
    done = sampan_run("start", name)
    assert done.returncode != 0 and str(pid) in done.stderr and f"kill -CONT {pid}" in done.stderr
    os.kill(pid, signal.SIGCONT)
    until(lambda: sampan_run("start", name).returncode == 0)
    assert engine.containers.get(name).status == "running"


def test_rm_of_a_container_with_a_stopped_supervisor(
    sampan_run: Run, engine: sampan.Engine, started: Callable[..., str]
) -> None:
    name = started("sleep 60")
    pid = supervisor_of(engine, name)
    os.kill(pid, signal.SIGSTOP)
    assert sampan_run("rm", "-f", name).returncode == 0
    os.kill(pid, signal.SIGCONT)
    until(lambda: not lives(pid))


def test_another_boot_is_an_end(engine: sampan.Engine, started: Callable[..., str], sampan_run: Run) -> None:
    name = started("exec sleep 60")
    record = engine.containers.get(name)
    os.kill(supervisor_of(engine, name), signal.SIGKILL)
    until(lambda: not process.alive(record.pid, record.pid_start, record.boot_id))
    # As after a reboot: the pid belongs to an innocent process now, which has even started at the same tick.
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        engine.store.containers.update(
            record.id, pid=innocent.pid, pid_start=process.start_time(innocent.pid) or 0, boot_id="another"
        )
        assert sampan_run("ps", "-a", "--filter", f"id={name}", "--format", "{{.State}}").stdout == "exited\n"
        assert sampan_run("stop", name).returncode == 0 and sampan_run("rm", "-f", name).returncode == 0
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_orphans_of_a_first_process_that_does_not_reap_end_with_it(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    script = "i=0; while [ $i -lt 1000 ]; do (true & :) ; i=$((i+1)); done; echo ready; while :; do sleep 0.05; done"
    name = started(script)
    pid = supervisor_of(engine, name)
    heard(engine, name)
    assert sampan_run("rm", "-f", name).returncode == 0
    until(lambda: not lives(pid))


def test_an_init_reaps(engine: sampan.Engine, started: Callable[..., str], sampan_run: Run) -> None:
    name = started("((sleep 0.2; echo over) & :); exec sleep 60", "--init")
    heard(engine, name)
    assert sampan_run("exec", name, "true").returncode == 0
    script = "for p in /proc/[0-9]*; do read a b c d < $p/stat && echo $b$c; done; true"
    until(lambda: sampan_run("exec", name, "sh", "-c", script).stdout.count("(sh)") == 1)  # its own
