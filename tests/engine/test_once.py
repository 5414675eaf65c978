"""Runs of which nothing is kept: an early network, output that ends with the program, who removes what."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

import pytest

import sampan
from sampan.engine import once
from sampan.engine.library import options
from sampan.errors import NotFound
from sampan.runtime import launch
from sampan.runtime import plan as p
from sampan.runtime.launch import Child, StartFailure
from sampan.runtime.plan import NETWORK_FIRST, Plan
from sampan.store.containers import Record


@pytest.fixture
def running(engine: sampan.Engine) -> Iterator[tuple[Child, int, int]]:
    """A container that runs until its input ends, the end of its input that is ours, and that of its output."""
    into, out = os.pipe(), os.pipe()
    asked = options(["cat"], None, {"interactive": True})
    record, child = once.launch(engine.containers, "base", asked, (into[0], out[1], out[1]), True)
    os.close(into[0])
    os.close(out[1])
    try:
        yield child, into[1], out[0]
    finally:
        child.close()
        os.close(out[0])
        engine.containers.discard(record, child)


def test_the_supervisor_holds_no_stream_that_the_program_has(running: tuple[Child, int, int]) -> None:
    child, into, out = running
    held = [os.readlink(f"/proc/{child.helper_pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.helper_pid}/fd")]
    inside = os.readlink(f"/proc/{child.pid}/fd/1")
    assert inside.startswith("pipe:") and inside not in held and os.readlink(f"/proc/{child.pid}/fd/0") not in held
    os.close(into)
    assert select.select([out], [], [], 60)[0] and os.read(out, 1) == b""
    assert child.wait().code == 0


def test_the_supervisor_stays_in_the_network_of_its_caller(running: tuple[Child, int, int]) -> None:
    child, into, _ = running
    own, supervisor, inside = (os.readlink(f"/proc/{pid}/ns/net") for pid in ("self", child.helper_pid, child.pid))
    os.close(into)
    assert own == supervisor != inside


def test_each_container_has_a_network_of_its_own_with_loopback_up(engine: sampan.Engine) -> None:
    words = ["sh", "-c", "cat /sys/class/net/*/flags; ls -L -i /proc/self/ns/net"]
    found = [engine.run("base", words, network="none").stdout.decode().split() for _ in range(3)]
    assert [seen[0] for seen in found] == ["0x9"] * 3  # IFF_UP | IFF_LOOPBACK
    assert all(len(seen) == 3 and seen[1] != str(os.stat("/proc/self/ns/net").st_ino) for seen in found)


def ended(engine: sampan.Engine, *words: str) -> tuple[Record, Child]:
    """A container of `Engine.run` that has ended, before what is left of it is removed."""
    with open(os.devnull, "r+b") as null:
        asked = options(list(words), None, {})
        record, child = once.launch(engine.containers, "base", asked, (null.fileno(),) * 3, True, sweep=True)
    child.wait()
    return record, child


def test_the_helper_removes_groups_and_directories_of_what_wrote_nothing(engine: sampan.Engine) -> None:
    record, child = ended(engine, "true")
    groups = child.placement.directories() if child.placement else []
    assert child.swept()
    assert child.placement is not None and child.placement.directories() == []
    assert not os.path.exists(engine.store.paths.container(record.id))
    assert not [group for group in groups if os.path.exists(group)]
    engine.containers.discard(record, child)


def test_what_was_written_goes_too(engine: sampan.Engine) -> None:
    record, child = ended(engine, "sh", "-c", "mkdir /made; echo > /made/file")
    assert not child.swept()  # the helper leaves what is not empty
    assert os.path.exists(engine.store.paths.container(record.id) + "/upper/made/file")
    engine.containers.discard(record, child)
    homes = os.listdir(engine.store.paths.containers)
    assert record.id not in homes
    assert engine.run("base", ["sh", "-c", "echo > /file"]).exit_code == 0
    assert os.listdir(engine.store.paths.containers) == homes


def test_a_caller_that_is_killed_before_it_erases_the_record_leaves_one_that_ps_removes(engine: sampan.Engine) -> None:
    record, child = ended(engine, "true")
    assert child.swept() and engine.store.containers.get(record.id).status == "running"
    assert record.id not in [row["ID"] for row in engine.containers.ls(all=True)]
    with pytest.raises(NotFound):
        engine.store.containers.get(record.id)


def test_a_helper_that_is_killed_before_it_has_swept_leaves_that_to_its_caller(engine: sampan.Engine) -> None:
    record, child = ended(engine, "sh", "-c", "echo > /file")
    os.close(child.reports)  # as if it had told nothing more
    child.reports = os.open(os.devnull, os.O_RDONLY)
    once.end(engine.containers, record, child)
    assert record.id not in os.listdir(engine.store.paths.containers)


def test_its_events_are_in_their_order(engine: sampan.Engine) -> None:
    began = time.time()
    for _ in range(5):
        engine.run("base", ["true"])
    found = [event["Action"] for event in engine.events(since=began, until=time.time())]
    assert found == ["create", "attach", "start", "die", "destroy"] * 5


def needs_root() -> None:
    if os.geteuid():
        pytest.skip("only root makes a network namespace without one for users")


def test_a_helper_that_has_only_the_network_to_make_ends_with_its_caller() -> None:
    needs_root()
    child = launch.spawn(-1, -1, -1, network=True)
    watch = os.pidfd_open(child.helper_pid)
    try:
        assert not select.select([watch], [], [], 0.2)[0]  # control: it waits for the rest
        child.close()
        assert select.select([watch], [], [], 60)[0]
    finally:
        os.close(watch)
    launch.reap()


def test_operations_are_named_right_behind_the_first_piece() -> None:
    needs_root()
    plan = Plan()
    plan.operations += NETWORK_FIRST.operations
    plan.add(p.STDIO, "", 0, 0, "", flags=p.NULL_OUT)
    plan.add(p.CLONE, flags=p.NAMESPACES["uts"] | p.NAMESPACES["network"] | p.NAMESPACES["mount"])
    plan.add(p.CWD, "/nonexistent", label="enter a directory that is not there")
    child = launch.spawn(-1, -1, -1, network=True)
    child.send(plan)
    with pytest.raises(StartFailure, match="cannot enter a directory that is not there"):
        child.await_start()
    launch.reap()
