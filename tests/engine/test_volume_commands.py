"""Volumes, pruned containers and published ports, as a user asks for them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

import sampan
from sampan.errors import InvalidArgument, NotFound
from sampan.oci.options import RunOptions


class Command:
    def __init__(self, engine: sampan.Engine) -> None:
        self.engine = engine

    def __call__(self, *words: str, code: int = 0, answer: str = "") -> str:
        done = subprocess.run(
            self.engine.command(list(words)), capture_output=True, text=True, input=answer, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture
def command(engine: sampan.Engine) -> Iterator[Command]:
    yield Command(engine)
    for row in engine.containers.ls(all=True):
        engine.containers.remove(row["ID"], force=True, volumes=True)
    engine.store.volumes.prune(all=True)


def test_volumes_are_made_listed_and_removed(engine: sampan.Engine, command: Command) -> None:
    assert command("volume", "create", "data", "--label", "a=b") == "data\n"
    assert command("volume", "create", "data") == "data\n"
    unnamed = command("volume", "create").strip()
    assert len(unnamed) == 64
    assert command("volume", "ls", "-q").split() == sorted(["data", unnamed])
    assert command("volume", "ls", "--filter", "label=a=b", "--format", '{{.Name}} {{.Label "a"}}') == "data b\n"
    made = engine.containers.create("base", RunOptions(command=["true"], mounts=[("volume", "data", "/d", ["rw"])]))
    assert command("volume", "ls", "-q", "-f", "dangling=true").strip() == unnamed
    assert "uses it" in command("volume", "rm", "data", code=1)
    (found,) = json.loads(command("volume", "inspect", "data"))
    assert found["Name"] == "data" and found["Labels"] == {"a": "b"} and found["Mountpoint"].endswith("/data/_data")
    assert command("inspect", "data") == command("volume", "inspect", "data")
    assert command("volume", "prune", answer="n\n") == ""
    assert unnamed in command("volume", "prune", "--force")
    engine.containers.remove(made)
    assert command("volume", "rm", "-f", "data", "never-there").split() == ["data", "never-there"]
    assert "no such volume: gone" in command("volume", "inspect", "gone", code=1)
    command("volume", "ls", "--filter", "nonsense=1", code=1)
    command("volume", "create", "--driver", "nfs", code=1)
    command("volume", "create", "../x", code=1)


def test_prune_removes_what_does_not_run_and_says_what_that_freed(engine: sampan.Engine, command: Command) -> None:
    script = "dd if=/dev/zero of=/big bs=1k count=3000; exit 0"
    big = engine.containers.create("base", RunOptions(command=["sh", "-c", script]))
    engine.containers.start(big, attach=True)
    new = engine.containers.create("base", RunOptions(command=["true"], labels={"keep": "1"}))
    runs = str(engine.containers.run(RunOptions(command=["sleep", "1000"]), image="base", detach=True))
    assert command("container", "prune", answer="no\n") == ""
    assert command("container", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B\n"
    done = command("container", "prune", "-f", "--filter", "label!=keep")
    assert big in done and new not in done and runs not in done
    space = done.splitlines()[-1]
    assert space.startswith("Total reclaimed space: 3.") and space.endswith("MB")
    assert new in command("container", "prune", "-f")
    assert [row["ID"] for row in engine.containers.ls(all=True)] == [runs]
    assert "filter" in command("container", "prune", "-f", "--filter", "size=1", code=1)


def test_nothing_is_published_yet(engine: sampan.Engine, command: Command) -> None:
    name = str(engine.containers.run(RunOptions(command=["sleep", "1000"]), image="base", detach=True))
    assert command("port", name) == ""
    assert f"no public port '80' published for {engine.containers.get(name).name}" in command(
        "port", name, "80", code=1
    )
    for wrong in ("http", "80/icmp", "-1", "70000"):
        with pytest.raises(InvalidArgument):
            engine.containers.port(name, wrong)
    assert (
        command("port", "no-such", code=1)
        == "sampan: no such container: no-such\nhint: `sampan ps -a` lists what there is\n"
    )


def test_ports_that_a_network_recorded_are_shown(engine: sampan.Engine, command: Command) -> None:
    name = str(engine.containers.run(RunOptions(command=["sleep", "1000"]), image="base", detach=True))
    record = engine.containers.get(name)
    record.config["ports"] = [["80/tcp", "0.0.0.0", 8080], ["53/udp", "::", 5353], ["80/tcp", "::", 8080]]

    class Containers:
        def get(self, _: str) -> object:
            return record

    class Fake:
        containers = Containers()

    from sampan.engine import ports

    fake: sampan.Engine = Fake()  # type: ignore[assignment]
    shown = [("53/udp", "[::]:5353"), ("80/tcp", "0.0.0.0:8080"), ("80/tcp", "[::]:8080")]
    assert ports.port(fake, name) == shown
    assert ports.port(fake, name, "80") == shown[1:]
    with pytest.raises(NotFound):
        ports.port(fake, name, "53")


def test_management_words_are_the_same_commands(engine: sampan.Engine, command: Command) -> None:
    name = command("container", "run", "-d", "base", "sleep", "1000").strip()
    time.sleep(0.1)
    for words in (["container", "ls"], ["image", "ls"], ["image", "history", "base"], ["container", "diff", name]):
        command(*words)
    assert json.loads(command("image", "inspect", "base"))[0]["Os"] == "linux"
    assert json.loads(command("container", "inspect", name))[0]["State"]["Running"]
    assert command("container", "rm", "-f", name) == name + "\n"
