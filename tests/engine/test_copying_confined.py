"""cp sees the container's files and mounts alone; whatever a container does, nothing outside it is touched."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import tarfile

import pytest
from copysupport import ROOT, options, ready, said, tree

import sampan
from sampan.errors import Conflict, NotFound, SampanError


def test_files_of_the_kernel_are_refused(engine: sampan.Engine, running: str, tmp_path: pathlib.Path) -> None:
    """Their sizes are 0: a copy would be empty."""
    for path in ("/proc/cpuinfo", "/proc", "/sys/kernel"):
        with pytest.raises(SampanError, match="not supported"):
            engine.containers.copy_out(running, path, str(tmp_path / "out"))
    assert not (tmp_path / "out").is_file()


def test_mounts_of_a_running_container_are_seen(engine: sampan.Engine, host: pathlib.Path) -> None:
    mounts = [("volume", "copied", "/v", ["rw"]), ("bind", str(host), "/h", ["ro"])]
    chosen = options("sh", "-c", "echo t >/t/x; : >/ready; exec sleep 1000", mounts=mounts, tmpfs=["/t"])
    name = str(engine.containers.run(chosen, image="base", detach=True))
    try:
        ready(engine, name)
        engine.containers.copy_in(name, str(host / "f"), "/v/f")
        engine.containers.copy_in(name, str(host / "f"), "/t/f")
        assert said(engine, name, "cat /v/f /t/f /t/x") == "hfhft\n"
        engine.containers.copy_out(name, "/t/x", str(host / "out"))
        assert (host / "out").read_text() == "t\n"
        with pytest.raises(SampanError, match="Read-only"):
            engine.containers.copy_in(name, str(host / "f"), "/h/g")
        engine.containers.kill(name)
        engine.containers.wait(name)
        engine.containers.copy_in(name, str(host / "d"), "/v/")
        with pytest.raises(SampanError, match="Read-only"):
            engine.containers.copy_in(name, str(host / "f"), "/h/g")
        engine.containers.copy_out(name, "/v", str(host / "volume"))
        assert tree(host / "volume") == {"f": "hf", "d": "/", "d/sub": "/", "d/sub/y": "hy", "d/x": "hx"}
    finally:
        engine.containers.remove(name, force=True)
        engine.store.volumes.remove("copied")


def test_the_kernels_files_are_not_copied_with_the_root(
    engine: sampan.Engine, running: str, tmp_path: pathlib.Path
) -> None:
    names: list[str] = []
    data = io.BytesIO()
    engine.containers.read_archive(running, "/", data.write)
    data.seek(0)
    with tarfile.open(fileobj=data) as tar:
        names = tar.getnames()
    assert "proc" in names and "sys" in names and "f" in names and "dev/zero" in names
    assert not [name for name in names if name.startswith(("proc/", "sys/"))]


def test_no_device_is_ever_opened(engine: sampan.Engine, running: str, tmp_path: pathlib.Path) -> None:
    """The helper's view of a running container, with a program in the place of the packer."""
    from sampan.engine.access import Files
    from sampan.runtime import launch
    from sampan.runtime import plan as p

    def code(plan: p.Plan) -> int:
        plan.add(p.EXEC, "/usr/bin/head", "head", "-c1", "/dev/zero", flags=1)
        record = engine.containers.get(running)
        target, null = os.pidfd_open(record.pid), os.open("/dev/null", os.O_RDWR)
        try:
            return launch.start(plan, null, null, null, target=target).await_start().wait().code
        finally:
            os.close(target)
            os.close(null)

    with Files(engine, running) as files:
        plan = files._joined()
        assert plan.operations[-1].code == p.NO_DEVICES
        assert code(plan) == 1
        naive = files._joined()
        naive.operations = [operation for operation in naive.operations if operation.code != p.NO_DEVICES]
        assert code(naive) == 0, "without it the device is read"


def test_a_read_only_container_is_refused(engine: sampan.Engine, host: pathlib.Path) -> None:
    name = engine.containers.create("base", options("sleep", "1000", read_only=True))
    for _ in range(2):
        with pytest.raises(SampanError, match="Read-only"):
            engine.containers.copy_in(name, str(host / "f"), "/x")
        engine.containers.start(name)
    engine.containers.remove(name, force=True)


