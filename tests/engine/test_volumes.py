"""Volumes of containers: filled from the image, gone with their container when nobody named them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import until

import sampan
from sampan.engine import launching
from sampan.errors import Conflict, SampanError, Unavailable
from sampan.oci.options import RunOptions

DOCKERFILE = """
FROM base
RUN mkdir -p /seed/below /run && chmod 750 /seed && echo one > /seed/file && ln -s file /seed/link && echo x > /plain
RUN mkdir -p /var && ln -s /seed /var/seed
VOLUME /seed
"""


@pytest.fixture(scope="module")
def image(engine: sampan.Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(DOCKERFILE)
    engine.build(str(context), tags=["seeded"])
    return "seeded"


@pytest.fixture(autouse=True)
def clean(engine: sampan.Engine) -> Iterator[None]:
    yield
    for row in engine.containers.ls(all=True):
        engine.containers.remove(row["ID"], force=True, volumes=True)
    engine.store.volumes.prune(all=True)


def names(engine: sampan.Engine) -> list[str]:
    return [volume.name for volume in engine.store.volumes.ls()]


def options(*command: str, mounts: list[tuple[str, str, str, list[str]]] | None = None) -> RunOptions:
    chosen = RunOptions()
    chosen.command = list(command)
    chosen.mounts = list(mounts or [])
    return chosen


def output(engine: sampan.Engine, image: str, script: str, *mounts: tuple[str, str, str, list[str]]) -> str:
    done = engine.run(image, ["sh", "-c", script], mounts=list(mounts))
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def test_a_volume_of_the_image_starts_with_what_the_image_has_there(engine: sampan.Engine, image: str) -> None:
    script = "cat /seed/link; ls /seed; stat -c %a /seed; echo two > /seed/file"
    assert output(engine, image, script) == "one\nbelow\nfile\nlink\n750\n"
    assert output(engine, image, "cat /seed/file") == "one\n", "the image itself is untouched"


def test_a_named_volume_is_filled_once_and_keeps_what_was_written(engine: sampan.Engine, image: str) -> None:
    named = ("volume", "kept", "/seed", ["rw"])
    assert output(engine, image, "cat /seed/file; echo two > /seed/file", named) == "one\n"
    assert output(engine, image, "cat /seed/file", named) == "two\n"
    assert names(engine) == ["kept"]
    assert os.listdir(engine.store.paths.volume("kept")) == ["_data"]


@pytest.mark.parametrize(
    "mount,expected",
    [
        (("volume", "v", "/seed", ["rw", "nocopy"]), ""),
        (("volume", "v", "/var/seed", ["rw"]), "below\nfile\nlink\n"),
        (("volume", "v", "/not/there", ["rw"]), ""),
    ],
)
def test_what_is_copied_follows_the_option_and_the_image(
    engine: sampan.Engine, image: str, mount: tuple[str, str, str, list[str]], expected: str
) -> None:
    assert output(engine, image, f"ls {mount[2]}", mount) == expected


def test_an_empty_volume_in_use_is_filled_in_place(engine: sampan.Engine, image: str) -> None:
    first = engine.containers.create(image, options("true", mounts=[("volume", "both", "/elsewhere", ["rw"])]))
    before = os.stat(engine.store.volumes.get("both").path).st_ino
    assert output(engine, image, "cat /seed/file", ("volume", "both", "/seed", ["rw"])) == "one\n"
    assert os.stat(engine.store.volumes.get("both").path).st_ino == before
    engine.containers.remove(first)


def test_anonymous_volumes_go_with_rm_v_and_with_auto_remove(engine: sampan.Engine, image: str) -> None:
    kept = engine.containers.create(image, options("true", mounts=[("volume", "named", "/n", ["rw"])]))
    assert len(names(engine)) == 2
    engine.containers.remove(kept)
    assert len(names(engine)) == 2, "rm alone keeps them"
    engine.store.volumes.prune()
    gone = engine.containers.create(image, options("true", mounts=[("volume", "named", "/n", ["rw"])]))
    engine.containers.remove(gone, volumes=True)
    assert names(engine) == ["named"]
    assert engine.containers.run(options("true"), image=image, auto_remove=True) == 0
    output(engine, image, "true")
    assert names(engine) == ["named"]


def test_anonymous_volumes_go_with_a_detached_container(engine: sampan.Engine, image: str) -> None:
    engine.containers.run(options("true"), image=image, auto_remove=True, detach=True)
    until(lambda: names(engine) == [])


def test_a_container_that_cannot_be_made_or_started_leaves_no_volume(engine: sampan.Engine, image: str) -> None:
    with pytest.raises(SampanError):
        engine.containers.run(options("no-such-program"), image=image, auto_remove=True)
    assert names(engine) == []
    taken = engine.containers.create("base", options("true"), name="taken")
    with pytest.raises(Conflict):
        engine.containers.create(image, options("true"), name="taken")
    assert names(engine) == []
    engine.containers.remove(taken)


def test_what_a_killed_create_left_goes_with_the_next_collection(engine: sampan.Engine, image: str) -> None:
    kept = engine.containers.create(image, options("true"))
    named = engine.store.volumes.create("").name  # `volume create` without a name: it is somebody's
    script = (
        "import os, sys, sampan; from sampan.oci.options import RunOptions; from sampan.engine import launching;"
        "e = sampan.Engine(sys.argv[1]);"
        "launching.new(e, sys.argv[2], RunOptions(mounts=[('volume', 'mine', '/m', ['rw'])]), '', False);"
        "os.kill(os.getpid(), 9)"
    )
    before = names(engine)
    words = [sys.executable, "-c", script, engine.store.paths.root, image]
    assert subprocess.run(words, timeout=60).returncode == -9
    assert len(names(engine)) == len(before) + 2
    subprocess.run(engine.command(["image", "prune", "-f"]), check=True, capture_output=True, timeout=60)
    assert names(engine) == sorted([*before, "mine"])
    assert named in before and engine.containers.get(kept).status == "created"


def test_a_volume_of_a_container_that_is_being_made_is_not_taken(engine: sampan.Engine, image: str) -> None:
    mounts = [("volume", "mine", "/m", ["rw"])]
    record = launching.new(engine, image, options("true", mounts=mounts), "", False)
    assert len(names(engine)) == 2
    for words in (["volume", "prune", "-af"], ["system", "prune", "-f", "--volumes"], ["image", "prune", "-f"]):
        subprocess.run(engine.command(words), check=True, capture_output=True, timeout=60)
    done = subprocess.run(engine.command(["volume", "rm", "mine"]), capture_output=True, text=True, timeout=60)
    assert done.stderr == "sampan: cannot remove volume mine: a container that uses it is being made\n"
    assert len(names(engine)) == 2
    engine.containers.store.insert(record)
    assert not engine.store.db.query("SELECT * FROM leases")
    engine.containers.remove(record.id, volumes=True)
    assert names(engine) == ["mine"]


def test_a_shared_anonymous_volume_stays_for_the_other(engine: sampan.Engine, image: str) -> None:
    first = engine.containers.create(image, options("true"))
    (name,) = names(engine)
    second = engine.containers.create("base", options("true", mounts=[("volume", name, "/shared", ["rw"])]))
    engine.containers.remove(first, volumes=True)
    assert names(engine) == [name]
    engine.containers.remove(second, volumes=True)
    assert names(engine) == [name], "this one mounted it by its name"


def test_inspect_names_the_volume(engine: sampan.Engine, image: str, tmp_path: pathlib.Path) -> None:
    bind = ("bind", str(tmp_path), "/b", ["ro"])
    made = engine.containers.create(image, options("true", mounts=[("volume", "named", "/n", ["rw"]), bind]))
    found = {mount["Destination"]: mount for mount in engine.containers.inspect(made)["Mounts"]}
    assert found["/n"]["Type"] == "volume" and found["/n"]["Name"] == "named" and found["/n"]["RW"], json.dumps(found)
    assert found["/b"]["Type"] == "bind" and not found["/b"]["RW"]
    assert found["/seed"]["Name"] in names(engine)


def test_a_source_that_cannot_be_made_is_named(engine: sampan.Engine, image: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    source = str(tmp_path / "file/below")
    with pytest.raises(Unavailable, match=f"cannot make {source} to mount it: Not a directory"):
        engine.containers.create(image, options("true", mounts=[("bind", source, "/n", ["rw", "create"])]))
    assert names(engine) == []
