"""top and stats: every process of a container and what it uses, with and without groups; no figure is a guess."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from waiting import until

import sampan
from sampan.engine import top as columns
from sampan.errors import Conflict, InvalidArgument
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup, cgroupstats

BUSY = "sleep 1000 & while :; do :; done"
PROCESSES = {f"sh -c {BUSY}", "sleep 1000", "sleep 2000"}


@pytest.fixture(scope="module")
def busy(engine: sampan.Engine) -> Iterator[str]:
    name = str(engine.containers.run(RunOptions(command=["sh", "-c", BUSY]), image="base", detach=True))
    words = engine.command(["exec", "-d", name, "sleep", "2000"])
    subprocess.run(words, check=True, timeout=60)
    until(lambda: {row[7] for row in engine.containers.top(name)["Processes"]} == PROCESSES)
    yield name
    engine.containers.remove(name, force=True)


@pytest.fixture(scope="module")
def stopped(engine: sampan.Engine) -> Iterator[str]:
    name = engine.containers.create("base", RunOptions(command=["true"]))
    yield name
    engine.containers.remove(name, force=True)


def said(engine: sampan.Engine, *words: str, code: int = 0) -> str:
    done = subprocess.run(engine.command(list(words)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_top_shows_every_process_as_the_host_numbers_them(engine: sampan.Engine, busy: str) -> None:
    found = engine.containers.top(busy)
    assert found["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    rows = {row[7]: row for row in found["Processes"]}
    assert set(rows) == PROCESSES, "one of them came by exec"
    assert rows["sleep 1000"][2] == rows[f"sh -c {BUSY}"][1] == str(engine.containers.get(busy).pid)
    for row in rows.values():
        with open(f"/proc/{row[1]}/cmdline", encoding="ascii") as file:
            assert file.read().rstrip("\0").replace("\0", " ") == row[7]


def test_top_takes_the_words_of_ps(engine: sampan.Engine, busy: str) -> None:
    assert engine.containers.top(busy, ["aux"])["Titles"][:4] == ["USER", "PID", "%CPU", "%MEM"]
    found = engine.containers.top(busy, ["-eo", "pid,comm,user=WHO"])
    assert found["Titles"] == ["PID", "COMMAND", "WHO"]
    assert sorted(row[1] for row in found["Processes"]) == ["sh", "sleep", "sleep"]
    lines = said(engine, "top", busy, "-o", "pid,args").splitlines()
    assert lines[0].split() == ["PID", "COMMAND"] and len(lines) == 4


@pytest.mark.skipif(not os.access("/usr/bin/ps", os.X_OK), reason="needs ps, to compare with")
def test_columns_are_those_of_ps(engine: sampan.Engine, busy: str) -> None:
    words = "pid,ppid,user,group,ruser,uid,pgid,sid,stat,tty,ni,pri,nlwp,vsz,comm,args"
    ours = {row[0]: row for row in engine.containers.top(busy, ["-o", words])["Processes"]}
    sleeping = [pid for pid, row in ours.items() if row[-2] == "sleep"]
    done = subprocess.run(["ps", "-o", words, "-p", ",".join(sleeping)], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines()[1:]:
        assert line.split() == " ".join(ours[line.split()[0]]).split()


@pytest.mark.parametrize(
    "words,expected",
    [
        ([], "UID PID PPID C STIME TTY TIME CMD"),
        (["-ef"], "UID PID PPID C STIME TTY TIME CMD"),
        (["-e"], "PID TTY TIME CMD"),
        (["ax"], "PID TTY STAT TIME COMMAND"),
        (["axo", "pid,args"], "PID COMMAND"),
        (["-o", "pid", "-o", "rss"], "PID RSS"),
        (["-opid=X"], "X"),
        (["--format=pid,cmd"], "PID CMD"),
    ],
)
def test_which_columns_are_asked_for(words: list[str], expected: str) -> None:
    assert " ".join(heading for _, heading in columns.parse(words) or ()) == expected


def test_what_only_ps_knows_is_left_to_it(engine: sampan.Engine, busy: str) -> None:
    assert columns.parse(["-l"]) is None and columns.parse(["--forest"]) is None
    with pytest.raises(InvalidArgument):
        engine.containers.top(busy, ["-o", "nonsense"])
    if os.access("/usr/bin/ps", os.X_OK):
        assert len(engine.containers.top(busy, ["-l", "-e"])["Processes"]) == 3
        with pytest.raises(InvalidArgument):
            engine.containers.top(busy, ["--nonsense"])


def test_top_of_what_does_not_run(engine: sampan.Engine, stopped: str) -> None:
    with pytest.raises(Conflict):
        engine.containers.top(stopped)
    assert "is not running" in said(engine, "top", stopped, code=1)
    assert (
        said(engine, "top", "no-such", code=1)
        == "sampan: no such container: no-such\nhint: `sampan ps -a` lists what there is\n"
    )


def test_stats_measure(engine: sampan.Engine, busy: str, stopped: str) -> None:
    (row,) = until(lambda: [row for row in next(engine.containers.stats([busy])) if row["CPU"] > 0])
    assert row["PIDs"] == 3
    assert 50_000 < row["Memory"] < 50_000_000 < row["Limit"]
    assert row["Network"] == (0, 0)
    if not cgroup.named(engine.containers.get(busy).id).directories():
        assert row["IO"] is None, "nobody counts it"
    rows = {row["ID"]: row for row in next(engine.containers.stats(all=True))}
    assert rows[stopped]["Running"] is False and rows[stopped]["CPU"] == 0.0
    assert busy in {row["ID"] for row in next(engine.containers.stats())}
    assert stopped not in {row["ID"] for row in next(engine.containers.stats())}


def test_stats_show_what_waits_for_its_restart(engine: sampan.Engine, stopped: str) -> None:
    chosen = RunOptions(command=["false"], restart="always")
    name = str(engine.containers.run(chosen, image="base", detach=True))
    try:
        until(lambda: engine.containers.inspect(name)["RestartCount"] > 3)  # the pauses are longer than its life
        until(lambda: engine.containers.inspect(name)["State"]["Status"] == "restarting")
        rows = {row["ID"]: row for row in next(engine.containers.stats())}
        assert name in rows and stopped not in rows
        assert rows[name]["Running"] or (rows[name]["CPU"], rows[name]["PIDs"]) == (0.0, 0)
    finally:
        engine.containers.remove(name, force=True)


def test_stats_of_the_hosts_network_are_not_known(engine: sampan.Engine) -> None:
    chosen = RunOptions(command=["sleep", "1000"], network="host")
    name = str(engine.containers.run(chosen, image="base", detach=True))
    try:
        (row,) = next(engine.containers.stats([name]))
        assert row["Network"] is None
        assert said(engine, "stats", "--no-stream", "--format", "{{.NetIO}}", name) == "--\n"
    finally:
        engine.containers.remove(name, force=True)


def test_stats_of_a_limited_container(engine: sampan.Engine) -> None:
    chosen = RunOptions(command=["sleep", "1000"], memory=64 << 20)
    try:
        name = str(engine.containers.run(chosen, image="base", detach=True))
    except sampan.errors.NotSupported as exc:
        pytest.skip(f"needs a memory controller: {exc.message}")
    try:
        (row,) = next(engine.containers.stats([name]))
        assert row["Limit"] == 64 << 20 and 0 < row["Memory"] < 64 << 20
    finally:
        engine.containers.remove(name, force=True)


def test_memory_that_may_not_be_read_is_no_figure() -> None:
    found: dict[str, int] = {}
    cgroupstats.of_processes([os.getpid()], found)
    assert found["memory_usage"] > 1_000_000 and found["pids"] >= 1
    if os.geteuid():
        found = {}
        cgroupstats.of_processes([os.getpid(), 1], found)
        assert "memory_usage" not in found


def test_forms_of_stats(engine: sampan.Engine, busy: str, stopped: str) -> None:
    lines = said(engine, "stats", "--no-stream", busy, stopped).splitlines()
    assert lines[0].split("   ")[0] == "CONTAINER ID" and "MEM USAGE / LIMIT" in lines[0] and len(lines) == 3
    assert lines[1].split()[0] == busy[:12] and "0.00%" in lines[2]
    found = json.loads(said(engine, "stats", "--no-stream", "--no-trunc", "--format", "json", busy))
    assert found["ID"] == busy and found["PIDs"] == "3" and found["CPUPerc"].endswith("%")
    assert said(engine, "stats", "--no-stream", "--format", "table {{.PIDs}}\t{{.Name}}", busy).startswith("PIDS ")
    assert (
        said(engine, "stats", "--no-stream", "no-such", code=1)
        == "sampan: no such container: no-such\nhint: `sampan ps -a` lists what there is\n"
    )


def test_stats_go_on_until_interrupted(engine: sampan.Engine, busy: str) -> None:
    words = engine.command(["stats", "--format", "{{.PIDs}}", busy])
    child = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert [child.stdout.readline(), child.stdout.readline()] == [b"3\n", b"3\n"]
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    child.stdout.close()
