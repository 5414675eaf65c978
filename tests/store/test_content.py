"""Blobs: verified, durable, whole or absent; also through kill -9 and on a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from storekit import ROOT, Spawn, Store, descriptors, finish, killed

from sampan.errors import IntegrityError, InvalidArgument, NotFound, Unavailable
from sampan.oci import digest
from sampan.store import files

DATA = b"some content"
DIGEST = digest.of(DATA)


def leftovers(store: Store) -> list[str]:
    return os.listdir(store.paths.ingest)


def test_what_is_committed_can_be_read_by_its_digest(store: Store) -> None:
    with store.content.ingest() as ingest:
        ingest.write(DATA[:4])
        ingest.write(memoryview(DATA)[4:])
        assert ingest.commit(DIGEST, len(DATA)) == (DIGEST, len(DATA))
    assert store.content.read(DIGEST) == DATA
    assert store.content.size(DIGEST) == len(DATA)
    assert store.content.ls() == [DIGEST]
    assert not leftovers(store)


@pytest.mark.parametrize(("expected", "size"), [(digest.of(b"other"), -1), ("", 5), (DIGEST, 0)])
def test_other_content_than_promised_is_refused_and_forgotten(store: Store, expected: str, size: int) -> None:
    with store.content.ingest() as ingest:
        ingest.write(DATA)
        with pytest.raises(IntegrityError):
            ingest.commit(expected, size)
    assert store.content.ls() == [] == leftovers(store)
    assert not store.content.has(DIGEST)


@pytest.mark.parametrize("pieces", [[b"x", bytes(1 << 20), b"y"], [b"x", bytes(1 << 20)], [bytes(1 << 20)]])
def test_zeros_take_no_room_and_are_read_all_the_same(store: Store, pieces: list[bytes]) -> None:
    with store.content.ingest() as ingest:
        for piece in pieces:
            ingest.write(piece)
        found, size = ingest.commit()
    assert found == digest.of(b"".join(pieces))
    assert size == store.content.size(found) == len(b"".join(pieces))
    assert store.content.verify(found)
    assert os.stat(store.content.path(found)).st_blocks * 512 < 1 << 19


def test_an_ingest_that_is_left_is_forgotten(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.content.ingest() as ingest:
        ingest.write(DATA)
        raise ZeroDivisionError
    assert store.content.ls() == [] == leftovers(store)
    with pytest.raises(Unavailable):
        ingest.commit()


def test_a_missing_blob_is_not_found(store: Store) -> None:
    store.paths.make()
    for call in (store.content.read, store.content.open, store.content.path, store.content.size):
        with pytest.raises(NotFound):
            call(DIGEST)
    assert store.content.delete(DIGEST) == 0
    with pytest.raises(InvalidArgument):
        store.content.read("sha256:../../../etc/passwd")


def test_a_damaged_blob_is_found_out_and_healed_by_storing_it_again(store: Store) -> None:
    store.content.add(DATA)
    path = store.content.path(DIGEST)
    for damage in (b"Some content", b"some", b""):
        Path(path).write_bytes(damage)
        with pytest.raises(IntegrityError):
            store.content.read(DIGEST)
        assert not store.content.verify(DIGEST)
        store.content.add(DATA)
        assert store.content.read(DIGEST) == DATA
        assert store.content.verify(DIGEST)


def test_a_document_is_read_up_to_a_limit(store: Store) -> None:
    store.content.add(DATA)
    with pytest.raises(InvalidArgument):
        store.content.read(DIGEST, limit=5)


def test_the_order_is_write_sync_rename_sync(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.paths.make()
    calls: list[str] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object) -> object:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, call)

    watch("fsync")
    watch("rename")
    store.content.add(DATA)
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    store.paths.make()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises((Unavailable, IntegrityError)), store.content.ingest() as ingest:
            ingest.write(DATA)
            ingest.commit(DIGEST)
    assert store.content.ls() == [] == leftovers(store)
    store.content.add(DATA)
    assert store.content.read(DIGEST) == DATA


def test_kill_in_the_middle_of_ingest_leaves_no_partial_blob(spawn: Spawn, store: Store) -> None:
    code = """
    number = 0
    while True:
        if number == 1:
            print("one is whole", flush=True)
        number += 1
        with store.content.ingest() as ingest:
            for part in range(50):
                ingest.write(b"%d-%d" % (number, part) * 2000)
            ingest.commit()
    """
    for attempt in range(6):
        killed(spawn(code), "one is whole", 0.013 * attempt)
    assert store.content.ls()
    for blob in store.content.ls():
        assert store.content.verify(blob)
    store.collect()
    assert not leftovers(store)


def test_processes_that_store_the_same_blob_agree(spawn: Spawn, store: Store) -> None:
    code = "for n in range(30): store.content.add(b'same %d' % n * 1000)"
    for process in [spawn(code) for _ in range(4)]:
        finish(process)
    assert len(store.content.ls()) == 30
    assert all(store.content.verify(blob) for blob in store.content.ls())
    assert not leftovers(store)


FULL_DISK = """
import json, os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/store"]
from storekit import Store
from sampan.errors import Unavailable
root = sys.argv[2]
store = Store(root + "/s")
keep = store.image(b"keep" * 1000, tag="keep")
store.image(b"drop" * 20000, tag="drop")
store.image(b"drop" * 1000, tag="drop2")
store.volumes.create("v")
record = store.container("web", image_id=keep.id)
try:
    with store.content.ingest() as ingest:
        while True:
            ingest.write(b"x" * 65536)
    raise SystemExit("the disk is not full")
