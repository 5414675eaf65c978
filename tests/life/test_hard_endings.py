"""Containers that are hard to end (groups of their own, frozen ones, fork bombs, thousands of orphans), and those that
remove themselves: restarted, killed half-way, with volumes.

Not here: a process in uninterruptible sleep (D), which needs a device or file system that does not answer.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lifesupport import Run
from waiting import until

import sampan
from sampan.engine import supervisors
from sampan.runtime import cgroup
from sampan.store import gc

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a container the host's control groups")
OWN = "read h < /proc/sys/kernel/hostname; set -- /cg/sampan-$h*; cd $1"
ENDINGS = [["stop"], ["rm", "-f"]]


def ends(sampan_run: Run, words: list[str], name: str) -> None:
    """End a container: done, in a minute on the busiest of machines."""
    done = sampan_run(*words, name, timeout=60)
    assert done.returncode == 0, done
    sampan_run("rm", name)


def gone(name: str) -> None:
    """Assert that no group of a container is left."""
    until(lambda: not glob.glob(f"/sys/fs/cgroup/**/sampan-{name}", recursive=True))


# ---- control groups ----


@as_root
@pytest.mark.parametrize("words", ENDINGS)
def test_two_hundred_groups_of_its_own_go_with_a_container(
    started: Callable[..., str], sampan_run: Run, words: list[str]
) -> None:
    base = cgroup.detect().v2_base or cgroup.detect().v1["freezer"]
    script = f"""{OWN}; d=.
    for i in $(seq 100); do mkdir wide$i; d=$d/n; mkdir $d; done
    for i in $(seq 20); do sleep 100 & echo $! > wide$i/cgroup.procs; done
    echo ready; wait"""
    name = started(script, "--privileged", "-v", f"{base}/sampan:/cg")
    until(lambda: sampan_run("logs", name).stdout == "ready\n")
    made = sum(len(names) for _, names, _ in os.walk(f"{base}/sampan/sampan-{name}"))
    assert made == 200
    ends(sampan_run, words, name)
    gone(name)


@as_root
@pytest.mark.parametrize("words", ENDINGS)
def test_a_group_that_the_container_froze_itself_is_no_hindrance(
    started: Callable[..., str], sampan_run: Run, words: list[str]
) -> None:
    layout = cgroup.detect()
    top, file, word = (layout.v1.get("freezer"), "freezer.state", "FROZEN")
    if top is None:
        top, file, word = f"{layout.v2_base}/sampan", "cgroup.freeze", "1"
    own = f"{top}/frozen-by-test-{os.getpid()}"
    os.mkdir(own)
    try:
        script = f"cd /cg; sleep 100 & echo $! > cgroup.procs; echo {word} > {file}; echo ready; wait"
        name = started(script, "--privileged", "-v", f"{own}:/cg")
        until(lambda: sampan_run("logs", name).stdout == "ready\n")
        ends(sampan_run, words, name)
        gone(name)
    finally:
        until(lambda: not Path(own, "cgroup.procs").read_text())
        os.rmdir(own)


# ---- many processes ----


@pytest.mark.parametrize("words", ENDINGS)
def test_a_fork_bomb_ends(started: Callable[..., str], sampan_run: Run, words: list[str]) -> None:
    layout = cgroup.detect()
    if "pids" not in layout.v1 and (not layout.v2_base or "pids" not in layout.v2_controllers()):
        pytest.skip("needs the pids controller: this user may not limit processes")
    # Once, and not for both sides of a pipe: a shell that cannot fork any more would end.
    name = started("b() { b | b & }; (b) & exec sleep 1000", "--pids-limit", "200")
    time.sleep(1)
    assert sampan_run("ps", "-q", "--no-trunc").stdout.split().count(name) == 1
    ends(sampan_run, words, name)
    gone(name)


@pytest.mark.parametrize("options", [(), ("--init",)])
def test_ten_thousand_orphans(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, options: tuple[str, ...]
) -> None:
    count = 10_000 if "SAMPAN_FAULTS" in os.environ else 1000
    script = f"for i in $(seq {count}); do (true &); done; echo ready; exec sleep 600"
    name = started(script, *options)
    pid = supervisors.supervisor(engine.containers.socket(name))
    until(lambda: sampan_run("logs", name).stdout == "ready\n", 120)
    zombies = [child for child in children(pid) if zombie(child)]
    assert not zombies  # of ours; a first process that does not reap keeps its own
    if options:
        until(lambda: not [child for child in children(engine.containers.get(name).pid) if zombie(child)])
    ends(sampan_run, ["rm", "-f"], name)
    until(lambda: not Path(f"/proc/{pid}/exe").is_symlink() or zombie(pid))
    gone(name)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- those that remove themselves ----


def test_a_restart_of_one_that_removes_itself_keeps_it(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("echo here >> /kept; while :; do sleep 0.05; done", "--rm", "-v", "/anonymous")
    (mount,) = engine.containers.inspect(name)["Mounts"]
    for turn in range(1, 4):
        until(lambda turn=turn: sampan_run("exec", name, "cat", "/kept").stdout == "here\n" * turn)
        assert sampan_run("restart", "-t", "0", name).stdout == name + "\n"
        assert sampan_run("ps", "-q", "--no-trunc").stdout.split().count(name) == 1
    time.sleep(0.3)
    assert engine.containers.get(name).status == "running"
    assert sampan_run("stop", "-t", "0", name).returncode == 0
    until(lambda: name not in sampan_run("ps", "-aq", "--no-trunc").stdout)
    assert mount["Name"] not in sampan_run("volume", "ls", "-q").stdout


def test_the_volumes_without_name_go_with_the_record_of_their_container(
    engine: sampan.Engine, sampan_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampan_run("create", "--name", "has", "-v", "/anonymous", "base", "true")
    (mount,) = engine.containers.inspect("has")["Mounts"]

    def killed(path: str) -> None:
        raise KeyboardInterrupt(path)

    monkeypatch.setattr(engine, "remove_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        engine.containers.remove("has", volumes=True)
    monkeypatch.undo()
    assert sampan_run("inspect", "has").returncode != 0
    assert mount["Name"] not in json.dumps(engine.volumes.ls())
    store = engine.store
    gc.collect(store.db, store.content, store.paths, remove_tree=engine.remove_tree)
    assert not glob.glob(f"{engine.store.paths.volumes}/.gone-*")
