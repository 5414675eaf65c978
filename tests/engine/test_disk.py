"""`system df` accounts for every byte, and after removing everything `system prune --all` leaves none."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

import sampan
from sampan.cli.main import main
from sampan.engine import disk, pruning
from sampan.oci.options import RunOptions
from sampan.store import ledger


@pytest.fixture
def own(tmp_path: pathlib.Path) -> sampan.Engine:
    tmp_path.chmod(0o711)
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.bootstrap("host", "base", ["sh", "true", "dd", "sleep", "chmod", "mkdir"])
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM base\nRUN echo a > /a\nRUN mkdir /b && chmod 0 /b\nVOLUME /v\n")
    engine.build(str(tmp_path / "context"), tags=["app"])
    return engine


def container(engine: sampan.Engine, name: str, *command: str) -> None:
    options = RunOptions()
    options.command = list(command)
    engine.containers.run(options, image="app", name=name, detach=True)
    engine.containers.wait(name)


def test_every_file_has_an_owner_and_the_rows_add_up(own: sampan.Engine) -> None:
    container(own, "one", "dd", "if=/dev/zero", "of=/big", "bs=4096", "count=100")
    found = disk.lines(own)
    assert [line for line in found if line.kind in (ledger.UNKNOWN, ledger.LEFTOVER)] == []
    rows = {row["Type"]: row for row in disk.summary(own, found)}
    assert sum(row["Size"] for row in rows.values()) == sum(line.size for line in found)
    if os.geteuid() == 0:  # another user cannot see into mapped directories, du neither
        words = ["du", "-s", "--block-size=1", own.store.paths.root]
        seen = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0])
        assert abs(sum(line.size for line in found) - seen) < 64 << 10  # the database's log may grow meanwhile
    assert (rows["Images"]["TotalCount"], rows["Images"]["Active"]) == (2, 1)
    assert (rows["Containers"]["TotalCount"], rows["Containers"]["Active"]) == (1, 0)
    assert rows["Containers"]["Reclaimable"] >= 400 << 10
    assert (rows["Local Volumes"]["TotalCount"], rows["Local Volumes"]["Active"]) == (1, 1)


def test_shared_and_unique_sizes(own: sampan.Engine) -> None:
    rows = {row["Repository"]: row for row in disk.images(own, disk.lines(own))}
    assert rows["base"]["UniqueSize"] < rows["base"]["SharedSize"] == rows["app"]["SharedSize"]


def test_prune_keeps_what_is_used(own: sampan.Engine) -> None:
    options = RunOptions()
    options.command = ["sleep", "1000"]
    own.containers.run(options, image="app", name="busy", detach=True)
    container(own, "idle", "true")
    done = pruning.everything(own, pruning.Wanted(), all=True, volumes=True)
    assert [row["Names"] for row in own.containers.ls(all=True)] == ["busy"]
    assert len(done.containers) == 1 and done.freed > 0
    assert [row["Repository"] for row in own.images.ls()] == ["app"]
    assert len(own.store.volumes.ls()) == 1
    own.containers.remove("busy", force=True)


def test_prune_by_age_and_label(own: sampan.Engine) -> None:
    container(own, "idle", "true")
    assert not pruning.everything(own, pruning.Wanted(before=1.0)).containers
    assert not pruning.everything(own, pruning.Wanted(labels=["keep"])).containers
    assert pruning.everything(own, pruning.Wanted(without=["keep"])).containers


def test_after_removing_everything_nothing_is_left(own: sampan.Engine) -> None:
    container(own, "one", "true")
    root, run = own.store.paths.root, own.store.paths.run
    for row in own.containers.ls(all=True):
        own.containers.remove(row["ID"], force=True)
    pruning.everything(own, pruning.Wanted(), all=True, volumes=True)
    assert os.listdir(root) == []
    assert not os.path.exists(run) or os.listdir(run) == []
    assert own.images.ls() == []  # and it can be used again


def test_the_commands(own: sampan.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", own.store.paths.root]
    assert main([*root, "system", "df", "--format", "{{.Type}}={{.TotalCount}}"]) == 0
    assert "Images=2\n" in capsys.readouterr().out
    assert main([*root, "system", "df", "-v"]) == 0
    shown = capsys.readouterr().out
    assert "UNIQUE SIZE" in shown and "sampan.db" in shown and "index of images" in shown
    assert main([*root, "builder", "prune", "-f"]) == 0
    assert main([*root, "image", "prune", "-af"]) == 0
    assert "untagged: app:latest" in capsys.readouterr().out
    assert main([*root, "system", "prune", "-f", "--filter", "colour=red"]) == 1
    assert "until=TIME" in capsys.readouterr().err
    own.close()
