"""`system check` finds every damage, and mends what the store itself can mend (one flipped bit is enough)."""

from __future__ import annotations

import os
import pathlib
import random

import pytest

import sampan
from sampan.cli.main import main
from sampan.engine import pruning
from sampan.engine.checking import Check, Checked, Fault, check
from sampan.errors import IntegrityError, Unavailable
from sampan.oci.options import RunOptions


@pytest.fixture
def own(tmp_path: pathlib.Path) -> sampan.Engine:
    tmp_path.chmod(0o711)
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.bootstrap("host", "base", ["sh", "true", "ln", "chmod", "mkdir", "cat", "rm"])
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM base\nCOPY a b /dir/\nRUN ln -s a /dir/l; ln /dir/a /dir/h; mkdir /closed; chmod 0 /closed; rm -r /var\n"
    )
    (context / "a").write_bytes(b"a" * 9000 + bytes(20000) + b"z")
    (context / "b").write_bytes(random.Random(1).randbytes(70000))
    engine.build(str(context), tags=["app"])
    return engine


def faults(engine: sampan.Engine, **how: bool) -> tuple[list[Fault], int, Checked]:
    found: list[Fault] = []
    checked, left = check(engine, tell=found.append, **how)
    return found, left, checked


def flip(path: str, bit: int) -> None:
    """Change one bit as a disk does: the times stay."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def runs(engine: sampan.Engine) -> bool:
    return engine.run("app", ["cat", "/dir/b"]).exit_code == 0


def test_a_sound_store_has_no_faults(own: sampan.Engine) -> None:
    found, left, checked = faults(own)
    assert ([fault.why for fault in found], left) == ([], 0)
    assert checked.layers == 3 and checked.blobs >= 7


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_any_blob_is_found_and_mended(own: sampan.Engine, seed: int) -> None:
    chosen = random.Random(seed)
    for digest in own.store.content.ls():
        flip(own.store.content.path(digest), chosen.randrange(own.store.content.size(digest) * 8))
    found, left, checked = faults(own)
    assert {fault.what for fault in found if fault.kind == "blob"} == set(own.store.content.ls())
    found, left, _ = faults(own, repair=True)
    # Manifests are nowhere else in the store; configs are in the database, layers are unpacked.
    manifests = {image.manifest_digest for image in own.store.images.ls()}
    assert {fault.what for fault in found if not fault.repaired} == manifests
    assert all("sampan pull" in fault.hint for fault in found if not fault.repaired)
    assert runs(own)


def test_a_truncated_and_a_missing_blob(own: sampan.Engine) -> None:
    layers = own.store.images.resolve("app").diff_ids
    os.truncate(own.store.content.path(layers[0]), 100)
    os.unlink(own.store.content.path(layers[1]))
    assert {fault.what for fault in faults(own)[0]} == set(layers[:2])
    found, left, _ = faults(own, repair=True)
    assert (left, len(found)) == (0, 2)
    assert faults(own)[1] == 0


def damage_content(directory: pathlib.Path) -> None:
    flip(str(directory / "dir/b"), 65000 * 8)


def damage_hole(directory: pathlib.Path) -> None:
    flip(str(directory / "dir/a"), 15000 * 8)


def damage_length(directory: pathlib.Path) -> None:
    os.truncate(directory / "dir/b", 60000)


def damage_mode(directory: pathlib.Path) -> None:
    (directory / "dir/b").chmod(0o4755)


def damage_by_removal(directory: pathlib.Path) -> None:
    (directory / "dir/b").unlink()


def damage_by_addition(directory: pathlib.Path) -> None:
    (directory / "dir/c").write_text("not of this layer")


def damage_kind(directory: pathlib.Path) -> None:
    (directory / "dir/b").unlink()
    (directory / "dir/b").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "damage",
    [
        damage_content,
        damage_hole,
        damage_length,
        damage_mode,
        damage_by_removal,
        damage_by_addition,
        damage_kind,
    ],
)
def test_a_damaged_file_of_a_layer_is_found_and_mended(own: sampan.Engine, damage: object) -> None:
    assert callable(damage)
    layer = own.store.images.resolve("app").diff_ids[1]
    damage(pathlib.Path(own.store.snapshots.path(layer)))
    found, left, _ = faults(own)
    assert [(fault.kind, fault.what, fault.users) for fault in found] == [("layer", layer, ["app:latest"])]
    assert left == 1
    assert faults(own, quick=True)[1] == 0  # it says that it does not look
    assert faults(own, repair=True)[1] == 0
    assert faults(own)[1] == 0
    assert runs(own)


def test_a_missing_snapshot_is_unpacked_again(own: sampan.Engine) -> None:
    layer = own.store.images.resolve("app").diff_ids[1]
    own.remove_tree(own.store.snapshots.path(layer))
    assert [fault.why for fault in faults(own)[0]] == ["it is not unpacked"]
    assert faults(own, repair=True)[1] == 0
    assert runs(own)


def test_a_layer_in_use_is_not_taken_away(own: sampan.Engine) -> None:
    options = RunOptions()
    options.command = ["cat"]
    options.interactive = True
    own.containers.run(options, image="app", name="busy", detach=True)
    layer = own.store.images.resolve("app").diff_ids[1]
    damage_by_addition(pathlib.Path(own.store.snapshots.path(layer)))
    found, left, _ = faults(own, repair=True)
    assert left == 1 and "container busy runs on it" in found[0].hint
    own.containers.remove("busy", force=True)
    assert faults(own, repair=True)[1] == 0


@pytest.mark.parametrize("page", [0, 1, 5, 9, 14])
def test_a_damaged_database_is_found_and_made_again(own: sampan.Engine, page: int) -> None:
    options = RunOptions()
    options.command = ["true"]
    own.containers.create("app", options, name="kept")
    own.store.volumes.create("data")
    own.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    path, size = own.store.paths.database, os.stat(own.store.paths.database).st_size
    own.close()
    with open(path, "r+b") as file:
        file.seek(min(page * 4096, size - 4096))
        file.write(b"\xa5" * 4096)
    with pytest.raises(Unavailable):
        faults(own)
    found, _, _ = faults(own, repair=True)
    assert found[0].kind == "database" and found[0].repaired
    assert faults(own)[1] == 0
    assert {row["Repository"] for row in own.images.ls()} == {"app", "base"}
    assert [volume.name for volume in own.store.volumes.ls()] == ["data"]
    assert runs(own)
    paths = own.store.paths
    assert any(name.startswith("sampan.db.damaged-") for name in os.listdir(paths.root))
    assert pruning.everything(own, pruning.Wanted(before=1)).freed == 0  # a filter: what has no date stays
    assert any(name.startswith("sampan.db.damaged-") for name in os.listdir(paths.root))
    assert pruning.everything(own, pruning.Wanted()).freed > 0
    assert os.listdir(paths.containers) == []
    assert not any(name.startswith("sampan.db.damaged-") for name in os.listdir(paths.root))
    own.store.volumes.remove("data")
    pruning.everything(own, pruning.Wanted(), all=True)
    assert os.listdir(paths.root) == []


class Cut(BaseException):
    """The power goes."""


@pytest.mark.parametrize("step", range(1, 7))
def test_a_repair_that_is_cut_short_loses_nothing(
    own: sampan.Engine, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is sound here, its last records are in its log alone: all must be there after any step."""
    own.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    path, real, moved = own.store.paths.database, os.rename, list[str]()
    own.images.tag("app", "late:1")
    record = own.containers.create("app", RunOptions(command=["true"]), name="late")

    def rename(source: str, target: str) -> None:
        if str(source).startswith(path):
            moved.append(os.path.basename(target))
            if len(moved) == step:
                raise Cut
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Cut):
        own.salvage()
    monkeypatch.undo()
    root = own.store.paths.root
    own.close()
    engine = sampan.Engine(root)
    for repaired in (False, True):
        assert engine.images.resolve("late:1").id == engine.images.resolve("app").id, moved
        assert engine.containers.get("late").id == record
        assert not repaired or faults(engine, repair=True)[1] == 0
        if not repaired:
            engine.salvage()
    assert pruning.everything(engine, pruning.Wanted()).freed >= 0
    assert not [name for name in os.listdir(engine.store.paths.root) if ".repair" in name or ".damaged" in name]


