"""The ledger covers every byte below the root, and gives each to whoever needs it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from storekit import Interrupted, Store

from sampan.errors import IntegrityError
from sampan.store import erase, files, gc, ledger
from sampan.store.db import Database
from sampan.store.manifestlists import ManifestLists
from sampan.store.paths import Paths


def lines(store: Store) -> dict[str, ledger.Line]:
    return {line.path: line for line in ledger.read(store.db, store.paths)}


def kinds(store: Store, kind: str) -> dict[str, ledger.Line]:
    return {line.key: line for line in lines(store).values() if line.kind == kind}


def test_every_byte_is_in_the_ledger_once(store: Store) -> None:
    store.image(b"one" * 5000, b"two" * 9000, tag="app:1")
    store.volumes.create("data")
    done = subprocess.run(["du", "-s", "--block-size=1", store.paths.root], capture_output=True, text=True, check=True)
    assert sum(line.size for line in lines(store).values()) == int(done.stdout.split()[0])
    assert not kinds(store, ledger.UNKNOWN)


def test_content_belongs_to_images_before_the_build_cache(store: Store) -> None:
    image = store.image(b"one", tag="app:1")
    cached = store.snapshot(b"two")
    store.cache.put("key", {}, [cached, image.diff_ids[0]])
    found = lines(store)
    assert {line.key for line in found.values() if line.kind == ledger.BUILD_CACHE} == {cached}
    mine = [line for line in found.values() if line.key == image.diff_ids[0]]
    assert len(mine) == 2  # blob and snapshot
    assert all(line.owners == ["app:1"] and line.reclaimable for line in mine)


def test_what_a_container_uses_is_not_reclaimable(store: Store) -> None:
    image = store.image(b"one", tag="app:1")
    record = store.container("web", image_id=image.id)
    os.makedirs(store.paths.container(record.id))
    assert not any(line.reclaimable for line in kinds(store, ledger.IMAGE).values())
    assert kinds(store, ledger.CONTAINER)[record.id].owners == ["web"]


def test_what_nothing_explains_is_said(store: Store) -> None:
    store.image(b"one", tag="app:1")
    for path in (store.paths.root + "/stray", store.paths.cache + "/stray", store.paths.oci + "/stray"):
        with open(path, "wb") as file:
            file.write(b"x" * 9000)
    os.mkdir(store.paths.snapshots + "/77")
    os.mkdir(store.paths.containers + "/" + "a" * 64)
    found = lines(store)
    assert {path for path, line in found.items() if line.kind == ledger.UNKNOWN} == {
        "stray",
        "cache/stray",
        "oci/stray",
    }
    assert {path for path, line in found.items() if line.kind == ledger.LEFTOVER} == {
        "snapshots/77",
        "containers/" + "a" * 64,
    }


def test_blobs_under_a_lease_are_in_flight(store: Store) -> None:
    with store.leases.take("pull") as lease:
        digest = store.content.add(b"on its way", lease=lease)
        assert kinds(store, ledger.IN_FLIGHT)[digest].reclaimable is False
    assert kinds(store, ledger.LEFTOVER)[digest].reclaimable is True


def test_an_image_that_comes_meanwhile_is_listed(store: Store) -> None:
    store.image(b"one", tag="app:1")
    db = Interrupted(store.paths, "SELECT id, name FROM images", lambda: store.image(b"two"))
    found = [line.owners for line in ledger.read(db, store.paths) if line.kind == ledger.IMAGE]
    assert len(found) == 8 and ["app:1"] in found
    db.close()


@pytest.mark.parametrize("place", ["root", "run", "root/volumes", "root/containers"])
def test_what_is_not_the_stores_is_never_erased(tmp_path: Path, place: str) -> None:
    """SAMPAN_ROOT=$HOME, SAMPAN_RUN=/run: what else lies there is somebody's."""
    for name in ("root", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / place / "letters").mkdir(parents=True)
    (tmp_path / place / "letters" / "one").write_text("dear")
    paths = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    paths.make()
    paths.make_run()
    held, db = paths.hold(), Database(paths)
    assert db.query("SELECT * FROM images") == []
    assert not erase.erase_if_empty(db, paths, held)
    assert (tmp_path / place / "letters" / "one").read_text() == "dear"
    assert db.query("SELECT * FROM images") == []  # and the store works on
    (tmp_path / place / "letters" / "one").unlink()
    (tmp_path / place / "letters").rmdir()
    assert erase.erase_if_empty(db, paths, held)
    assert os.listdir(tmp_path / "root") == os.listdir(tmp_path / "run") == []
    os.close(held)


def test_an_empty_store_is_erased_and_made_again(store: Store) -> None:
    image = store.image(b"one", tag="app:1")
    held = store.paths.hold()
    assert not erase.erase_if_empty(store.db, store.paths, held)
    store.images.remove("app:1")
    assert not erase.erase_if_empty(store.db, store.paths, held)  # the snapshot is still there
    gc.collect(store.db, store.content, store.paths)
    ManifestLists(store.db).put("registry.example/list:1", [])
    assert not erase.erase_if_empty(store.db, store.paths, held)  # a list that is being made, which no prune takes
    ManifestLists(store.db).remove("registry.example/list:1")
    other = store.paths.hold()
    assert not erase.erase_if_empty(store.db, store.paths, held)  # somebody else uses it
    os.close(other)

    def stopped(path: str) -> None:
        raise OSError(errno.EIO, "stopped here", path)

    assert store.db.one("SELECT count(*) FROM images") == (0,)
    with pytest.raises(IntegrityError, match="stopped here"):
        erase.erase_if_empty(store.db, store.paths, held, remove_tree=stopped)
    assert not os.path.exists(store.paths.database)  # first of all: without its log it may hold what was removed
    assert erase.erase_if_empty(store.db, store.paths, held)
    assert os.listdir(store.paths.root) == []
    os.close(held)
    assert store.image(b"one", tag="app:1").id == image.id


def test_a_tree_deeper_than_any_path_is_measured(tmp_path: Path) -> None:
    name = "d" * 200
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    with open(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=at), "wb") as file:
        file.write(bytes(1 << 20))
    os.close(at)
    found = list(files.below(str(tmp_path)))
    assert len(found) == 61
    assert ledger.disk_usage(str(tmp_path)) >= 1 << 20
    files.remove_tree(str(tmp_path / name))


def beside_a_canary(tmp_path: Path) -> Path:
    """Give the place of a tree; beside it lies a file that nobody is to find from there."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").write_bytes(bytes(9999))
    return tmp_path / "tree"


def test_a_directory_that_is_exchanged_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    tree = beside_a_canary(tmp_path)
    (tree / "a").mkdir(parents=True)
    found = files.below(str(tree))
    sizes = [next(found).st_size]
    (tree / "a").rmdir()
    (tree / "a").symlink_to("../outside")
    assert 9999 in [entry.stat().st_size for entry in os.scandir(tree / "a")], "control"
    sizes += [state.st_size for state in found]
    assert 9999 not in sizes


def test_a_directory_that_is_moved_out_meanwhile_is_not_followed_up(tmp_path: Path) -> None:
    tree = beside_a_canary(tmp_path)
    (tree / "a/b").mkdir(parents=True)
    found = files.below(str(tree))
    next(found)
    next(found)
    (tree / "a").rename(tmp_path / "outside/a")
    assert [state.st_size for state in found].count(9999) == 0
