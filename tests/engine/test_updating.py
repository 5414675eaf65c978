"""`update` and `rename` of real containers: live, kept for the next start, all or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

import sampan
from sampan.errors import Conflict, InvalidArgument, NotFound, NotSupported, SampanError
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup

LAYOUT = cgroup.detect()
root_only = pytest.mark.skipif(
    not {"memory", "pids", "cpu"} <= {*LAYOUT.v1, *LAYOUT.v2_controllers()},
    reason="the memory, pids and cpu controllers are not open to this user here",
)


@pytest.fixture
def box(engine: sampan.Engine) -> Iterator[str]:
    options = RunOptions(command=["sleep", "300"], memory=64 << 20)
    if not LAYOUT.v1 and "memory" not in LAYOUT.v2_controllers():
        options = RunOptions(command=["sleep", "300"])
    name = str(engine.containers.run(options, image="base", detach=True))
    yield name
    engine.containers.remove(name, force=True)


def limit(identity: str, v1: str, v2: str) -> str:
    placement = cgroup.named(identity)
    directory = placement.v1.get(v1.partition(".")[0]) or placement.v2_dir
    return Path(directory, v1 if placement.v1 else v2).read_text().strip()


def limits(identity: str) -> list[str]:
    return [
        limit(identity, "memory.limit_in_bytes", "memory.max"),
        limit(identity, "memory.memsw.limit_in_bytes", "memory.swap.max"),
    ]


@root_only
def test_limits_change_while_it_runs_and_stay(engine: sampan.Engine, box: str) -> None:
    engine.containers.update(box, {"memory": 128 << 20, "memory_swap": 128 << 20, "pids_limit": 5, "cpus": 0.5})
    assert limit(box, "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert limit(box, "pids.max", "pids.max") == "5"
    result = engine.containers.exec(box, ["sh", "-c", "i=0; while [ $i -lt 9 ]; do sleep 100 & i=$((i+1)); done"])
    assert result != 0  # also what exec starts is within the limit
    shown = engine.containers.inspect(box)["HostConfig"]
    assert (shown["Memory"], shown["PidsLimit"], shown["NanoCpus"]) == (128 << 20, 5, 500_000_000)
    engine.containers.restart(box, 0)
    assert limit(box, "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert limit(box, "pids.max", "pids.max") == "5"


@root_only
def test_limits_are_lifted(engine: sampan.Engine, box: str) -> None:
    engine.containers.update(box, {"pids_limit": 5, "cpu_quota": 20_000})
    engine.containers.update(box, {"pids_limit": -1, "cpu_quota": -1, "memory": -1, "memory_swap": -1})
    assert limit(box, "pids.max", "pids.max") == "max"
    assert limit(box, "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    memory = limit(box, "memory.limit_in_bytes", "memory.max")
    assert memory == "max" or int(memory) > 1 << 60


@root_only
def test_limits_that_were_lifted_before_the_next_start_hold_when_they_come_again(
    engine: sampan.Engine, box: str
) -> None:
    """On cgroup v1 `update` makes a group, which no process of the next run would be in."""
    engine.containers.update(box, {"pids_limit": 5})
    engine.containers.update(box, {"pids_limit": -1})
    engine.containers.restart(box, 0)
    assert [row["PIDs"] for row in next(iter(engine.containers.stats([box])))] == [1]
    engine.containers.update(box, {"pids_limit": 4})
    pid = engine.containers.inspect(box)["State"]["Pid"]
    assert f"sampan-{box}" in next(text for text in Path(f"/proc/{pid}/cgroup").read_text().split() if "pids" in text)


@root_only
def test_all_or_nothing(engine: sampan.Engine, box: str) -> None:
    """The memory is written before the CPUs, which do not exist: it is put back, here and in the record."""
    before = limits(box)
    with pytest.raises(NotSupported, match="--cpuset-cpus"):
        engine.containers.update(box, {"memory": 100 << 20, "memory_swap": 100 << 20, "cpuset": "0,9999"})
    assert limits(box) == before
    assert engine.containers.inspect(box)["HostConfig"]["Memory"] == 64 << 20


@root_only
def test_below_what_is_used(engine: sampan.Engine) -> None:
    """The kernel cannot take back what a program holds: a clear message, and it lives on with its limit."""
    script = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo ready; sleep 300"
    engine.bootstrap("host", "holder", ["sh", "head", "tr", "sleep"])
    options = RunOptions(command=["sh", "-c", script], memory=200 << 20, memory_swap=200 << 20)
    box = str(engine.containers.run(options, image="holder", detach=True))
    try:
        home = Path(engine.store.paths.container(box), "log")
        while "ready" not in (home.read_text() if home.exists() else ""):
            assert engine.containers.get(box).status == "running"
        before = limits(box)
        with pytest.raises(Conflict, match="--memory.*the container (uses|holds)"):
            engine.containers.update(box, {"memory": 8 << 20, "memory_swap": 8 << 20})
        assert limits(box) == before
        assert engine.containers.get(box).status == "running"
    finally:
        engine.containers.remove(box, force=True)


@root_only
def test_a_memory_limit_from_an_update_kills_and_is_told(engine: sampan.Engine) -> None:
    """On cgroup v1 the container is moved to a group that its supervisor does not know."""
    options = RunOptions(command=["sh", "-c", "cat >/dev/null; exec dd if=/dev/zero of=/dev/null bs=100M count=1"])
    options.command = ["sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null bs=200M"]
    box = str(engine.containers.run(options, image="base", detach=True))
    try:
        engine.containers.update(box, {"memory": 20 << 20, "memory_swap": 20 << 20})
        engine.containers.exec(box, ["touch", "/go"])
        assert engine.containers.wait(box) == 137
        assert engine.containers.inspect(box)["State"]["OOMKilled"] is True
    finally:
        engine.containers.remove(box, force=True)
    assert cgroup.named(box).directories() == []


@root_only
def test_a_stopped_container_is_updated_for_its_next_start(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", RunOptions(command=["sleep", "300"]))
    try:
        engine.containers.update(box, {"memory": 64 << 20, "cpu_shares": 300})
        assert engine.containers.inspect(box)["HostConfig"]["Memory"] == 64 << 20
        engine.containers.start(box)
        assert limit(box, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    finally:
        engine.containers.remove(box, force=True)


def test_what_this_user_may_not_limit_is_refused(engine: sampan.Engine, box: str) -> None:
    if os.geteuid() == 0 or "cpuset" in LAYOUT.v2_controllers():
        pytest.skip("this user may limit everything")
    with pytest.raises(SampanError, match="--cpuset-cpus"):
        engine.containers.update(box, {"cpuset": "0"})
    assert engine.containers.get(box).status == "running"


@pytest.mark.parametrize(
    "changes", [{"memory": 1}, {"cpus": -1}, {"tty": True}, {"memory": 64 << 20, "memory_swap": 5}]
)
def test_nonsense_changes_nothing(engine: sampan.Engine, box: str, changes: dict[str, object]) -> None:
    before = engine.store.containers.get(box).config
    with pytest.raises(InvalidArgument):
        engine.containers.update(box, changes)
    assert engine.store.containers.get(box).config == before


def test_rename(engine: sampan.Engine, box: str) -> None:
    engine.containers.rename(box, "/renamed")
    assert engine.containers.get("renamed").id == box
    assert engine.containers.inspect(box)["Name"] == "/renamed"
    with pytest.raises(Conflict, match="that is its name"):
        engine.containers.rename("renamed", "renamed")
    other = engine.containers.create("base", RunOptions(command=["true"]), name="taken")
    try:
        with pytest.raises(Conflict, match="taken"):
            engine.containers.rename("renamed", "taken")
    finally:
        engine.containers.remove(other)
    for bad in ("", "-a", "a/b", "ä", "x" * 129):
        with pytest.raises(InvalidArgument, match="name"):
            engine.containers.rename("renamed", bad)
    with pytest.raises(NotFound, match="no-such"):
        engine.containers.rename("no-such", "x")


def test_a_restart_policy_changes_while_it_runs(engine: sampan.Engine, box: str) -> None:
    """What the supervisor was told at the start is replaced: it starts the container again, and then no more."""
    engine.containers.update(box, {"restart": "on-failure:1"})
    assert engine.containers.inspect(box)["HostConfig"]["RestartPolicy"] == {
        "Name": "on-failure",
        "MaximumRetryCount": 1,
    }
    first = engine.containers.get(box).pid
    os.kill(first, 9)

    def second() -> int:
        record = engine.containers.get(box)  # once: between two looks it may end, and has no process then
        return record.pid if record.status == "running" and record.pid != first else 0

    again = until(second)
    engine.containers.update(box, {"restart": "no"})
    os.kill(again, 9)
    assert engine.containers.wait(box) == 137
    assert engine.containers.get(box).status == "exited"
    with pytest.raises(InvalidArgument, match="restart policy"):
        engine.containers.update(box, {"restart": "sometimes"})


def test_both_are_events(engine: sampan.Engine, box: str) -> None:
    before = engine.containers.get(box).name
    engine.containers.update(box, {"restart": "no"})
    engine.containers.rename(box, "eventful")
    seen = {event["Action"]: event for event in engine.events(since=0, until=time.time(), filters={"container": [box]})}
    assert "update" in seen
    assert seen["rename"]["Actor"]["Attributes"]["oldName"] == "/" + before
    assert seen["rename"]["Actor"]["Attributes"]["name"] == "eventful"
