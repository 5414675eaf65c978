"""The ends of processes: none is left behind, and what is told of them is true."""

from __future__ import annotations

import os
import subprocess
import tempfile

import pytest
from attackkit import ROOT, command, descendants, gone, status
from waiting import until

import sampan
from sampan.engine import stopping
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup, cgroupcontrol, launch

# ---- 118, 119: zombies and the truth about ends ----


def test_orphans_leave_nothing_behind(engine: sampan.Engine, image: str) -> None:
    result = command(engine, "run", "-d", image, "/attack", "orphans", "300", "600")
    name = result.stdout.decode().strip()
    record = engine.containers.get(name)
    until(lambda: len(descendants(record.pid)) >= 300)
    zombies = [pid for pid, _ in descendants(record.pid)]
    engine.containers.remove(name, force=True)
    assert not [pid for pid in zombies if os.path.exists(f"/proc/{pid}")]

    def zombies_of_ours() -> list[int]:
        launch.reap()
        return [pid for pid, state in descendants(os.getpid()) if state == "Z"]

    until(lambda: not zombies_of_ours())


def test_init_reaps_orphans(engine: sampan.Engine, image: str) -> None:
    result = command(engine, "run", "-d", "--init", image, "/attack", "orphans", "300", "600")
    name = result.stdout.decode().strip()
    record = engine.containers.get(name)

    def seen() -> list[tuple[str, list[str]]]:
        """The states of the program and of its 300 children, which end after theirs were born."""
        return [(state, [of for _, of in descendants(pid)]) for pid, state in descendants(record.pid)]

    until(lambda: seen() == [("S", ["Z"] * 300)])
    engine.containers.remove(name, force=True)


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("words", "code"), [(["exit", "0"], 0), (["exit", "7"], 7), (["die", "15"], 143), (["die", "6"], 134)]
)
def test_exit_codes_are_true(engine: sampan.Engine, image: str, words: list[str], code: int, init: bool) -> None:
    assert engine.run(image, ["/attack", *words], init=init).exit_code == code
    flags = ["--init"] if init else []
    assert command(engine, "run", *flags, image, "/attack", *words).returncode == code
    detached = command(engine, "run", "-d", *flags, image, "/attack", *words).stdout.decode().strip()
    assert command(engine, "wait", detached).stdout.split() == [str(code).encode()]


@pytest.mark.parametrize("words", [["exit", "7"], ["die", "9"]])
def test_exit_codes_of_exec_are_true(engine: sampan.Engine, container: str, words: list[str]) -> None:
    code = {"exit": 7, "die": 137}[words[0]]
    assert command(engine, "exec", container, "/attack", *words).returncode == code
    assert command(engine, "exec", container, "/missing").returncode == 127
    assert command(engine, "exec", container, "/proc").returncode == 126
    assert command(engine, "exec", "-w", "/missing", container, "/attack", "fds").returncode == 126
    assert command(engine, "exec", "-u", "nosuch", container, "/attack", "fds").returncode == 126
    assert command(engine, "exec", "nosuch", "/attack", "fds").returncode == 1


def test_a_container_that_cannot_start_has_the_same_exit_code_attached_or_not(engine: sampan.Engine) -> None:
    name = command(engine, "create", "base", "/missing").stdout.decode().strip()
    for words in (["start", name], ["start", "-a", name]):
        done = command(engine, *words)
        assert done.returncode == 1 and b"no such file" in done.stderr
    command(engine, "rm", name)


def test_signals_start_out_as_they_do_in_a_login(engine: sampan.Engine, container: str) -> None:
    seen = status(engine.run("base", ["cat", "/proc/self/status"]).stdout)
    assert int(seen["SigIgn"], 16) == int(seen["SigBlk"], 16) == 0


