"""Exit truth: memory that ran out anywhere in a container, the shortest lives, signals, many ends at once, starts that
failed or were killed half-way.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lifesupport import Run, heard
from waiting import until

import sampan
from sampan.engine import alone, supervisors
from sampan.runtime import cgroup

EAT = "dd if=/dev/zero of=/dev/null bs=96M count=1"
LIMITED = ("-m", "24m", "--memory-swap", "24m")
MANY = 100


def state(sampan_run: Run, name: str) -> tuple[int, bool]:
    """Wait for the end; give exit code and OOMKilled."""
    sampan_run("wait", name)
    found = json.loads(sampan_run("inspect", "-f", "{{json .State}}", name).stdout)
    return found["ExitCode"], found["OOMKilled"]


# ---- memory ----


@pytest.mark.usefixtures("memory")
def test_memory_that_runs_out_is_an_event_when_it_happens(started: Callable[..., str], sampan_run: Run) -> None:
    name = started(f"{EAT}; echo over; while [ ! -e /go ]; do sleep 0.02; done; exit 3", *LIMITED)

    def told() -> list[str]:
        words = ("events", "--since", "5m", "--until", "0s", "--filter", f"container={name}", "--format", "{{.Action}}")
        return sampan_run(*words, "--filter", "event=oom", "--filter", "event=die").stdout.split()

    until(lambda: "oom" in told())
    assert sampan_run("ps", "--filter", f"id={name}", "--format", "{{.State}}").stdout == "running\n"
    assert sampan_run("exec", name, "sh", "-c", "echo > /go").returncode == 0
    assert state(sampan_run, name) == (3, True)
    assert told() == ["oom", "die"]


@pytest.mark.usefixtures("memory")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("strace"), reason="needs root and strace, to hold up a write")
def test_memory_that_runs_out_while_its_supervisor_asks_for_it_is_told_once(
    engine: sampan.Engine, sampan_run: Run
) -> None:
    """On cgroup v1: the kernel tells it then, and its count has it already when that is read for the first time."""
    base = cgroup.detect().v1.get("memory")
    if not base:
        pytest.skip("needs the memory controller on cgroup v1")
    name = sampan_run("create", *LIMITED, "base", "sh", "-c", f"{EAT}; sleep 600").stdout.strip()
    group = Path(base, cgroup.group_name(name))
    held = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", str(group / "cgroup.event_control")]
    held += ["-e", "inject=write:delay_exit=1500000"]
    words = ("events", "--since", "5m", "--until", "0s", "--filter", f"container={name}", "--format", "{{.Action}}")
    try:
        assert subprocess.run([*held, *engine.command(["start", name])], timeout=60).returncode == 0
        until(lambda: "oom_kill 1" in (group / "memory.oom_control").read_text())
        until(lambda: "oom" in sampan_run(*words).stdout)
        sampan_run("kill", name)
        assert state(sampan_run, name) == (137, True)
        assert sampan_run(*words).stdout.split() == ["create", "start", "oom", "kill", "die"]
    finally:
        sampan_run("rm", "-f", name)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f"exec {EAT}", (137, True)),
        (f"{EAT}; exit 3", (3, True)),
        (f"({EAT} & wait $!); exit 0", (0, True)),
        ("exit 4", (4, False)),
        ("kill -9 $$; sleep 0.1; exit 5", (5, False)),
        ("sh -c 'kill -9 $$'; exit 6", (6, False)),
    ],
)
def test_memory_that_ran_out_is_told_whoever_it_was(
    started: Callable[..., str], sampan_run: Run, script: str, expected: tuple[int, bool]
) -> None:
    name = started(script, *LIMITED)
    assert state(sampan_run, name) == expected
    assert (
        "oom" in sampan_run("events", "--since", "5m", "--until", "0s", "--filter", f"container={name}").stdout
    ) == (expected[1])


@pytest.mark.usefixtures("memory")
def test_memory_that_ran_out_in_exec_is_told(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    # It forks no more when memory runs out: where that fails, the shell ends.
    name = started("trap 'exit 7' TERM; sleep 600 & echo ready; wait", *LIMITED)
    heard(engine, name)
    assert sampan_run("exec", name, *EAT.split()).returncode == 137
    assert sampan_run("exec", name, "true").returncode == 0
    sampan_run("stop", name)
    assert state(sampan_run, name) == (7, True)


@pytest.mark.usefixtures("memory")
def test_memory_that_ran_out_in_exec_is_known_with_its_exit_code(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    """The kernel counts before it kills (mm/oom_kill.c), and `inspect` reads its count: nothing of ours can be late."""
    name = started("trap 'exit 7' TERM; sleep 600 & echo ready; wait", *LIMITED)
    heard(engine, name)
    supervisor = supervisors.supervisor(engine.containers.socket(engine.containers.get(name).id))
    os.kill(supervisor, signal.SIGSTOP)
    try:
        assert sampan_run("inspect", "-f", "{{.State.OOMKilled}}", name).stdout == "false\n"
        assert sampan_run("exec", name, *EAT.split()).returncode == 137
        assert sampan_run("inspect", "-f", "{{.State.OOMKilled}}", name).stdout == "true\n"
        os.kill(engine.containers.get(name).pid, signal.SIGTERM)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    # Both wait for it now, the end too: it tells them in their order.
    assert state(sampan_run, name) == (7, True)
    words = ("events", "--since", "5m", "--until", "0s", "--filter", f"container={name}", "--format", "{{.Action}}")
    assert sampan_run(*words, "--filter", "event=oom", "--filter", "event=die").stdout == "oom\ndie\n"


@pytest.mark.usefixtures("memory")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a container the host's control groups")
def test_memory_that_ran_out_in_a_group_of_the_containers_own_is_told(
    started: Callable[..., str], sampan_run: Run
) -> None:
    base = cgroup.detect().v1.get("memory") or cgroup.detect().v2_base
    find = "read h < /proc/sys/kernel/hostname; set -- /cg/sampan-$h*"
    script = f"{find}; mkdir $1/own $1/own/below && echo 0 > $1/own/below/cgroup.procs && {EAT}; exit 8"
    name = started(script, "--privileged", "-v", f"{base}/sampan:/cg", *LIMITED)
    assert state(sampan_run, name) == (8, True)


# ---- ends ----


def test_a_life_of_less_than_a_millisecond_is_told(engine: sampan.Engine, sampan_run: Run) -> None:
    for number, (program, code) in enumerate([("true", 0), ("false", 1)] * 10):
        name = f"brief{number}"
        assert sampan_run("run", "-d", "--name", name, "base", program).returncode == 0
        assert state(sampan_run, name) == (code, False)
        assert sampan_run("start", "-a", name).returncode == code
        found = json.loads(sampan_run("inspect", "-f", "{{json .State}}", name).stdout)
        assert found["StartedAt"] < found["FinishedAt"] and found["Pid"] == 0 and not found["Error"]
        sampan_run("rm", name)


def test_an_end_is_told_after_a_removal_that_was_cut_short(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    """`rm` writes down no end; killed when it had renamed the directory, it leaves the record of it there."""
    name = started("exit 3")
    home = engine.store.paths.container(name)
    until(lambda: os.path.exists(f"{home}/exit"))
    os.rename(home, alone.gone(home))
    assert sampan_run("ps", "-a", "--filter", f"id={name}", "--format", "{{.Status}}").stdout.startswith("Exited (3)")
    for words in (["start"], ["update", "--restart", "always"], ["rename"]):
        done = sampan_run(*words, name, *(["another"] if words == ["rename"] else []))
        assert done.returncode == 1 and "its removal was interrupted" in done.stderr
    assert sampan_run("rm", name).stdout == f"{name}\n"
    assert not os.path.exists(alone.gone(home))


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 13, 14, 15, 24, 31, 34, 64])
def test_a_program_that_a_signal_ends_is_told_as_128_and_more(
    started: Callable[..., str], sampan_run: Run, number: int
) -> None:
    # As PID 1 it would not get the signal: the kernel drops what has no handler.
    assert state(sampan_run, started(f"kill -{number} $$; sleep 1; exit 99", "--init")) == (128 + number, False)
    done = sampan_run("run", "--rm", "--init", "base", "sh", "-c", f"kill -{number} $$; sleep 1")
    assert done.returncode == 128 + number, done


def test_a_hundred_that_end_at_once_are_all_told_and_nothing_is_left(
    engine: sampan.Engine, sampan_run: Run, tmp_path: Path
) -> None:
    from sampan.oci.spec import RunOptions

    tmp_path.chmod(0o755)
    for fifo in ("gate", "ready"):
        os.mkfifo(tmp_path / fifo)
        (tmp_path / fifo).chmod(0o666)
    # Opened both ways, so that nobody waits in `open`: all of them see at one moment that the only writer is gone.
    gate, ready = (os.open(tmp_path / fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in ("gate", "ready"))
    names = []
    try:
        for number in range(MANY):
            script = f"exec 3< /go/gate; echo > /go/ready; read x <&3; exit {number + 1}"
            options = RunOptions(command=["sh", "-c", script])
            options.mounts = [("bind", str(tmp_path), "/go", ["ro"])]  # type: ignore[list-item]
            names.append(str(engine.containers.run(options, image="base", detach=True)))
        there = select.poll()
        there.register(ready, select.POLLIN)
        for _ in names:
            assert there.poll(60_000), "a container did not come to its gate within a minute"
            os.read(ready, 1)
        os.close(gate)
        done = sampan_run("wait", *names, timeout=120)
        assert done.stdout.split() == [str(number + 1) for number in range(MANY)]
        rows = engine.containers.ls(all=True)
        assert {row["State"] for row in rows if row["ID"] in names or row["ID"][:12] in {n[:12] for n in names}} == {
            "exited"
        }
        until(lambda: not [name for name in names if cgroup.named(name).directories()])
    finally:
        os.close(ready)
        assert sampan_run("rm", "-f", *names, timeout=120).returncode == 0
    assert not [name for name in names if Path(engine.store.paths.container(name)).exists()]
    assert not [name for name in names if Path(engine.store.paths.run, "attach", name[:12]).exists()]


# ---- starts ----


@pytest.mark.parametrize(("program", "code"), [("/nothing", 127), ("nothing", 127), ("/etc", 126), ("/words", 126)])
def test_a_start_that_failed_is_recorded(sampan_run: Run, tmp_path: Path, program: str, code: int) -> None:
    (tmp_path / "words").write_text("no program")
    (tmp_path / "words").chmod(0o755)
    tmp_path.chmod(0o755)
    try:
        sampan_run("create", "--name", "broken", "-v", f"{tmp_path}/words:/words", "base", program)
        for words in (["start", "broken"], ["start", "-a", "broken"]):
            done = sampan_run(*words)
            assert done.returncode != 0 and program in done.stderr
            found = json.loads(sampan_run("inspect", "-f", "{{json .State}}", "broken").stdout)
            assert (found["Status"], found["ExitCode"], found["Running"], found["Pid"]) == ("created", code, False, 0)
            assert program in found["Error"] and not found["OOMKilled"]
        assert sampan_run("ps", "-aq", "--filter", f"exited={code}").returncode == 0
    finally:
        assert sampan_run("rm", "broken").returncode == 0