def test_a_database_that_is_gone_is_made_again_with_all_sizes(own: sampan.Engine) -> None:
    before = {row["ID"]: row["Size"] for row in own.images.ls()}
    paths = own.store.paths
    own.close()
    for suffix in ("", "-wal", "-shm"):
        pathlib.Path(paths.database + suffix).unlink(missing_ok=True)
    engine = sampan.Engine(paths.root)
    assert engine.images.ls() == []
    with pytest.raises(Unavailable):
        faults(engine)
    found, left, _ = faults(engine, repair=True)
    assert left == 0 and found[0].why.startswith("it is empty, but there are 2 images in ")
    assert {row["ID"]: row["Size"] for row in engine.images.ls()} == before
    assert faults(engine)[1] == 0 and runs(engine)


def test_a_blob_that_only_a_registry_has_is_not_promised_a_repair(own: sampan.Engine) -> None:
    manifest = own.store.images.resolve("app").manifest_digest
    os.unlink(own.store.content.path(manifest))
    hints = [fault.hint for fault in faults(own)[0]]
    assert hints == ["bring it again: sampan pull app:latest, or build or load it"]
    own.images.tag("app", "registry.example/app:1")
    own.store.images.tag(f"registry.example/app@{manifest}", manifest)  # as a pull does
    hints = [fault.hint for fault in faults(own)[0]]
    assert "sampan pull registry.example/app:1" in hints[0] and hints[0].endswith("or build or load one of them")