def test_links_resolve_in_the_container(engine: sampan.Engine, box: str, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    link = tmp_path / "link"
    link.symlink_to(canary)
    engine.containers.copy_in(box, str(link), "/links/evil")
    upper = engine.store.paths.container(engine.containers.get(box).id) + "/upper/links/evil"
    if ROOT:
        with open(upper, encoding="ascii") as naive:
            assert naive.read() == "secret", "who opens the path on the host is led out"
    for path in ("/links/evil", f"/links/root{canary}", f"/links/root/../../..{canary}"):
        with pytest.raises(NotFound):
            engine.containers.copy_out(box, path, str(tmp_path / "out"), follow_link=True)
    other = tmp_path / "new"
    other.write_text("overwritten")
    with pytest.raises(NotFound):  # its directory is not there, in the container
        engine.containers.copy_in(box, str(other), "/links/evil")
    assert canary.read_text() == "secret"


def test_a_copied_link_is_not_followed_on_the_host(engine: sampan.Engine, box: str, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    top = tmp_path / "out"
    (top / "d").mkdir(parents=True)
    (top / "d/sub").symlink_to(canary)
    with pytest.raises(Conflict):
        engine.containers.copy_out(box, "/d", str(top))
    (top / "d/sub").unlink()
    (top / "d/x").symlink_to(canary / "written")
    engine.containers.copy_out(box, "/d", str(top))
    assert os.listdir(canary) == [] and (top / "d/x").read_text() == "x\n"


def test_a_container_that_swaps_directories_stays_alone(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    script = f"""mkdir -p /real /w; ln -s {canary} /trap; : >/ready
while :; do rm -rf /w/d; ln -s {canary} /w/d; rm /w/d; mkdir -p /w/d; done"""
    name = str(engine.containers.run(options("sh", "-c", script), image="base", detach=True))
    source = tmp_path / "d"
    source.mkdir()
    (source / "file").write_text("x")
    try:
        ready(engine, name)
        for number in range(20):
            try:
                engine.containers.copy_in(name, str(source), "/w")
                engine.containers.copy_out(name, "/w", str(tmp_path / f"out{number}"))
            except SampanError:
                continue  # it was in the way: what counts is where nothing was written
        assert os.listdir(canary) == []
    finally:
        engine.containers.remove(name, force=True)


def test_a_full_disk_inside_and_a_full_one_outside(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (3 << 20))
    name = str(engine.containers.run(options("sleep", "1000", tmpfs=["/t:size=1m"]), image="base", detach=True))
    try:
        with pytest.raises(SampanError, match="No space"):
            engine.containers.copy_in(name, str(tmp_path / "big"), "/t/big")
        engine.containers.copy_in(name, str(tmp_path / "big"), "/big")
        words = " ".join(f"'{word}'" for word in engine.command(["cp", f"{name}:/big", str(tmp_path / "out")]))
        done = subprocess.run(
            ["sh", "-c", f"ulimit -f 4096; exec {words}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "File too large" in done.stderr
        assert os.listdir(tmp_path) == ["big"], "no half of a file is left"
    finally:
        engine.containers.remove(name, force=True)


def test_links_in_a_circle_are_called_that(engine: sampan.Engine, box: str, tmp_path: pathlib.Path) -> None:
    circle = tmp_path / "circle"
    circle.mkdir()
    (circle / "a").symlink_to("b")
    (circle / "b").symlink_to("a")
    engine.containers.copy_in(box, str(circle), "/circle")
    for inner in ("/circle/a", "/circle/a/below", "/circle/a/"):
        with pytest.raises(NotFound, match="too many levels of symbolic links"):
            engine.containers.copy_out(box, inner, str(tmp_path / "out"), follow_link=True)
        with pytest.raises(SampanError, match="(?i)too many levels of symbolic links"):
            engine.containers.copy_in(box, str(tmp_path) + inner, "/in", follow_link=True)
    with pytest.raises(NotFound, match="there is no such file in the container"):
        engine.containers.copy_out(box, "/links/dangling", str(tmp_path / "out"), follow_link=True)
    assert not (tmp_path / "out").exists()
