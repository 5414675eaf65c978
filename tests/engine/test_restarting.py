"""Restart policies with real containers: when, how often, how soon, and who may stop that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import until

import sampan
from sampan.engine import booting, restarting
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci import restart
from sampan.oci.options import RunOptions
from sampan.runtime import process

ROOT = Path(__file__).parents[2]


def run(engine: sampan.Engine, policy: str, script: str, **settings: Any) -> str:
    options = RunOptions(command=["sh", "-c", script], restart=policy, **settings)
    return str(engine.containers.run(options, image="base", detach=True))


def state(engine: sampan.Engine, name: str) -> str:
    return engine.containers.get(name).status


def home(engine: sampan.Engine, name: str) -> str:
    return engine.store.paths.container(name)


def starts(engine: sampan.Engine, name: str) -> list[int]:
    return [event["timeNano"] for event in engine.events(0, filters={"container": [name], "event": ["start"]})]


def ready(engine: sampan.Engine, name: str) -> None:
    """Wait until the program has said that its traps are set."""
    until(lambda: b"ready" in Path(home(engine, name), "log").read_bytes())


def lives(waiter: restarting.Waiter) -> bool:
    return process.alive(waiter.pid, waiter.start, process.boot_id())


def held(engine: sampan.Engine, name: str) -> restarting.Waiter | None:
    """Stop whoever waits to start a container again, after the third restart, and give him, if he still waits."""
    found = restarting.waiter(home(engine, name), engine.containers.store.get(name).boot_id)
    if found is None or found.pause < 800:
        return None
    try:
        os.kill(found.pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{found.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        if Path(f"/proc/{found.pid}/cmdline").read_bytes().startswith(b"sampan-helper"):
            return found
        os.kill(found.pid, signal.SIGCONT)  # he has become the command that starts it
    except (FileNotFoundError, ProcessLookupError):
        return None  # which has ended
    return None


def waiting(engine: sampan.Engine, name: str) -> restarting.Waiter:
    """Wait until the container is in a pause between two starts, which then takes as long as the test does."""
    found = until(lambda: held(engine, name))
    assert found and state(engine, name) == "restarting"
    return found


def test_policies_are_dockers() -> None:
    assert restart.parse("") == restart.parse("no") == ("no", 0)
    assert restart.parse("on-failure:5") == ("on-failure", 5) and restart.parse("on-failure") == ("on-failure", 0)
    for text in ("sometimes", "always:3", "on-failure:x", "on-failure:-1", "on-failure:", "no:1"):
        with pytest.raises(InvalidArgument):
            restart.parse(text)


def test_on_failure_ends_after_its_number_of_restarts(engine: sampan.Engine) -> None:
    name = run(engine, "on-failure:3", "exit 3")
    until(lambda: state(engine, name) == "exited")
    found = engine.containers.inspect(name)
    assert found["RestartCount"] == 3 and found["State"]["ExitCode"] == 3
    assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    times = starts(engine, name)
    assert len(times) == 4
    for pause, (before, after) in zip((0.1, 0.2, 0.4), zip(times, times[1:], strict=False), strict=True):
        assert after - before >= pause * 1e9  # at least: the machine may be slow
    engine.containers.remove(name)


@pytest.mark.parametrize(
    ("policy", "chosen", "signal_name", "again"),
    [
        ("always", "", "USR1", False),
        ("on-failure", "", "USR1", False),
        ("always", "TERM", "USR1", True),
        ("always", "USR1", "USR1", False),
        ("on-failure", "TERM", "USR1", True),
        ("unless-stopped", "TERM", "USR1", False),
        ("always", "TERM", "KILL", False),
    ],
)
def test_which_signals_of_kill_cancel_the_policy(
    engine: sampan.Engine, policy: str, chosen: str, signal_name: str, again: bool
) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done"
    name = run(engine, policy, script, stop_signal=chosen)
    ready(engine, name)
    engine.containers.kill(name, signal_name)
    if again:
        until(lambda: len(starts(engine, name)) == 2)
    else:
        until(lambda: state(engine, name) == "exited")
    engine.containers.remove(name, force=True)


def test_success_is_no_failure(engine: sampan.Engine) -> None:
    name = run(engine, "on-failure", "exit 0")
    until(lambda: state(engine, name) == "exited")
    assert len(starts(engine, name)) == 1 and engine.containers.inspect(name)["RestartCount"] == 0
    engine.containers.remove(name)


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_always_means_after_success_too(engine: sampan.Engine, policy: str) -> None:
    name = run(engine, policy, "exit 0")
    until(lambda: len(starts(engine, name)) >= 3)
    engine.containers.stop(name)
    assert state(engine, name) == "exited"
    count = len(starts(engine, name))
    time.sleep(1)
    assert len(starts(engine, name)) == count
    engine.containers.remove(name)


def test_without_a_policy_it_ends(engine: sampan.Engine) -> None:
    name = run(engine, "", "exit 1")
    until(lambda: state(engine, name) == "exited")
    assert not os.path.exists(home(engine, name) + "/restart") and len(starts(engine, name)) == 1
    engine.containers.remove(name)


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_what_is_stopped_by_hand_stays_so(engine: sampan.Engine, number: str) -> None:
    name = run(engine, "always", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    ready(engine, name)
    engine.containers.kill(name, number)
    until(lambda: state(engine, name) == "exited")
    assert len(starts(engine, name)) == 1
    engine.containers.start(name)  # and is as new when it is started by hand
    assert engine.containers.get(name).status == "running" and not restarting.is_forbidden(home(engine, name))
    engine.containers.remove(name, force=True)


def test_what_dies_by_itself_from_a_signal_is_started_again(engine: sampan.Engine) -> None:
    name = run(engine, "always", "while :; do sleep 1; done")
    before = engine.containers.get(name).pid
    os.kill(before, signal.SIGKILL)
    until(lambda: len(starts(engine, name)) == 2 and state(engine, name) == "running")
    assert engine.containers.get(name).pid != before and engine.containers.inspect(name)["RestartCount"] == 1
    engine.containers.remove(name, force=True)


def test_a_pause_is_shown_and_ended_at_once(engine: sampan.Engine) -> None:
    name = run(engine, "always", "exit 4")
    waiter = waiting(engine, name)
    found = engine.containers.inspect(name)["State"]
    assert (found["Status"], found["Restarting"], found["Running"], found["ExitCode"]) == ("restarting", True, True, 4)
    row = next(row for row in engine.containers.ls() if row["ID"] == name)
    assert row["State"] == "restarting" and row["Status"].startswith("Restarting (4) ")
    with pytest.raises(Conflict, match="restarting"):
        engine.containers.remove(name)
    engine.containers.stop(name)
    assert state(engine, name) == "exited" and not lives(waiter)
    assert engine.containers.get(name).exit_code == 4
    engine.containers.remove(name)


def test_a_pause_is_ended_by_kill_rm_and_start(engine: sampan.Engine) -> None:
    name = run(engine, "always", "exit 4")
    waiting(engine, name)
    engine.containers.kill(name)
    assert state(engine, name) == "exited"
    engine.containers.start(name)
    waiter = waiting(engine, name)
    engine.containers.start(name)
    assert not lives(waiter)
    waiter = waiting(engine, name)
    assert waiter.pause == 100 << (waiter.count - 1)  # both anew
    engine.containers.remove(name, force=True)
    assert not lives(waiter)
    with pytest.raises(NotFound):
        engine.containers.get(name)


def test_many_starts_make_one_container(engine: sampan.Engine) -> None:
    """The waiter and eight who start it by hand: one process runs in the end."""
    name = run(engine, "always", "test -e /again && exec sleep 60; touch /again; exit 1")
    threads = [threading.Thread(target=engine.containers.start, args=(name,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: state(engine, name) == "running" and engine.containers.get(name).started < time.time_ns() - 1e9)
    mark = name.encode()
    alive = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if b"HOSTNAME=" + mark[:12] in environment.split(b"\0"):
            alive.append(pid)
    assert alive == [str(engine.containers.get(name).pid)]
    engine.containers.remove(name, force=True)


def test_a_killed_waiter_leaves_a_container_that_has_ended(engine: sampan.Engine) -> None:
    name = run(engine, "always", "exit 6")
    waiter = waiting(engine, name)
    os.kill(waiter.pid, signal.SIGKILL)
    until(lambda: state(engine, name) == "exited")
    assert engine.containers.get(name).exit_code == 6
    assert engine.containers.wait(name) == 6
    engine.containers.start(name)
    until(lambda: len(starts(engine, name)) >= 2)
    engine.containers.remove(name, force=True)


def test_a_start_that_is_killed_half_way_leaves_the_end_of_before(engine: sampan.Engine) -> None:
    name = run(engine, "always", "exit 6")
    waiter = waiting(engine, name)
    os.kill(waiter.pid, signal.SIGKILL)
    until(lambda: not lives(waiter))
    os.unlink(home(engine, name) + "/exit")  # as restarting.again leaves it while it launches
    state_then = {
        "status": "restarting",
        "pid": waiter.pid,
        "pid_start": waiter.start,
        "exit_code": 6,
        "finished": 12345,
    }
    engine.store.containers.update(name, **state_then)
    found = engine.containers.get(name)
    assert (found.status, found.exit_code, found.finished) == ("exited", 6, 12345)
    engine.containers.remove(name)


def test_a_supervisor_that_is_told_to_end_does_not_start_it_again(engine: sampan.Engine) -> None:
    """As when a host shuts down: the container gets the signal, and is started after the next boot, not now."""
    name = run(engine, "always", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    ready(engine, name)
    with open(f"/proc/{engine.containers.get(name).pid}/stat") as file:
        supervisor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGTERM)
    until(lambda: state(engine, name) == "exited")
    assert not restarting.is_forbidden(home(engine, name)) and len(starts(engine, name)) == 1
    engine.containers.remove(name)


def test_the_policy_can_be_changed_while_it_runs(engine: sampan.Engine) -> None:
    name = run(engine, "", "while [ ! -e /go ]; do sleep 0.02; done; exit 1")
    engine.containers.update(name, {"restart": "on-failure:1"})
    engine.containers.exec(name, ["sh", "-c", ": > /go"])
    until(lambda: state(engine, name) == "exited")
    assert len(starts(engine, name)) == 2
    engine.containers.update(name, {"restart": "always"})
    assert engine.containers.inspect(name)["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert not restarting.is_forbidden(home(engine, name))  # its policy of before was followed to the end
    os.unlink(engine.store.paths.container(name) + "/upper/go")
    engine.containers.start(name)
    engine.containers.update(name, {"restart": "no"})
    engine.containers.exec(name, ["sh", "-c", ": > /go"])
    until(lambda: state(engine, name) == "exited")
    engine.containers.remove(name)


def test_a_policy_for_what_has_ended_starts_nothing(engine: sampan.Engine) -> None:
    name = run(engine, "", "exit 0")
    until(lambda: state(engine, name) == "exited")
    engine.containers.update(name, {"restart": "unless-stopped"})
    reboot(engine, name)
    assert booting.boot(engine) == ([], {})
    engine.containers.remove(name)


def test_what_removes_itself_cannot_start_again(engine: sampan.Engine) -> None:
    with pytest.raises(InvalidArgument, match="--rm"):
        engine.containers.create("base", RunOptions(command=["true"], restart="always"), auto_remove=True)


def test_only_the_waiter_starts_it_again(engine: sampan.Engine) -> None:
    name = run(engine, "always", "exit 4")
    waiting(engine, name)
    assert not engine.containers.again(name)
    assert state(engine, name) == "restarting"
    engine.containers.remove(name, force=True)


def reboot(engine: sampan.Engine, name: str) -> None:
    """What is left of a container after a boot of the host: its directory and its record."""
    record = engine.containers.get(name)
    if record.status == "running":
        with open(f"/proc/{record.pid}/stat") as file:
            os.kill(int(file.read().rpartition(")")[2].split()[1]), signal.SIGKILL)  # and its container with it
        until(lambda: not process.alive(record.pid, record.pid_start, record.boot_id))
    engine.containers.store.update(name, boot_id="00000000-0000-0000-0000-000000000000")


def test_after_a_boot_policies_are_followed_once(engine: sampan.Engine) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    policies = {"no": "", "always": "always", "halted": "always", "unless": "unless-stopped", "left": "unless-stopped"}
    policies |= {"failing": "on-failure", "content": "on-failure"}
    names = {key: run(engine, policy, script) for key, policy in policies.items()}
    names["content"] = run(engine, "on-failure", "exit 0")
    names["new"] = engine.containers.create("base", RunOptions(command=["sleep", "60"], restart="always"))
    for key in ("halted", "left"):
        ready(engine, names[key])
        engine.containers.stop(names[key])
    until(lambda: state(engine, names["content"]) == "exited")
    for name in names.values():
        if engine.containers.store.get(name).boot_id:
            reboot(engine, name)
    started, failed = booting.boot(engine)
    ids = {engine.containers.get(name).id for name in started}
    assert not failed and ids == {names[key] for key in ("always", "halted", "unless", "failing")}
    assert {state(engine, names[key]) for key in ("no", "left", "content")} == {"exited"}
    assert state(engine, names["new"]) == "created"
    engine.containers.stop(names["halted"])
    assert booting.boot(engine) == ([], {})  # twice is once: what was stopped in this boot stays so
    for row in engine.containers.ls(all=True):
        engine.containers.remove(row["ID"], force=True)


def test_a_boot_says_what_could_not_be_started(engine: sampan.Engine) -> None:
    name = run(engine, "always", "sleep 60")
    reboot(engine, name)
    os.rmdir(home(engine, name) + "/work/work") if os.path.isdir(home(engine, name) + "/work/work") else None
    os.rename(home(engine, name) + "/upper", home(engine, name) + "/elsewhere")
    Path(home(engine, name), "upper").touch()
    words = [sys.executable, "-m", "sampan", "--root", engine.store.paths.root, "system", "boot"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("sampan: warning: ")]  # of one id only
    assert done.returncode == 1 and said[0].startswith("sampan: cannot ") and not done.stdout
    engine.containers.remove(name, force=True)


def test_the_unit_is_one_that_systemd_takes(engine: sampan.Engine, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sampan", "--root", engine.store.paths.root, "system", "boot"]
    done = subprocess.run([*words, "--unit"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "enable sampan-boot.service" in done.stderr
    (tmp_path / "sampan-boot.service").write_text(done.stdout)
    try:
        checked = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / "sampan-boot.service"], capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("needs systemd-analyze")
    assert "sampan-boot.service" not in checked.stderr, checked.stderr
    line = subprocess.run([*words, "--cron"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert line.startswith("@reboot ") and line.count("\n") == 1
    assert subprocess.run(["sh", "-c", line[len("@reboot ") :]], timeout=60, check=True).returncode == 0