def test_a_database_of_others_is_not_taken_for_ones_own(own: sampan.Engine) -> None:
    own.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    path = own.store.paths.database
    own.close()
    for suffix in ("-wal", "-shm", ""):
        pathlib.Path(path + suffix).unlink(missing_ok=True)
    pathlib.Path(path).touch()
    with pytest.raises(IntegrityError) as caught:
        own.images.ls()
    assert "is not a database of sampan" in caught.value.message and "system check --repair" in caught.value.hint
    assert faults(own, repair=True)[1] == 0 and runs(own)


@pytest.mark.parametrize("damage", ["gone", "junk", "another's"])
def test_a_damaged_index_is_found_and_written_again(own: sampan.Engine, damage: str) -> None:
    files = [pathlib.Path(own.store.paths.oci, name) for name in ("index.json", "oci-layout")]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink() if damage == "gone" else file.write_text('{"manifests": 1}' if damage == "another's" else "{")
    found, left, _ = faults(own)
    assert [(fault.what, left) for fault in found] == [("oci/index.json", 2), ("oci/oci-layout", 2)]
    assert {fault.why for fault in found} == {"it is missing" if damage == "gone" else "it is not as sampan writes it"}
    assert faults(own, repair=True)[1] == 0 and faults(own)[0] == []
    assert [file.read_bytes() for file in files] == before
    files[0].write_text('{"schemaVersion": 2, "manifests": []}')  # what a killed command leaves may be older: no damage
    assert faults(own)[0] == [] and faults(own, repair=True)[0] == []
    assert files[0].read_bytes() == before[0]
    inode = os.stat(files[0]).st_ino
    assert faults(own, repair=True)[0] == [] and os.stat(files[0]).st_ino == inode  # a full disk does not hinder it


def test_strays_and_lost_directories_are_named(own: sampan.Engine) -> None:
    options = RunOptions()
    options.command = ["true"]
    container_id = own.containers.create("app", options, name="gone")
    own.containers.start(container_id)
    own.containers.wait(container_id)
    own.remove_tree(own.store.paths.container(container_id))
    pathlib.Path(own.store.paths.root, "stray").write_text("x")
    assert {(fault.kind, fault.what) for fault in faults(own)[0]} == {("container", "gone"), ("file", "stray")}


