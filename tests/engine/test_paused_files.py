"""Files of paused and of starting containers, and export: what others do meanwhile changes nothing."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import tarfile
from collections.abc import Iterator

import pytest
from waiting import flocks, until

import sampan
from sampan.errors import NotSupported
from sampan.oci.options import RunOptions


@pytest.fixture
def paused(engine: sampan.Engine) -> Iterator[str]:
    chosen = RunOptions(command=["sleep", "1000"], tmpfs=["/t"])
    name = str(engine.containers.run(chosen, image="base", detach=True))
    try:
        engine.containers.pause(name)
    except NotSupported as exc:
        engine.containers.remove(name, force=True)
        pytest.skip(f"needs a freezer: {exc.message}")
    yield name
    engine.containers.remove(name, force=True)


def test_a_paused_container_gives_and_takes_and_stays_paused(
    engine: sampan.Engine, paused: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "f").write_text("in")
    engine.containers.copy_in(paused, str(tmp_path / "f"), "/t/f")
    engine.containers.copy_in(paused, str(tmp_path / "f"), "/f")
    engine.containers.copy_out(paused, "/t/f", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "in"
    assert engine.containers.diff(paused)[-2:] == [("A", "/f"), ("A", "/t")]
    assert engine.containers.top(paused, ["-o", "args"])["Processes"] == [["sleep 1000"]]
    (row,) = next(engine.containers.stats([paused]))
    assert row["CPU"] == 0.0 and row["PIDs"] == 1
    made = engine.containers.commit(paused)
    assert engine.containers.get(paused).status == "paused"
    assert engine.run(made, ["cat", "/f"]).stdout == b"in"


def test_a_start_waits_for_a_copy_into_a_stopped_container(engine: sampan.Engine) -> None:
    name = engine.containers.create("base", RunOptions(command=["cat", "/new"]))
    copy = subprocess.Popen(engine.command(["cp", "-", f"{name}:/"]), stdin=subprocess.PIPE)
    assert copy.stdin is not None
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("new")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"whole"))
    try:
        copy.stdin.write(data.getvalue()[:600])
        copy.stdin.flush()
        home = engine.store.paths.container(name)
        until(lambda: flocks(home)[0])
        start = subprocess.Popen(engine.command(["start", "-a", name]), stdout=subprocess.PIPE)
        until(lambda: flocks(home)[1])
        assert start.poll() is None
        copy.stdin.write(data.getvalue()[600:])
        copy.stdin.close()
        assert start.communicate(timeout=60)[0] == b"whole"
        assert copy.wait(60) == 0
    finally:
        copy.kill()
        engine.containers.remove(name, force=True)


def test_copies_at_once_do_not_mix(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    name = str(engine.containers.run(RunOptions(command=["sleep", "1000"]), image="base", detach=True))
    try:
        running = []
        for number in range(4):
            (tmp_path / f"d{number}").mkdir()
            (tmp_path / f"d{number}" / "f").write_bytes(bytes([number]) * 500_000)
            words = engine.command(["cp", str(tmp_path / f"d{number}"), f"{name}:/"])
            running.append(subprocess.Popen(words))
        assert [child.wait(60) for child in running] == [0] * 4
        for number in range(4):
            engine.containers.copy_out(name, f"/d{number}/f", str(tmp_path / "back"))
            assert (tmp_path / "back").read_bytes() == bytes([number]) * 500_000
    finally:
        engine.containers.remove(name, force=True)


def test_export_leaves_out_what_is_mounted(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    mounts = [("volume", "exported", "/v", ["rw"])]
    script = "echo v >/v/file; echo t >/t/file; echo own >/own; rm /etc/os-release; : >/ready; exec sleep 1000"
    chosen = RunOptions(command=["sh", "-c", script], mounts=mounts, tmpfs=["/t"])
    name = str(engine.containers.run(chosen, image="base", detach=True))
    try:
        upper = engine.store.paths.container(engine.containers.get(name).id) + "/upper/ready"
        until(lambda: os.path.exists(upper))
        words = engine.command(["export", "-o", str(tmp_path / "out.tar"), name])
        assert subprocess.run(words, check=False).returncode == 0
        with tarfile.open(tmp_path / "out.tar") as tar:
            names = set(tar.getnames())
            own = tar.extractfile("own")
            assert own is not None and own.read() == b"own\n"
        assert {"v", "t", "proc", "usr"} <= names
        assert not names & {"v/file", "t/file", "etc/os-release", "proc/1", "dev/null"}
    finally:
        engine.containers.remove(name, force=True)
        engine.store.volumes.remove("exported")


def test_export_of_nothing_leaves_no_file(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    words = engine.command(["export", "-o", str(tmp_path / "out.tar"), "no-such"])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "sampan: no such container: no-such\nhint: `sampan ps -a` lists what there is\n",
    )
    assert os.listdir(tmp_path) == []
