"""Health checks with real containers: status, results, the clock, and that a check is confined as an exec is."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import until

import sampan
from sampan.engine import health
from sampan.errors import InvalidArgument, NotSupported
from sampan.oci import health as checks
from sampan.oci import timestamp
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup

SECOND = 10**9
ONE = 4  # the processes of a check: the helper, who reaps, its shell and what that starts


def run(engine: sampan.Engine, check: str, script: str = "sleep 300", **settings: Any) -> str:
    settings = {"health_interval": 0.1, "health_timeout": 20.0, **settings}
    options = RunOptions(command=["sh", "-c", script], health_cmd=check, **settings)
    return str(engine.containers.run(options, image="base", detach=True))


def state(engine: sampan.Engine, name: str) -> dict[str, Any]:
    return dict(engine.containers.inspect(name)["State"]["Health"])


def results(engine: sampan.Engine, name: str, count: int = 1) -> list[dict[str, Any]]:
    return list(until(lambda: len(log := state(engine, name)["Log"]) >= count and log))


def changes(engine: sampan.Engine, name: str) -> list[str]:
    filters = {"container": [name], "event": ["health_status"]}
    return [event["Action"].partition(": ")[2] for event in engine.events(0, filters=filters)]


def remove(engine: sampan.Engine, name: str) -> None:
    engine.containers.remove(name, force=True)


def processes(engine: sampan.Engine, name: str, word: bytes) -> list[int]:
    """Give the processes of a container whose command line has the word."""
    space = os.stat(f"/proc/{engine.containers.get(name).pid}/ns/pid").st_ino
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/pid").st_ino == space and word in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found


def parents() -> dict[int, int]:
    """Give every process of this host with its parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def supervisor(engine: sampan.Engine, name: str) -> int:
    return parents()[engine.containers.get(name).pid]


def descendants(pid: int) -> set[int]:
    family, found = parents(), {pid}
    while added := {child for child, parent in family.items() if parent in found} - found:
        found |= added
    return found - {pid}


# ---- what is asked ----


def test_the_images_check_and_what_is_asked_become_one() -> None:
    image = {"Healthcheck": {"Test": ["CMD", "a"], "Interval": 5 * SECOND, "Retries": 7}}
    assert checks.healthcheck({}, RunOptions()) is None
    assert checks.healthcheck(image, RunOptions()) == image["Healthcheck"]
    assert checks.healthcheck(image, RunOptions(health_timeout=1.5)) == {
        **image["Healthcheck"],
        "Timeout": 3 * SECOND // 2,
    }
    asked = checks.healthcheck(image, RunOptions(health_cmd="b", health_retries=2))
    assert asked == {"Test": ["CMD-SHELL", "b"], "Interval": 5 * SECOND, "Retries": 2}
    assert checks.healthcheck(image, RunOptions(no_healthcheck=True)) == {"Test": ["NONE"]}
    assert checks.arguments({"Test": ["CMD", "a", "b"]}, []) == ["a", "b"]
    assert checks.arguments({"Test": ["CMD-SHELL", "x y"]}, []) == ["/bin/sh", "-c", "x y"]
    assert checks.arguments({"Test": ["CMD-SHELL", "x"]}, ["/bin/bash", "-ec"]) == ["/bin/bash", "-ec", "x"]
    assert checks.arguments({"Test": ["NONE"]}, []) == [] == checks.arguments({"Test": ["WHAT", "x"]}, [])
    assert checks.number({"Test": ["CMD", "a"]}, "Interval") == 30 * SECOND


@pytest.mark.parametrize(
    "settings",
    [
        {"health_interval": -1.0},
        {"health_timeout": 0.0001},
        {"health_retries": -1},
        {"no_healthcheck": True, "health_cmd": "x"},
        {"no_healthcheck": True, "health_interval": 1.0},
    ],
)
def test_nonsense_is_refused(engine: sampan.Engine, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="health"):
        engine.containers.create("base", RunOptions(**settings))