def test_a_killed_supervisor_takes_its_container_along(engine: sampan.Engine, image: str) -> None:
    name = command(engine, "run", "-d", image, "/attack", "sleep", "600").stdout.decode().strip()
    record = engine.containers.get(name)
    parent = int(open(f"/proc/{record.pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()[1])
    os.kill(parent, 9)
    until(lambda: gone(record.pid))
    now = engine.containers.get(name)
    assert (now.status, now.exit_code) == ("exited", 137)
    assert not cgroup.named(record.id).directories()
    engine.containers.remove(name)
    assert not os.path.exists(engine.store.paths.container(record.id))


@pytest.mark.parametrize("flags", [[], ["--init"]])
def test_a_killed_caller_ends_what_nobody_supervises(engine: sampan.Engine, image: str, flags: list[str]) -> None:
    words = engine.command(["run", "--rm", *flags, image, "/attack", "sleep", "77"])
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    until(lambda: [pid for pid, _ in descendants(running.pid) if descendants(pid)])
    helper = descendants(running.pid)[0][0]
    program = descendants(helper)[0][0]
    os.kill(helper, 9)
    running.kill()
    running.wait()
    until(lambda: gone(program))


def test_a_full_input_does_not_hold_up_a_signal(engine: sampan.Engine, image: str) -> None:
    """The container never reads; its input is a file, which the supervisor copies."""
    with tempfile.TemporaryFile() as data:
        data.truncate(8 << 20)
        running = subprocess.Popen(
            engine.command(["run", "-i", "--name", "full", image, "/attack", "sleep", "600"]), stdin=data
        )
        until(lambda: command(engine, "kill", "full").returncode == 0)
        assert running.wait(timeout=60) == 137


def test_starts_at_once_are_one(engine: sampan.Engine, image: str) -> None:
    name = command(engine, "create", image, "/attack", "sleep", "600").stdout.decode().strip()
    words = engine.command(["start", name])
    started = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(6)]
    assert [one.wait() for one in started] == [0] * 6
    record = engine.containers.get(name)
    running = [pid for pid in os.listdir("/proc") if pid.isdigit() and runs_in(pid, engine.store.paths.container(name))]
    engine.containers.remove(name, force=True)
    assert running == [str(record.pid)]


def runs_in(pid: str, home: str) -> bool:
    """Say whether a process has the container's overlay as its root."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            return any(os.path.basename(home) in line for line in file if line.split()[4] == "/")
    except OSError:
        return False


@pytest.mark.skipif(not ROOT, reason="procfs of the host's pid namespace can be mounted by root only")
def test_nothing_survives_in_the_hosts_pid_namespace(engine: sampan.Engine) -> None:
    script = "sleep 61 & echo $!; sleep 0.05"
    for words in (["run", "--rm"], ["run"]):
        pid = int(command(engine, *words, "--pid", "host", "base", "sh", "-c", script).stdout)
        assert gone(pid)
    name = command(engine, "run", "-d", "--pid", "host", "base", "sh", "-c", "sleep 61 & sleep 62").stdout.decode()
    record = engine.containers.get(name.strip())
    until(lambda: len(descendants(record.pid)) >= 2)
    rest = [pid for pid, _ in descendants(record.pid)]
    engine.containers.remove(record.id, force=True)
    assert len(rest) == 2 and all(gone(pid) for pid in rest)


# ---- no process of the host is taken for one of a container's ----

PRIVATE = ["unshare", "--mount", "--propagation", "private"]
NO_CGROUP2 = (
    'for m in $(awk \'/ - cgroup2/ { print $5 }\' /proc/self/mountinfo); do umount "$m" || exit 99; done; exec "$@"'
)


@pytest.mark.skipif(not ROOT, reason="procfs of the host's pid namespace can be mounted by root only")
def test_what_is_left_is_killed_by_version_1_too(engine: sampan.Engine) -> None:
    """There no kernel kills a group: each of its processes is looked up, held and looked at again."""
    if "freezer" not in cgroup.detect().v1:
        pytest.skip("this host has no cgroup v1")
    words = engine.command(["run", "--rm", "--pid", "host", "base", "sh", "-c", "sleep 61 & echo $!; sleep 0.05"])
    done = subprocess.run([*PRIVATE, "sh", "-c", NO_CGROUP2, "sh", *words], capture_output=True, check=True)
    assert gone(int(done.stdout))


def test_what_shares_the_hosts_processes_is_its_own_and_what_it_started(
    engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has no control group, as an ordinary user's without delegation."""
    monkeypatch.setattr(cgroup, "named", lambda container_id: cgroup.Placement())
    for pid in ("host", ""):
        made = engine.containers.create("base", RunOptions(command=["sh", "-c", "sleep 63 & sleep 64"], pid=pid))
        try:
            engine.containers.start(made)
            record = engine.containers.get(made)
            until(lambda first=record.pid: len(descendants(first)) >= 2)
            assert set(stopping.others(record)) == {pid for pid, _ in descendants(record.pid)}
        finally:
            engine.containers.remove(made, force=True)


@pytest.mark.skipif(not ROOT, reason="procfs of the host's pid namespace can be mounted by root only")
def test_a_stop_signals_no_process_of_the_host(engine: sampan.Engine) -> None:
    """A program that ignores the signal, without a group, beside the host's processes (here: of another namespace)."""
    script = (
        'umount -R /sys/fs/cgroup || exit 99; sleep 65 & "$@" run -d --name deaf --pid host base'
        " sh -c 'trap \"\" TERM; echo deaf; sleep 66' >/dev/null || exit 98;"
        ' until [ "$("$@" logs deaf)" = deaf ]; do sleep 0.05; done;'
        ' "$@" stop deaf >/dev/null 2>&1 || exit 97; "$@" rm -f deaf >/dev/null; kill $! && echo lives'
    )
    words = [*PRIVATE, "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script, "sh", *engine.command([])]
    done = subprocess.run(words, capture_output=True, check=False, timeout=120)
    assert done.stdout == b"lives\n", done


def test_a_pid_that_is_another_processes_by_now_is_not_killed() -> None:
    ours, others = (subprocess.Popen(["sleep", "67"]) for _ in range(2))
    lists = [[0, ours.pid, others.pid], [ours.pid], []]
    try:
        cgroupcontrol._kill_members(lambda: lists.pop(0))
        assert ours.wait(timeout=60) == -9 and others.poll() is None and lists == [[]]
    finally:
        others.kill()
        others.wait()
