"""The engine's images: names, views, imports, exports."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from transfersupport import BASE, TOP, config, digest, docker_files, listing, tar_of, trees

import sampan
from sampan.errors import IntegrityError, InvalidArgument, NotFound, SampanError
from sampan.runtime.rootfs import Rootfs
from sampan.transfer.export import export_tar


@pytest.fixture
def app(engine: sampan.Engine, tmp_path: Path) -> sampan.Engine:
    (tmp_path / "in.tar").write_bytes(tar_of(docker_files([BASE, TOP], ["app:1"])))
    engine.images.load(str(tmp_path / "in.tar"))
    return engine


def rows(engine: sampan.Engine, **filters: str) -> list[str]:
    found = engine.images.ls({key: [value] for key, value in filters.items()})
    return [f"{row['Repository']}:{row['Tag']}" for row in found]


def test_unknown_image_says_which_one_may_be_meant(app: sampan.Engine) -> None:
    for wrong in ("ap:1", "app", "app:2"):
        with pytest.raises(NotFound) as caught:
            app.images.resolve(wrong)
        assert "did you mean app:1?" in caught.value.hint and "sampan pull" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        app.images.resolve("entirely/else")
    assert "mean" not in caught.value.hint


def test_ls_has_a_row_for_each_name(app: sampan.Engine) -> None:
    app.images.tag("app:1", "example.com/x/y:z")
    assert sorted(rows(app)) == ["app:1", "example.com/x/y:z"]
    assert rows(app, reference="app") == rows(app, reference="a*:1") == ["app:1"]
    assert rows(app, label="kind=test") == rows(app) and rows(app, label="kind=other") == []
    assert rows(app, dangling="true") == []
    size = sum(len(data) for data in (b"root:x:0:0::/:/bin/sh\n", b"old", b"#!/bin/sh\n" * 1000, b"new"))
    assert {row["Size"] for row in app.images.ls()} == {size}
    with pytest.raises(InvalidArgument, match="shape"):
        rows(app, shape="round")


def test_inspect_has_dockers_shape(app: sampan.Engine) -> None:
    found = app.images.inspect("app:1")
    assert found["Id"] == digest(config([BASE, TOP]))
    assert found["RepoTags"] == ["app:1"]
    assert found["RepoDigests"] == ["app@" + app.images.resolve("app:1").manifest_digest]
    said = {name: value for name, value in found["Config"].items() if value}
    assert said == {"Cmd": ["/bin/tool"], "Labels": {"kind": "test"}}
    unset = {name: found["Config"][name] for name in ("Env", "Entrypoint", "Volumes", "User", "WorkingDir", "Tty")}
    assert unset == {"Env": None, "Entrypoint": None, "Volumes": None, "User": "", "WorkingDir": "", "Tty": False}
    assert found["Size"] == found["VirtualSize"] > 0
    assert found["RootFS"] == {"Type": "layers", "Layers": [digest(BASE), digest(TOP)]}
    assert found["Created"] == "2024-01-02T03:04:06Z" and found["Os"] == "linux"
    assert json.dumps(found)


def test_history_pairs_steps_with_layers(app: sampan.Engine) -> None:
    found = app.images.history("app:1")
    assert [(row["CreatedBy"], row["Size"]) for row in found] == [("CMD", 0), ("step 1", 3), ("step 0", 10025)]
    assert [row["ID"] for row in found] == [digest(config([BASE, TOP])), "<missing>", "<missing>"]
    assert found[0]["CreatedAt"].startswith("2024-01-02T03:04:06")


def test_history_survives_a_config_that_says_nothing(engine: sampan.Engine, tmp_path: Path) -> None:
    odd = [{"created": 7, "created_by": ["x"], "empty_layer": True}] * 3
    files = docker_files([BASE], ["odd:1"], config([BASE], history=odd))
    (tmp_path / "in.tar").write_bytes(tar_of(files))
    engine.images.load(str(tmp_path / "in.tar"))
    assert [row["Size"] for row in engine.images.history("odd:1")] == [10025, 0, 0, 0]


def test_remove_names_first_and_the_image_with_the_last(app: sampan.Engine) -> None:
    app.images.tag("app:1", "app:2")
    image_id = app.images.resolve("app:1").id
    assert app.images.remove("app:1") == ["Untagged: app:1"]
    assert app.images.remove("app:2") == ["Untagged: app:2", f"Deleted: {image_id}"]
    assert app.images.ls() == []
    with pytest.raises(NotFound, match="app:2"):
        app.images.remove("app:2")


def test_tag_refuses_a_digest(app: sampan.Engine) -> None:
    with pytest.raises(InvalidArgument, match="digest"):
        app.images.tag("app:1", "app@sha256:" + "0" * 64)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_import_makes_an_image(engine: sampan.Engine, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "rootfs"
    path.write_bytes(pack(BASE))
    changes = ['CMD ["/bin/tool", "x"]', "ENV A=1 B=$A", "WORKDIR /srv", "LABEL k=v", "EXPOSE 80", "USER 7"]
    image_id = engine.images.import_(str(path), "base:1", changes, "from a test")
    image = engine.images.resolve("base:1")
    assert image.id == image_id and image.diff_ids == [digest(BASE)]
    settings = image.config["config"]
    assert settings["Cmd"] == ["/bin/tool", "x"] and settings["Env"][0] == "A=1" and settings["WorkingDir"] == "/srv"
    assert settings["ExposedPorts"] == {"80/tcp": {}} and settings["User"] == "7" and settings["Labels"] == {"k": "v"}
    assert engine.images.history("base:1")[0]["Comment"] == "from a test"
    assert trees(engine, "base:1")[0]["etc/old"][5] == b"old"


def test_import_refuses_what_needs_a_build(engine: sampan.Engine, tmp_path: Path) -> None:
    (tmp_path / "rootfs").write_bytes(BASE)
    for change in ("RUN true", "COPY a b", "FROM x", "nonsense"):
        with pytest.raises(SampanError):
            engine.images.import_(str(tmp_path / "rootfs"), "base:1", [change])
    with pytest.raises(IntegrityError):
        engine.images.import_(str(Path(__file__)), "base:1")
    with pytest.raises(NotFound):
        engine.images.import_(str(tmp_path / "none"), "base:1")
    assert engine.images.ls() == [] and engine.store.snapshots.ls() == []


def test_from_tar_stream_takes_pieces_of_any_size(engine: sampan.Engine) -> None:
    pieces = (BASE[at : at + 777] for at in range(0, len(BASE), 777))
    image_id = engine.images.from_tar_stream(pieces, {"Env": ["A=b"]}, "base", "made by a test")
    image = engine.images.resolve("base:latest")
    assert image.id == image_id and image.config["config"] == {"Env": ["A=b"]}
    assert engine.images.history("base")[0]["CreatedBy"] == "made by a test"


def test_export_writes_the_merged_tree(app: sampan.Engine, tmp_path: Path) -> None:
    image = app.images.resolve("app:1")
    store = app.store
    root = Rootfs(store.paths.snapshots, store.snapshots.lowers(image.diff_ids))
    with open(tmp_path / "out.tar", "wb") as file:
        size = export_tar(app.host.facts(), root, file.fileno())
    data = (tmp_path / "out.tar").read_bytes()
    assert size == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = set(archive.getnames())
        tool = archive.getmember("usr/bin/tool")
    assert {"etc/passwd", "etc/new", "bin", "usr/bin/same"} <= names and "etc/old" not in names
    assert tool.mode == 0o4755 and tool.mtime == 1_700_000_000 and not [n for n in names if ".wh." in n]
    app.images.import_(str(tmp_path / "out.tar"), "flat")
    assert trees(app, "flat")[0]["etc/new"][5] == b"new"


USER = """
import sys, os
import sampan
engine = sampan.Engine(sys.argv[2])
print(engine.images.load(sys.argv[1]))
for diff_id in engine.images.resolve("app:1").diff_ids:
    print(engine.store.snapshots.path(diff_id))