except Unavailable as exc:
    assert "No space left" in exc.message and exc.hint, exc
assert not os.listdir(store.paths.ingest)
with open(root + "/fill", "wb", buffering=0) as file:
    try:
        while file.write(b"x" * 4096):
            pass
    except OSError:
        pass
assert os.statvfs(root).f_bavail == 0
for attempt in (lambda: store.content.add(b"y" * 100000), lambda: store.snapshot(b"z" * 100000)):
    try:
        attempt()
    except (Unavailable, OSError):
        continue
    raise SystemExit("wrote on a full disk")
store.db.close()
store = Store(root + "/s")           # a new command, with no byte free
assert [one.name for one in store.containers.ls()] == ["web"]
store.containers.update(record.id, status="exited", exit_code=137)
assert store.containers.get("web").exit_code == 137
assert store.containers.remove(record.id)
store.images.remove("drop")
assert not os.path.exists(store.paths.reserve)
with open(root + "/fill", "ab", buffering=0) as file:
    try:
        while file.write(b"x"):
            pass
    except OSError:
        pass
store.images.remove("drop2")         # the index of images has no room but its own
collected = store.collect()
assert collected.bytes > 80000, collected.bytes
store.volumes.remove("v")
os.unlink(root + "/fill")
store.collect()
assert os.path.exists(store.paths.reserve)
assert store.images.resolve("keep").id == keep.id
index = json.load(open(store.paths.oci + "/index.json"))
names = [one["annotations"]["org.opencontainers.image.ref.name"] for one in index["manifests"]]
assert names == ["docker.io/library/keep:latest"]
store.image(b"new" * 1000, tag="new")
assert all(store.content.verify(one) for one in store.content.ls())
assert store.db.one("PRAGMA integrity_check") == ("ok",)
print("fine")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs in a mount namespace of its own")
def test_a_full_disk_loses_nothing_and_can_be_emptied(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=6m,mode=700 sampan-test "$1" && shift && exec "$@"'
    words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        mount,
        "sh",
        str(tmp_path),
        sys.executable,
        "-c",
        FULL_DISK,
        str(ROOT),
        str(tmp_path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr


def test_remove_tree_removes_what_is_deep_closed_and_linked(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("alive")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(canary)
    (tree / "closed").mkdir()
    (tree / "closed" / "in").mkdir()
    (tree / "closed" / "in" / "link").symlink_to(canary)
    (tree / "closed").chmod(0)
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = descriptors()
    files.remove_tree(str(tree))
    assert not tree.exists()
    assert (canary / "file").read_text() == "alive"
    assert descriptors() == before
    files.remove_tree(str(tree))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts in a mount namespace of its own")
def test_remove_tree_stops_at_a_mount_left_behind(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub" / "mnt").mkdir(parents=True)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("alive")
    code = "import sys; sys.path.append(sys.argv[1]); from sampan.store import files; files.remove_tree(sys.argv[2])"
    mount = 'mount --bind "$1/host" "$1/tree/sub/mnt" && exec "$2" -c "$3" "$4" "$1/tree"'
    words = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, code, str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode != 0 and "busy" in done.stderr
    assert (tmp_path / "host" / "file").read_text() == "alive"


def test_replace_is_atomic_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"two"):
        files.replace(str(path), data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / "dir").mkdir()
    with pytest.raises(OSError):
        files.replace(str(tmp_path / "dir"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["dir", "file"]


def test_the_layout_is_one(store: Store) -> None:
    store.image(b"layer", tag="app:1")
    layout = Path(store.paths.oci)
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for blob in (layout / "blobs/sha256").iterdir():
        assert digest.sha256_hex(blob.read_bytes()) == blob.name