def test_what_a_kill_left_for_the_next_collection_is_no_damage(own: sampan.Engine) -> None:
    own.images.remove("app", force=True)
    own.store.buildcache.prune()
    unneeded = {diff_id for diff_id, _, _ in own.store.snapshots.ls()}
    unneeded -= set(own.store.images.resolve("base").diff_ids)
    assert unneeded
    for digest in unneeded:
        own.store.content.delete(digest)
    assert faults(own)[0] == []


def test_an_empty_volume_without_a_record_is_no_lost_database(tmp_path: pathlib.Path) -> None:
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.images.ls()
    os.makedirs(engine.store.paths.volume_data("begun"))
    assert faults(engine)[0] == []
    pathlib.Path(engine.store.paths.volume_data("begun"), "file").touch()
    with pytest.raises(Unavailable):
        faults(engine)


@pytest.mark.parametrize("repair", [False, True])
def test_what_others_bring_and_remove_meanwhile_is_no_fault(own: sampan.Engine, repair: bool) -> None:
    """The pause is the first fault: a config whose bit has flipped, which the database mends."""
    other = sampan.Engine(own.store.paths.root)
    archive = own.store.paths.root + "-app.tar"
    own.images.save(["app"], archive)
    own.images.remove("app")
    flip(own.store.content.path(own.images.resolve("base").id), 100)
    own.images.import_(archive, "gone")  # any tar will do
    looking = Check(own, repair=repair).run()
    assert next(looking).kind == "blob"
    other.images.load(archive)
    other.images.remove("gone")
    assert [(fault.what, fault.why) for fault in looking] == []
    assert runs(own) and faults(own, repair=True)[1] == 0 and faults(own)[0] == []


def test_a_layer_that_is_compared_stays_meanwhile(own: sampan.Engine) -> None:
    layer = own.store.images.resolve("app").diff_ids[1]
    damage_content(pathlib.Path(own.store.snapshots.path(layer)))
    looking = Check(own).run()
    assert next(looking).what == layer  # its lease ends with its faults
    sampan.Engine(own.store.paths.root).images.remove("app")
    pruning.everything(sampan.Engine(own.store.paths.root), pruning.Wanted(), all=True)
    assert own.store.snapshots.find(layer) is not None
    assert list(looking) == []
    pruning.everything(own, pruning.Wanted(), all=True)
    assert own.store.snapshots.find(layer) is None


def test_the_command(own: sampan.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", own.store.paths.root]
    assert main([*root, "system", "check"]) == 0
    assert "all is well" in capsys.readouterr().out
    layer = own.store.images.resolve("app").diff_ids[1]
    damage_content(pathlib.Path(own.store.snapshots.path(layer)))
    assert main([*root, "system", "check"]) == 1
    shown = capsys.readouterr().out
    assert f"layer {layer} (of app:latest): /dir/b: its content differs" in shown and "--repair" in shown
    assert main([*root, "system", "check", "--repair"]) == 0
    assert "unpacked again" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_in_a_blobs_place_is_told_and_replaced(
    own: sampan.Engine, tmp_path: pathlib.Path, kind: str
) -> None:
    layer = own.images.resolve("base").diff_ids[0]
    blob = pathlib.Path(own.store.content.path(layer))
    blob.rename(tmp_path / "moved")
    if kind == "link":
        blob.symlink_to(tmp_path / "moved")
    elif kind == "fifo":
        os.mkfifo(blob)
    else:
        blob.mkdir()
    found, left, _ = faults(own)
    assert [(one.kind, one.what) for one in found] == [("blob", layer)]
    found, left, _ = faults(own, repair=True)
    if kind == "directory":  # what is in it is not for us to remove
        assert left == 1 and found[0].hint == f"move {blob} away, then check again"
        blob.rename(tmp_path / "aside")
        found, left, _ = faults(own, repair=True)
    assert left == 0 and blob.is_file() and not blob.is_symlink() and runs(own)
