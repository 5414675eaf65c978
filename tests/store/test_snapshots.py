"""Snapshots: one directory per layer, whole or absent, through kill -9 and reboots."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from storekit import Interrupted, Spawn, Store, finish, killed

from sampan.errors import InvalidArgument, NotFound, Unavailable
from sampan.oci import digest
from sampan.store import files, owner
from sampan.store.snapshots import Snapshots


def content(store: Store, layer: bytes) -> bytes:
    return Path(store.snapshots.path(digest.of(layer)), "file").read_bytes()


def test_what_is_committed_is_found_by_its_layer(store: Store) -> None:
    active = store.snapshots.prepare()
    assert stat.S_IMODE(os.stat(active.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(active.upper).st_mode) == 0o755
    Path(active.upper, "file").write_bytes(b"x")
    name = store.snapshots.commit(active, digest.of(b"l"), size=5)
    assert store.snapshots.find(digest.of(b"l")) == name == "1"
    assert content(store, b"l") == b"x"
    assert store.snapshots.ls() == [(digest.of(b"l"), "1", 5)]
    assert os.listdir(store.paths.active) == []


def test_a_layer_that_is_here_already_stays_and_the_new_one_is_dropped(store: Store) -> None:
    store.snapshot(b"l")
    active = store.snapshots.prepare()
    Path(active.upper, "file").write_bytes(b"other")
    assert store.snapshots.commit(active, digest.of(b"l")) == "1"
    assert content(store, b"l") == b"l"
    assert os.listdir(store.paths.active) == []


def test_lowers_are_top_first_without_repetition(store: Store) -> None:
    one, two, three = (store.snapshot(layer) for layer in (b"1", b"2", b"3"))
    assert store.snapshots.lowers([one, two, three]) == ["3", "2", "1"]
    assert store.snapshots.lowers([one, two, one]) == ["1", "2"]
    assert store.snapshots.lowers([]) == []
    with pytest.raises(NotFound):
        store.snapshots.lowers([one, digest.of(b"none")])


def test_an_aborted_snapshot_leaves_nothing_and_a_wrong_diff_id_commits_nothing(store: Store) -> None:
    store.snapshots.abort(store.snapshots.prepare())
    active = store.snapshots.prepare()
    with pytest.raises(InvalidArgument):
        store.snapshots.commit(active, "nonsense")
    store.snapshots.abort(active)
    assert os.listdir(store.paths.active) == []
    assert store.snapshots.ls() == []


def test_a_removed_number_is_never_given_again(store: Store) -> None:
    store.snapshot(b"1")
    store.snapshots.remove(digest.of(b"1"))
    store.snapshots.remove(digest.of(b"1"))
    store.snapshot(b"2")
    assert store.snapshots.find(digest.of(b"2")) == "2"
    assert not os.path.exists(store.paths.snapshot("1"))


def test_the_file_system_is_synced_before_the_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def sync(path: str) -> None:
        calls.append(path)
        assert store.snapshots.ls() == []

    monkeypatch.setattr(files, "sync_filesystem", sync)
    store.snapshot(b"l")
    assert len(calls) == 1


def test_an_unsealed_snapshot_is_lost_with_its_boot_and_a_sealed_one_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.image(b"sealed")  # recording the image seals
    store.snapshot(b"later", durable=False)
    unsealed = store.image(b"by image", unpack=False)
    store.snapshots.remove(unsealed.diff_ids[0])
    store.snapshot(b"by image", durable=False)
    store.images.put(unsealed.manifest_digest)
    assert store.snapshots.find(digest.of(b"later"))
    monkeypatch.setattr(owner, "_boot", "f" * 32)
    assert store.snapshots.find(digest.of(b"later")) is None
    assert store.snapshots.lowers([*made.diff_ids, *unsealed.diff_ids])
    with pytest.raises(NotFound):
        store.snapshots.lowers([digest.of(b"later")])
    store.snapshot(b"later")  # made again
    assert content(store, b"later") == b"later"
    store.collect()
    assert content(store, b"sealed") == b"sealed"


def test_processes_that_commit_the_same_layers_agree(spawn: Spawn, store: Store) -> None:
    code = "for n in range(20): store.snapshot(b'same %d' % n, durable=False)"
    for process in [spawn(code) for _ in range(4)]:
        finish(process)
    assert len(store.snapshots.ls()) == 20
    assert all(content(store, b"same %d" % n) == b"same %d" % n for n in range(20))
    assert os.listdir(store.paths.active) == []


def test_kill_in_the_middle_of_commits_leaves_whole_snapshots_only(spawn: Spawn, store: Store) -> None:
    code = """
    print("begun", flush=True)
    n = 0
    while True:
        n += 1
        store.snapshot(b"%d-%d" % (os.getpid(), n), durable=False)
    """
    for attempt in range(6):
        killed(spawn(code), "begun", 0.01 * attempt)
    store.collect()  # these layers belong to no image
    assert store.snapshots.ls() == []
    assert sorted(os.listdir(store.paths.snapshots)) == [".active", ".used"]
    assert os.listdir(store.paths.active) == []
    store.snapshot(b"after")
    assert content(store, b"after") == b"after"


def test_a_directory_from_before_a_crash_does_not_become_a_snapshot(store: Store) -> None:
    store.snapshot(b"1")
    os.makedirs(store.paths.snapshot("2") + "/old")  # renamed, then the row was lost
    store.snapshot(b"2")
    assert os.listdir(store.paths.snapshot("2")) == ["file"]
    os.makedirs(store.paths.snapshot("3"))
    os.makedirs(store.paths.snapshots + "/empty")
    store.image(b"1", b"2", unpack=False)
    store.collect()
    assert sorted(os.listdir(store.paths.snapshots)) == [".active", ".used", "1", "2", "empty"]


def test_layers_in_use_stay_until_they_are_let_go(store: Store) -> None:
    used, other = store.snapshot(b"used"), store.snapshot(b"other")
    path = store.snapshots.path(used)
    with store.snapshots.use([used]) as first, store.snapshots.use([used, other]) as second:
        assert first.lowers == second.lowers[1:]
        assert store.collect().snapshots == []
        second.close()
        assert store.collect().snapshots == [other]
    assert os.path.isdir(path)
    assert store.collect().snapshots == [used] and not os.path.exists(path)


def test_layers_in_use_are_let_go_by_a_process_that_is_killed(store: Store, spawn: Spawn) -> None:
    used = store.snapshot(b"used")
    process = spawn("use = store.snapshots.use([sys.argv[4]]); print('used', flush=True); time.sleep(1000)", used)
    assert process.stdout is not None and process.stdout.readline() == "used\n"
    assert store.collect().snapshots == []
    process.kill()
    process.wait()
    assert store.collect().snapshots == [used]


def test_a_layer_that_a_collector_takes_first_cannot_be_used(store: Store) -> None:
    layer = store.snapshot(b"layer")
    db = Interrupted(store.paths, "SELECT diff_id, id FROM snapshots WHERE diff_id IN", store.collect)
    with pytest.raises(NotFound):
        Snapshots(db, store.paths).use([layer])
    db.close()


def test_on_a_full_disk_what_nobody_can_use_is_collected(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, real = store.snapshot(b"layer"), os.open

    def full(path: str, flags: int, *more: Any, **words: Any) -> int:
        if path == store.paths.used:
            raise OSError(errno.ENOSPC, "full", path)
        return real(path, flags, *more, **words)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(Unavailable):
        store.snapshots.use([layer])
    assert store.collect().snapshots == [layer]
