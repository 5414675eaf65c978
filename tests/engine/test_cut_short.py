"""Containers after kills and power cuts: what can be made again is, and what was begun ends with who began it."""

from __future__ import annotations

import os
import pathlib
import select
import shutil
import signal
from collections.abc import Iterator

import pytest
from test_costs import command, strace

import sampan
from sampan.engine import checking, doctor, leftovers
from sampan.engine.access import Files
from sampan.errors import Conflict, NotFound
from sampan.oci.options import RunOptions
from sampan.runtime import tree
from sampan.store import gc, owner


@pytest.fixture
def made(engine: sampan.Engine) -> Iterator[str]:
    options = RunOptions()
    options.command = ["sh", "-c", "echo x >/made; ls -ld / >/seen"]
    container_id = engine.containers.create("base", options)
    yield container_id
    for row in engine.containers.ls(all=True):
        if row["ID"] == container_id[:12] or row["ID"] == container_id:
            engine.containers.remove(container_id, force=True)


def home_of(engine: sampan.Engine, container_id: str) -> str:
    return engine.store.paths.container(container_id)


@pytest.mark.parametrize("lost", ["", "/upper"])
def test_a_container_whose_directory_was_lost_starts_and_is_copied_to(
    engine: sampan.Engine, made: str, lost: str, tmp_path: os.PathLike[str]
) -> None:
    home = home_of(engine, made)
    shutil.rmtree(home + lost)
    assert [fault.what for fault in checking.Check(engine, quick=True).run() if fault.kind == "container"] == []
    engine.containers.start(made)
    assert engine.containers.wait(made) == 0
    assert set(os.listdir(home + "/upper")) >= {"made", "seen"}
    with open(home + "/upper/seen") as file:
        assert file.read().startswith("drwxr-xr-x")
    engine.remove_tree(home)  # what overlayfs left there is closed to an ordinary user
    source = os.path.join(tmp_path, "file")
    with open(source, "w") as file:
        file.write("content")
    engine.containers.copy_in(made, source, "/")
    assert os.path.exists(home + "/upper/file")


@pytest.mark.parametrize("lost", ["", "/upper"])
@pytest.mark.parametrize("command", ["diff", "commit", "export", "update"])
def test_a_container_whose_directory_was_lost_is_as_empty_as_it_was(
    engine: sampan.Engine, made: str, lost: str, command: str, tmp_path: os.PathLike[str]
) -> None:
    home = home_of(engine, made)
    shutil.rmtree(home + lost)
    if command == "diff":
        assert engine.containers.diff(made) == []
    elif command == "commit":
        image = engine.containers.commit(made)
        assert engine.images.resolve(image).diff_ids == engine.images.resolve("base").diff_ids
    elif command == "export":
        with open(os.path.join(tmp_path, "tar"), "wb") as file:
            assert engine.containers.export(made, file.fileno()) > 0
    else:
        engine.containers.update(made, {"restart": "always"})
    engine.containers.start(made)
    assert engine.containers.wait(made) == 0


def test_one_that_a_power_cut_ended_may_have_lost_its_directory_and_one_that_ended_before_not(
    engine: sampan.Engine, made: str
) -> None:
    """What `run -d` acknowledges is the record; nothing syncs the directory before the container has ended."""
    home, store = home_of(engine, made), engine.store.containers
    store.update(made, status="running", pid=2, pid_start=1, boot_id="another", started=1)
    shutil.rmtree(home)
    assert [fault.why for fault in checking.Check(engine, quick=True).run() if fault.kind == "container"] == []
    assert os.path.isdir(home + "/upper") and engine.containers.get(made).exit_code == 137
    assert engine.containers.diff(made) == []
    shutil.rmtree(home)
    found = [fault.why for fault in checking.Check(engine, quick=True).run() if fault.kind == "container"]
    assert found == ["its directory is missing"]