"""


SOMEBODY = 54321  # an id that needs no account


def as_user(words: list[str], home: str) -> subprocess.CompletedProcess[str]:
    """Run Python as an ordinary user; the interpreter of the tests may lie where that user cannot go."""
    os.chown(home, SOMEBODY, SOMEBODY)
    env = {"PATH": os.defpath, "HOME": home, "PYTHONPATH": str(Path(sampan.__file__).parent.parent)}
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", "import sampan.oci.digest"], user=SOMEBODY, group=SOMEBODY, env=env, cwd="/"
            )
        except PermissionError:
            continue
        if done.returncode == 0:
            return subprocess.run(
                [python, *words], capture_output=True, text=True, user=SOMEBODY, group=SOMEBODY, env=env, cwd="/"
            )
    pytest.skip("no interpreter that an ordinary user can run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_user_loads_the_same_tree() -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-user-") as home:
        archive = Path(home, "in.tar")
        archive.write_bytes(tar_of(docker_files([BASE, TOP], ["app:1"])))
        archive.chmod(0o644)
        done = as_user(["-c", USER, str(archive), home + "/store"], home)
        assert done.returncode == 0, done.stderr
        said, base, top = done.stdout.splitlines()
        assert said == "['Loaded image: app:1']"
        tree = listing(base)
        assert tree["etc/old"][5] == b"old" and tree["usr/bin/tool"][0] & 0o7777 == 0o4755
        assert tree["usr/bin/tool"][1] == os.stat(home).st_uid
        assert listing(top)["etc/old"][4] == 0 and listing(top)["etc/new"][5] == b"new"