@pytest.mark.parametrize(
    "check", [{"Test": "x"}, {"Test": [1]}, {"Test": ["CMD", "a\0b"]}, {"Interval": -1}, {"Retries": "3"}]
)
def test_a_hostile_check_of_the_image_is_refused(check: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="HEALTHCHECK"):
        checks.healthcheck({"Healthcheck": check}, RunOptions())
    assert checks.healthcheck({"Healthcheck": check}, RunOptions(no_healthcheck=True)) == {"Test": ["NONE"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (SECOND, "1s"),
        (90 * SECOND, "1m30s"),
        (SECOND // 2, "500ms"),
        (3600 * SECOND, "1h0m0s"),
        (3 * SECOND // 2, "1.5s"),
    ],
)
def test_durations_are_gos(value: int, text: str) -> None:
    assert checks.duration(value) == text


# ---- what is found out ----


def test_status_streak_results_and_events(engine: sampan.Engine) -> None:
    name = run(engine, "echo fine; test ! -e /bad && exit 0; echo bad >&2; exit 7", health_retries=3)
    begun = state(engine, name)["Status"]
    assert begun in ("starting", "healthy")
    until(lambda: state(engine, name)["Status"] == "healthy")
    assert engine.containers.exec(name, ["sh", "-c", ": > /bad"]) == 0
    until(lambda: state(engine, name)["Status"] == "unhealthy")
    found = until(lambda: (s := state(engine, name))["FailingStreak"] > 5 and s)
    assert len(found["Log"]) == 5 and {result["ExitCode"] for result in found["Log"]} == {7}
    assert found["Log"][-1]["ExitCode"] == 7 and found["Log"][-1]["Output"] == "fine\nbad\n"
    assert found["Log"][-1]["Start"] <= found["Log"][-1]["End"]
    row = next(row for row in engine.containers.ls() if row["ID"] == name)
    assert row["Status"].endswith(" (unhealthy)")
    assert [r["ID"] for r in engine.containers.ls(filters={"health": ["unhealthy"]})] == [name]
    assert engine.containers.exec(name, ["rm", "/bad"]) == 0
    until(lambda: state(engine, name)["Status"] == "healthy")
    assert state(engine, name)["FailingStreak"] == 0
    assert changes(engine, name)[:3] == ["healthy", "unhealthy", "healthy"]
    assert engine.containers.inspect(name)["Config"]["Healthcheck"]["Test"][0] == "CMD-SHELL"
    remove(engine, name)


def test_failures_do_not_count_while_it_starts(engine: sampan.Engine) -> None:
    name = run(engine, "exit 1", health_retries=1, health_start_period=600.0, health_start_interval=0.05)
    results(engine, name, 3)
    assert state(engine, name)["Status"] == "starting" and state(engine, name)["FailingStreak"] == 0
    remove(engine, name)


def test_the_start_interval_is_that_of_the_start(engine: sampan.Engine) -> None:
    name = run(engine, "exit 0", health_interval=300.0, health_start_period=600.0, health_start_interval=0.05)
    until(lambda: state(engine, name)["Status"] == "healthy")
    time.sleep(0.5)
    assert len(state(engine, name)["Log"]) == 1  # from then on the interval counts
    remove(engine, name)


def test_a_check_that_is_due_before_its_plan_is_there_waits_for_it(
    engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = health.arm

    def late(*args: Any) -> None:
        time.sleep(0.5)
        arm(*args)

    monkeypatch.setattr(health, "arm", late)
    name = run(engine, "exit 0", health_interval=0.05)
    assert {found["ExitCode"] for found in results(engine, name)} == {0}
    remove(engine, name)


def test_output_is_cut_and_hostile_bytes_are_text(engine: sampan.Engine) -> None:
    name = run(engine, "printf '\\001\\377\"\\\\'; head -c 10000000 /dev/zero")
    (found, *_) = results(engine, name)
    assert found["ExitCode"] == 0
    assert found["Output"] == '\x01\ufffd"\\' + "\0" * 4092 + "..."
    remove(engine, name)


def test_what_cannot_be_executed_is_a_failure_that_says_why(engine: sampan.Engine) -> None:
    options = RunOptions(command=["sleep", "300"], health_cmd="x", health_interval=0.1)
    record = engine.containers.store.get(engine.containers.create("base", options))
    check = {**record.config["healthcheck"], "Test": ["CMD", "/absent"]}
    engine.containers.store.reconfigure(record.id, {**record.config, "healthcheck": check})
    engine.containers.start(record.id)
    (found, *_) = results(engine, record.id)
    assert (found["ExitCode"], found["Output"]) == (-1, "cannot start the check: No such file or directory")
    until(lambda: state(engine, record.id)["Status"] == "unhealthy")
    remove(engine, record.id)


def test_time_that_is_up_kills_every_process_of_the_check(engine: sampan.Engine) -> None:
    name = run(engine, "echo before; (sleep 7777; :) & sleep 7777; :", health_timeout=0.3)
    # On a busy machine it is up before a check has come as far as that.
    said = "Health check exceeded timeout (300ms): before\n"
    until(lambda: said in [result["Output"] for result in state(engine, name)["Log"]])
    assert {result["ExitCode"] for result in results(engine, name, 3)} == {-1}
    assert len(processes(engine, name, b"7777")) <= 4  # those of the check that runs just now
    remove(engine, name)


def zombies(engine: sampan.Engine, name: str) -> list[str]:
    """Give the names of the dead children of a container's first process."""
    parent, found = str(engine.containers.get(name).pid), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        if rest.split()[:2] == ["Z", parent]:
            found.append(head.partition("(")[2])
    return found


def test_time_that_is_up_leaves_no_zombies_to_a_first_process_that_does_not_reap(engine: sampan.Engine) -> None:
    check = "sleep 4444 & (sleep 4444; :) | sleep 4444; :"
    name = run(engine, check, "exec sleep 300", health_timeout=0.1)
    until(lambda: state(engine, name)["FailingStreak"] >= 4)
    assert state(engine, name)["Log"][-1]["ExitCode"] == -1
    assert zombies(engine, name) == []
    remove(engine, name)


def test_what_left_the_session_of_a_check_lives_on_and_holds_up_no_other_check(engine: sampan.Engine) -> None:
    # Each check leaves one, of which the first to make the file (O_EXCL) stays: a check may be killed sooner.
    leaves = "set -C; { : > /left; } 2>/dev/null && exec sleep 3333"
    name = run(engine, f"setsid sh -c '{leaves}' & sleep 3332; :", "exec sleep 300", health_timeout=0.3)
    until(lambda: processes(engine, name, b"sleep\x003333"))
    streak = state(engine, name)["FailingStreak"]
    until(lambda: state(engine, name)["FailingStreak"] >= streak + 3)
    assert len(processes(engine, name, b"sleep\x003333")) == 1
    remove(engine, name)


def test_a_check_that_is_killed_does_not_go_on_with_what_follows_its_failure(engine: sampan.Engine) -> None:
    name = run(engine, "(sleep 2222 || : > /failed) || : > /failed", "exec sleep 300", health_timeout=0.1)
    until(lambda: state(engine, name)["FailingStreak"] >= 10)
    assert engine.containers.exec(name, ["sh", "-c", "test -e /failed"]) == 1
    remove(engine, name)


def test_what_a_check_that_ended_left_behind_goes_on(engine: sampan.Engine) -> None:
    name = run(engine, "test -e /left || { : > /left; sleep 1111 & }; exit 3", "exec sleep 300")
    assert results(engine, name, 2)[1]["ExitCode"] == 3
    assert len(processes(engine, name, b"sleep\x001111")) == 1
    remove(engine, name)


def test_there_is_one_check_at_a_time(engine: sampan.Engine) -> None:
    name = run(engine, "sleep 8888; :", health_interval=0.01)
    until(lambda: len(processes(engine, name, b"8888")) > 1)
    time.sleep(0.5)
    assert len(processes(engine, name, b"8888")) == 2  # sh and sleep
    remove(engine, name)


def test_nothing_of_a_check_outlives_the_container(engine: sampan.Engine) -> None:
    name = run(engine, "sleep 9999; :")
    pids = until(lambda: processes(engine, name, b"9999"))
    engine.containers.stop(name, 0)
    until(lambda: not any(b"9999" in _command(pid) for pid in pids))
    assert len(state(engine, name)["Log"]) <= 1  # the one that was cut short
    remove(engine, name)


def test_a_check_that_the_containers_end_has_ended_is_no_result(engine: sampan.Engine) -> None:
    """Its supervisor, held up until both have ended, sees both at once."""
    name = run(engine, "sleep 4321; :", "exec sleep 300", health_timeout=600.0)
    pids = until(lambda: len(found := processes(engine, name, b"4321")) > 1 and found)
    holder, pid = supervisor(engine, name), engine.containers.get(name).pid
    os.kill(holder, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{holder}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    os.kill(pid, signal.SIGKILL)
    until(lambda: all(is_killed(one) for one in [*pids, pid]) and not _command(pid))
    until(lambda: not [one for one in descendants(holder) if _command(one)])  # who reaped and told its end, too
    os.kill(holder, signal.SIGCONT)
    engine.containers.wait(name)
    until(lambda: engine.containers.get(name).status == "exited")
    assert state(engine, name)["Log"] == []
    remove(engine, name)


def test_nothing_of_a_check_outlives_a_killed_supervisor(engine: sampan.Engine) -> None:
    name = run(engine, "sleep 6666; :")
    pids = until(lambda: processes(engine, name, b"6666"))
    with open(f"/proc/{engine.containers.get(name).pid}/stat") as file:
        os.kill(int(file.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
    until(lambda: not any(b"6666" in _command(pid) for pid in pids))
    remove(engine, name)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_paused_container_is_not_checked_and_nothing_piles_up(engine: sampan.Engine) -> None:
    name = run(engine, "exit 0")
    until(lambda: state(engine, name)["Status"] == "healthy")
    try:
        engine.containers.pause(name)
    except NotSupported as error:
        remove(engine, name)
        pytest.skip(f"needs a control group that can be frozen: {error}")
    paused = time.time_ns()
    count = len(descendants(supervisor(engine, name)))
    time.sleep(1)
    before = state(engine, name)
    assert before["Status"] == "healthy"
    assert all(timestamp.parse(result["Start"]) < paused for result in before["Log"])
    # A check that is held may be given up; that one may have been begun just now.
    assert 0 < len(descendants(supervisor(engine, name))) <= count + ONE
    engine.containers.unpause(name)
    until(lambda: timestamp.parse(state(engine, name)["Log"][-1]["Start"]) > paused)
    assert state(engine, name)["FailingStreak"] == 0
    remove(engine, name)


def test_a_check_that_is_paused_over_its_time_is_no_failure(engine: sampan.Engine) -> None:
    check = "test -e /second && exit 0; : > /second; sleep 5555"
    name = run(engine, check, health_timeout=3.0, health_retries=1)
    pids = until(lambda: processes(engine, name, b"sleep\x005555"))
    try:
        engine.containers.pause(name)
    except NotSupported as error:
        remove(engine, name)
        pytest.skip(f"needs a control group that can be frozen: {error}")
    until(lambda: all(is_killed(pid) for pid in pids))
    engine.containers.unpause(name)
    until(lambda: changes(engine, name))  # the status is written first
    assert changes(engine, name) == ["healthy"]
    remove(engine, name)


def is_killed(pid: int) -> bool:
    """Say whether KILL was sent to a process: on cgroup v1 it acts when the process goes on."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return True
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    pending = int(found["SigPnd"], 16) | int(found["ShdPnd"], 16)
    return found["State"].startswith("Z") or bool(pending >> (signal.SIGKILL - 1) & 1)


# ---- confinement ----


def test_a_check_is_confined_as_the_container_is(engine: sampan.Engine) -> None:
    check = "id -u; cat /proc/self/status; ls /proc/self/fd; env; cat /proc/self/cgroup; readlink /proc/self/ns/* ; pwd"
    script = f"({check}) > /tmp/own; sleep 300"
    options = {"user": "1234:1235", "security_opt": ["no-new-privileges"], "cap_drop": ["CHOWN"], "env": ["A=b"]}
    options |= {"workdir": "/tmp", "tmpfs": ["/tmp"], "pids_limit": 50} if os.geteuid() == 0 else {"tmpfs": ["/tmp"]}
    if os.geteuid() != 0:
        options.pop("user")
    name = run(engine, check, script, **options)
    found = results(engine, name)[0]["Output"]
    wanted = ("Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:")
    whole = [line for line in found.splitlines() if line.startswith(wanted)]
    with open(f"/proc/{engine.containers.get(name).pid}/status") as file:
        own = [line for line in file.read().splitlines() if line.startswith(wanted)]
    if os.geteuid() == 0:
        assert [line for line in own if not line.startswith("Groups")] == [
            line for line in whole if not line.startswith("Groups")
        ]
    assert "NoNewPrivs:\t1" in whole and "Seccomp:\t2" in whole
    assert "A=b" in found and ("HOME=" in found)
    remove(engine, name)


def test_who_reaps_for_a_check_is_confined_as_it_is_and_unreadable(engine: sampan.Engine) -> None:
    check = "cat /proc/self/status; echo ---; cat /proc/$PPID/status; cat /proc/$PPID/maps > /dev/null && echo readable"
    name = run(engine, check)
    own, _, reaper = results(engine, name)[0]["Output"].partition("---\n")
    wanted = ("Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:")
    assert reaper.startswith("Name:\tsampan-check\n") and "readable" not in reaper
    lines = [[line for line in text.splitlines() if line.startswith(wanted)] for text in (own, reaper)]
    assert lines[0] == lines[1] and len(lines[0]) > 9
    remove(engine, name)


def test_a_check_has_three_descriptors_and_the_containers_namespaces(engine: sampan.Engine) -> None:
    name = run(engine, "ls /proc/self/fd; ls -l /proc/self/ns")
    found = results(engine, name)[0]["Output"].splitlines()
    assert found[:4] == ["0", "1", "2", "3"]  # the last one is ls's own
    pid = engine.containers.get(name).pid
    for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert any(os.readlink(f"/proc/{pid}/ns/{kind}") in line for line in found), kind
    remove(engine, name)


def test_a_check_is_in_the_containers_group(engine: sampan.Engine) -> None:
    name = run(engine, "sleep 5555; :")
    directory = cgroup.named(name).v2_dir
    if not directory or not os.path.isdir(directory):
        remove(engine, name)
        pytest.skip("needs a control group for each container")
    pids = until(lambda: processes(engine, name, b"5555"))
    assert {str(pid) for pid in pids} <= set(Path(directory, "cgroup.procs").read_text().split())
    remove(engine, name)


# ---- with the rest ----


def test_what_has_ended_is_not_healthy(engine: sampan.Engine) -> None:
    # The second check is far away: the end of the container ends one that runs, which then may be the last result.
    settings = {"health_interval": 300.0, "health_start_period": 600.0, "health_start_interval": 0.05}
    name = run(engine, "exit 0", **settings)
    until(lambda: state(engine, name)["Status"] == "healthy")
    engine.containers.kill(name)
    engine.containers.wait(name)
    found = state(engine, name)
    assert (found["Status"], found["Log"][-1]["ExitCode"]) == ("unhealthy", 0)
    assert not engine.containers.ls(all=True, filters={"health": ["healthy"]})
    engine.containers.start(name)
    assert state(engine, name)["Status"] in ("starting", "healthy")
    remove(engine, name)


def test_a_restarted_container_is_checked_anew(engine: sampan.Engine) -> None:
    script = "test -e /again && exec sleep 300; while [ ! -e /go ]; do sleep 0.05; done; : > /again; exit 1"
    name = run(engine, "exit 0", script, restart="always")
    until(lambda: changes(engine, name) == ["healthy"])
    engine.containers.exec(name, ["sh", "-c", ": > /go"])
    until(lambda: engine.containers.inspect(name)["RestartCount"] == 1)
    until(lambda: changes(engine, name) == ["healthy", "healthy"])
    assert state(engine, name)["Status"] == "healthy"
    remove(engine, name)


def test_without_a_check_nothing_is_told(engine: sampan.Engine) -> None:
    name = str(engine.containers.run(RunOptions(command=["sleep", "300"]), image="base", detach=True))
    assert "Health" not in engine.containers.inspect(name)["State"]
    assert health.status(engine, engine.containers.get(name)) == ""
    assert not os.path.exists(engine.store.paths.container(name) + "/probe")
    assert name in [row["ID"] for row in engine.containers.ls(filters={"health": ["none"]})]
    remove(engine, name)


def test_the_images_check_runs_with_the_images_shell(engine: sampan.Engine) -> None:
    changes = ['HEALTHCHECK --interval=100ms CMD echo "$0"', 'SHELL ["/bin/sh", "-c"]']
    made = engine.containers.create("base", RunOptions(command=["true"]))
    with open(archive := engine.store.paths.root + "/health-image.tar", "wb") as file:
        engine.containers.export(made, file.fileno())
    engine.images.import_(archive, "checked", [*changes, 'CMD ["sleep", "300"]'])
    name = str(engine.containers.run(RunOptions(), image="checked", detach=True))
    assert results(engine, name)[0]["Output"] == "/bin/sh\n"
    engine.containers.remove(made)
    remove(engine, name)
    quiet = str(engine.containers.run(RunOptions(no_healthcheck=True), image="checked", detach=True))
    assert "Health" not in engine.containers.inspect(quiet)["State"]
    assert json.dumps(engine.containers.inspect(quiet)["Config"]["Healthcheck"]) == '{"Test": ["NONE"]}'
    remove(engine, quiet)