@pytest.mark.parametrize("started", [False, True])
def test_a_removal_that_was_cut_short_is_told_apart(engine: sampan.Engine, made: str, started: bool) -> None:
    home = home_of(engine, made)
    gone = f"{os.path.dirname(home)}/.gone-{made}"
    os.rename(home, gone)
    leftovers.collect(engine, seconds=0)
    if started:
        engine.store.containers.update(made, status="running", pid=2, pid_start=1, boot_id="another", started=1)
    # The renaming may be on the disk before the record's end: it is removed once more, and nothing is lost.
    assert [fault.why for fault in checking.Check(engine, quick=True).run() if fault.kind == "container"] == []
    for use in (engine.containers.start, engine.containers.diff):
        with pytest.raises(Conflict, match="its removal was interrupted"):
            use(made)
    assert not os.path.exists(home)
    engine.containers.remove(made)
    assert not os.path.exists(home) and not os.path.exists(gone)


def test_looking_for_a_container_that_was_removed_makes_no_directory(engine: sampan.Engine, made: str) -> None:
    home = home_of(engine, made)
    shutil.rmtree(home)
    record = engine.store.containers.get(made)
    engine.store.containers.remove(made)
    from sampan.engine.alone import Alone

    with pytest.raises(NotFound), Alone(home, restore=True):
        engine.store.containers.get(made)
    assert not os.path.exists(home)
    engine.store.containers.insert(record)


def test_a_helper_that_reads_files_ends_with_its_supervisor(engine: sampan.Engine, made: str) -> None:
    with Files(engine, made) as files:
        _, child, fds = files._open_reader(tree.NO_KERNEL)
        os.kill(child.helper_pid, signal.SIGKILL)
        ready, _, _ = select.select([fds[0]], [], [], 60)
        assert ready and os.read(fds[0], 1) == b"", "the child waits for requests"
        for fd in fds:
            os.close(fd)
        child.close()


def test_a_trial_of_doctor_that_was_killed_is_no_stray_file_and_goes(engine: sampan.Engine) -> None:
    boot, namespace, _, _ = owner.this_process().split(".")
    killed = f"{engine.store.paths.root}/.sampan-probe-{boot}.{namespace}.4194303.1.abcd"
    for end in (
        lambda: doctor.report_for(engine),
        lambda: gc.collect(engine.store.db, engine.store.content, engine.store.paths),
    ):
        os.makedirs(killed + "/work")
        assert [fault.what for fault in checking.Check(engine, quick=True).run() if fault.kind == "file"] == []
        end()
        assert not os.path.exists(killed)


def test_who_looks_takes_some_of_many_leftovers_and_a_collection_all(
    engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> int:
        return sum(name.startswith("5eed") for name in os.listdir(engine.store.paths.containers))

    for number in range(100):
        home = home_of(engine, f"5eed{number:060x}")
        os.makedirs(home + "/work/work")
        os.chmod(home + "/work/work", 0)
        os.utime(home, (1, 1))
    leftovers.collect(engine, patience=0)
    assert left() == 99
    monkeypatch.setattr(leftovers, "PATIENCE", 0)
    engine.containers.ls(all=True)
    assert left() == 98
    gc.collect(engine.store.db, engine.store.content, engine.store.paths, remove_tree=engine.remove_tree)
    assert left() == 0


def test_a_volume_whose_making_was_killed_is_synced_by_who_makes_it_again(
    engine: sampan.Engine, tmp_path: pathlib.Path
) -> None:
    """Its directory is there, perhaps in memory only, when the second command says that there is such a volume."""
    os.makedirs(engine.store.paths.volume_data("cut"))
    try:
        lines = strace(
            tmp_path / "trace", ["-f", "-y", "-e", "trace=fsync"], command(engine, "volume", "create", "cut")
        )
        synced = {line.split("<", 1)[1].rpartition(">")[0] for line in lines if "fsync(" in line}
        assert {engine.store.paths.volume("cut"), engine.store.paths.volumes} <= synced
    finally:
        engine.volumes.remove("cut", force=True)
