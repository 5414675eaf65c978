"""The library as a program uses it: what is given wrongly is named, and `Engine.exec` gives what a program wrote."""

from __future__ import annotations

import io
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import sampan
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci.spec import RunOptions


@pytest.fixture(scope="module")
def place(engine: sampan.Engine) -> Iterator[str]:
    """A running container whose first process reaps what is left behind."""
    options = RunOptions(command=["sleep", "1000"], init=True)
    engine.containers.run(options, image="base", name="place", detach=True)
    yield "place"
    engine.containers.remove("place", force=True)


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"volumes": ["/a:/b"]}, "no setting 'volumes'", "mounts="),
        ({"netwrok": "host"}, "no setting 'netwrok'", "did you mean network?"),
        ({"mem_limit": "1m"}, "no setting 'mem_limit'", "it is memory"),
        ({"xyz": 1}, "no setting 'xyz'", "RunOptions"),
        ({"mounts": ["/a:/b"]}, "cannot read mounts", "mounts="),
        ({"mounts": [("bind", "/a", "/b", "ro")]}, "cannot read mounts", '["ro"]'),
        ({"user": 1000}, "cannot use 1000 as user", "a text"),
        ({"read_only": "no"}, "cannot use 'no' as read_only", "True or False"),
        ({"cap_drop": "ALL"}, "cannot use 'ALL' as cap_drop", "a list of texts"),
        ({"labels": ["a=b"]}, "as labels", "a dictionary"),
        ({"cpus": "1"}, "as cpus", "a number"),
        ({"pids_limit": True}, "as pids_limit", "a number"),
        ({"entrypoint": "sh"}, "as entrypoint", "a list of texts"),
        ({"memory": [1]}, "as memory", "a number"),
        ({"env": ["A=1"]}, "cannot read env", "mapping"),
        ({"env": {"A": None}}, "variable A has no value", '""'),
        ({"input": io.BytesIO(b"")}, "cannot give a BytesIO as input", "read()"),
        ({"timeout": "1"}, "cannot wait for '1'", "seconds"),
        ({"command": ["echo", 3]}, "invalid command", "list of texts"),
    ],
)
def test_a_wrong_setting_is_named(engine: sampan.Engine, settings: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        engine.run("base", **{"command": ["true"], **settings})
    assert message in caught.value.message and hint in caught.value.hint
    with pytest.raises(InvalidArgument, match="as a name"):
        engine.run(None, ["true"])  # type: ignore[arg-type]


def test_what_is_right_is_taken(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("x")
    result = engine.run(
        "base",
        ["sh", "-c", "cat /w/f; echo $A $B $1 $2", "sh", pathlib.Path("/p"), b"\xff"],
        env={"A": 1, "B": pathlib.Path("/x")},
        mounts=[("bind", str(tmp_path), "/w", ["ro"])],
        stop_timeout=1.5,
    )
    assert result.stdout == b"x1 /x /p \xff\n"
    assert repr(result) == r"Result(exit_code=0, stdout=b'x1 /x /p \xff\n', stderr=b'')"
    assert engine.run("base", ["cat"], input=bytearray(b"in")).stdout == b"in"
    assert "timed_out=True" in repr(engine.run("base", ["sleep", "1000"], timeout=0.1))


def test_exec_gives_both_outputs_and_the_code(engine: sampan.Engine, place: str) -> None:
    result = engine.exec(place, ["sh", "-c", "cat; echo $A; pwd; echo no >&2; exit 4"], input=b"in\n", env={"A": "x"})
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"in\nx\n/\n", b"no\n")
    assert engine.exec(place, ["sh", "-c", "pwd"], workdir="/tmp").stdout == b"/tmp\n"
    data = os.urandom(3_000_000)
    assert engine.exec(place, ["cat"], input=data).stdout == data
    assert engine.exec(place, ["true"], input=data).exit_code == 0
    assert engine.exec(place, ["sh", "-c", "kill -9 $$"]).exit_code == 137


def test_exec_ends_with_its_program(engine: sampan.Engine, place: str) -> None:
    """Who keeps the pipe open keeps nobody waiting, and goes on."""
    before = len(os.listdir("/proc/self/fd"))
    result = engine.exec(place, ["sh", "-c", "sleep 1000 & echo $!"], timeout=60)
    assert not result.timed_out and result.exit_code == 0
    pid = result.stdout.decode().strip()
    assert engine.exec(place, ["sh", "-c", f"kill -9 {pid}"]).exit_code == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_time_limit_ends_all_that_exec_started(engine: sampan.Engine, place: str) -> None:
    script = "(sleep 1001; :) & (sleep 1002 | cat) & sleep 1003"
    ours = [f"sleep {number}" for number in (1001, 1002, 1003)]
    result = engine.exec(place, ["sh", "-c", script], timeout=1)
    assert result.timed_out and result.exit_code == 137
    assert not [line for line in _commands(engine, place) if line in ours]
    closed = engine.exec(place, ["sh", "-c", "exec >/dev/null 2>&1; sleep 1004"], timeout=0.2)
    assert closed.timed_out and not [line for line in _commands(engine, place) if line == "sleep 1004"]


def _commands(engine: sampan.Engine, name: str) -> list[str]:
    return [row[-1] for row in engine.containers.top(name)["Processes"]]


def test_exec_says_what_is_wrong(engine: sampan.Engine, place: str) -> None:
    with pytest.raises(NotFound, match="no-such-program") as caught:
        engine.exec(place, ["no-such-program"])
    assert caught.value.exit_code == 127
    with pytest.raises(InvalidArgument, match="one text"):
        engine.exec(place, "ls")
    with pytest.raises(NotFound, match="no such container"):
        engine.exec("nobody", ["true"])
    name = engine.containers.create("base", RunOptions(command=["true"]), name="idle")
    try:
        with pytest.raises(Conflict, match="it is created"):
            engine.exec(name, ["true"])
    finally:
        engine.containers.remove("idle")


def test_a_container_that_goes_ends_its_exec(engine: sampan.Engine) -> None:
    options = RunOptions(command=["sleep", "1000"])
    engine.containers.run(options, image="base", name="going", detach=True)
    found: list[sampan.Result] = []
    waiter = threading.Thread(
        target=lambda: found.append(engine.exec("going", ["sh", "-c", "touch /begun; sleep 1000"], timeout=60))
    )
    waiter.start()
    while engine.exec("going", ["sh", "-c", "test -e /begun"]).exit_code:
        pass
    engine.containers.remove("going", force=True)
    waiter.join(60)
    assert [(one.exit_code, one.timed_out) for one in found] == [(137, False)]
