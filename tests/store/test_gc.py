"""Collection, leases and the build cache: what is in use stays, what is not goes, whatever the clock says."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
from storekit import Spawn, Store, finish, killed

from sampan.errors import InvalidArgument
from sampan.oci import digest
from sampan.store import buildcache, gc, leases, owner
from sampan.store.content import Content
from sampan.store.db import Database

LAYER = digest.of(b"layer")


def test_everything_that_something_refers_to_stays(store: Store) -> None:
    made = store.image(b"1", b"2", tag="app")
    cached = store.snapshot(b"cached")
    store.content.add(b"cached")
    store.cache.put("key", {"diff_id": cached}, [cached])
    assert store.collect().blobs == []
    assert store.snapshots.lowers([*made.diff_ids, cached])
    assert len(store.content.ls()) == 5


def test_what_nothing_refers_to_goes(store: Store) -> None:
    store.content.add(b"blob")
    store.snapshot(b"layer")
    done = store.collect()
    assert (done.blobs, done.snapshots, done.bytes) == ([digest.of(b"blob")], [LAYER], 4 + 5)
    assert store.collect().bytes == 0


def test_a_blob_goes_when_the_row_of_its_layer_is_durably_gone(store: Store) -> None:
    """Steps are forgotten without a sync: a power cut must not bring one back that has its layer and no blob."""
    told: list[bool] = []

    class Watched(Content):
        def delete(self, digest: str) -> int:
            beside = Database(store.paths)
            told.append(beside.one("SELECT 1 FROM snapshots WHERE diff_id = ?", (digest,)) is None)
            beside.close()
            return super().delete(digest)

    cached = store.snapshot(b"cached")
    store.content.add(b"cached")
    store.cache.put("key", {"diff_id": cached}, [cached])
    store.cache.prune()
    gc.collect(store.db, Watched(store.paths), store.paths)
    assert told == [True]


def test_layers_shared_with_another_image_stay(store: Store) -> None:
    store.image(b"shared", b"own", tag="a")
    kept = store.image(b"shared", b"other", tag="b")
    store.images.remove("a")
    assert store.collect().snapshots == [digest.of(b"own")]
    assert len(store.snapshots.lowers(kept.diff_ids)) == 2


def test_content_under_a_lease_stays_until_the_lease_ends(store: Store) -> None:
    with store.leases.take("build") as lease:
        blob = store.content.add(b"blob", lease=lease)
        store.snapshot(b"layer", lease=lease)
        store.collect()
        assert store.content.has(blob) and store.snapshots.find(LAYER)
    store.collect()
    assert not store.content.has(blob) and store.snapshots.find(LAYER) is None


def test_a_lease_ends_with_its_process(spawn: Spawn, store: Store) -> None:
    process = spawn("""
    lease = store.leases.take("build")
    store.content.add(b"blob", lease=lease)
    active = store.snapshots.prepare()
    ingest = store.content.ingest()
    print("ready", flush=True)
    time.sleep(60)
    """)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    store.collect()
    assert store.content.has(digest.of(b"blob"))
    assert len(os.listdir(store.paths.active)) == len(os.listdir(store.paths.ingest)) == 1
    killed(process)
    done = store.collect()
    assert done.blobs == [digest.of(b"blob")] and len(done.leftovers) == 2
    assert os.listdir(store.paths.active) == os.listdir(store.paths.ingest) == []
    assert store.db.query("SELECT * FROM leases") == store.db.query("SELECT * FROM lease_items") == []


@pytest.mark.parametrize("years", [-10, 10])
def test_clocks_that_jump_neither_end_a_live_lease_nor_keep_a_dead_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    live = store.leases.take("build")
    live.hold(LAYER)
    shift = years * 365 * 86400
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + shift * 10**9)
    store.collect()
    assert store.leases.held() == {LAYER}
    with store.db.transaction():
        store.db.execute("UPDATE leases SET owner = ?", (owner.this_process().rsplit(".", 2)[0] + ".1.1",))
    store.collect()
    assert store.leases.held() == set()


def test_a_lease_that_cannot_be_seen_expires_and_one_of_another_boot_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = f"{owner.boot_id()}.1.4242.1"
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    assert leases.is_live(foreign, owner.boot_id(), now + 100)
    assert not leases.is_live(foreign, owner.boot_id(), now - 100)
    assert leases.is_live(owner.this_process(), owner.boot_id(), now - 100)
    assert not leases.is_live(owner.this_process(), "0" * 32, now + 100)


def test_owners_are_told_apart_by_start_time_and_boot() -> None:
    mine = owner.this_process()
    boot, namespace, pid, start = mine.split(".")
    assert owner.is_alive(mine)
    for other in (f"{boot}.{namespace}.{pid}.{int(start) + 1}", f"{'0' * 32}.{namespace}.{pid}.{start}", "", "a.b.c.d"):
        assert not owner.is_alive(other)


def test_directories_of_containers_that_are_gone_are_removed(store: Store) -> None:
    """One that is being started has no record yet: it is locked, or so new that it is about to be."""
    record = store.container("web")
    fresh, held, gone = "a" * 64, "b" * 64, "f" * 64
    for name in (record.id, fresh, held, gone, "other"):
        os.makedirs(store.paths.containers + f"/{name}/upper")
        if name != fresh:
            os.utime(store.paths.containers + f"/{name}", (1, 1))
    lock = os.open(f"{store.paths.containers}/{held}", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    store.collect()
    assert sorted(os.listdir(store.paths.containers)) == sorted([record.id, fresh, held, "other"])
    os.close(lock)
    store.collect()
    assert sorted(os.listdir(store.paths.containers)) == sorted([record.id, fresh, "other"])


def test_collections_among_builds_take_nothing_from_them(spawn: Spawn, store: Store) -> None:
    build = """
    me = sys.argv[4].encode()
    for n in range(25):
        with store.leases.take("build") as lease:
            layers = [b"base", b"step %d" % n, me + b" %d" % n]
            from sampan.oci import digest, image
            ids = []
            for layer in layers:
                ids.append(store.content.add(layer, lease=lease))
                store.snapshot(layer, lease=lease, durable=False)
            config = image.build_config({"architecture": "a", "os": "linux", "config": {"Env": [f"N={n}"]},
                                         "rootfs": {"type": "layers", "diff_ids": ids}})
            parts = [image.descriptor(image.OCI_LAYER, one, len(layer)) for one, layer in zip(ids, layers)]
            about = image.descriptor(image.OCI_CONFIG, store.content.add(config, lease=lease), len(config))
            made = store.images.put(store.content.add(image.build_manifest(about, parts), lease=lease))
            store.images.tag("app" + sys.argv[4], made.manifest_digest)
        store.images.prune()
    """
    collect = "for _ in range(40): store.collect()"
    for process in [*(spawn(build, str(number)) for number in range(3)), spawn(collect), spawn(collect)]:
        finish(process)
    for number in range(3):
        found = store.images.resolve(f"app{number}")
        assert len(store.snapshots.lowers(found.diff_ids)) == 3
        assert all(store.content.verify(blob) for blob in (*found.diff_ids, found.id, found.manifest_digest))


def test_the_build_cache_gives_back_what_was_put(store: Store) -> None:
    assert store.cache.get("key") is None
    store.cache.put("key", {"diff_id": LAYER, "size": 5}, [LAYER])
    assert store.cache.get("key") == {"diff_id": LAYER, "size": 5}
    store.cache.put("key", "other")
    store.cache.put("second", None)
    assert [(key, result) for key, result, _, _ in store.cache.ls()] == [("key", "other"), ("second", None)]
    store.cache.remove("key")
    assert store.cache.get("key") is None
    with pytest.raises(InvalidArgument):
        store.cache.put("key", 1, ["no digest"])


def test_the_last_use_is_kept_to_the_hour_and_prune_goes_by_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    store.cache.put("old", 1)
    store.cache.put("used", 1)
    monkeypatch.setattr(time, "time_ns", lambda: real() + 7200 * 10**9)
    assert store.cache.get("used") == 1
    assert store.cache.prune(unused_for=3600) == 1
    assert [row[0] for row in store.cache.ls()] == ["used"]
    assert store.cache.prune() == 1
    assert store.cache.ls() == []


def rest(path: Path) -> os.stat_result:
    """Make a file look as if nothing had touched it for a while; its ctime cannot be set, so wait for that."""
    os.utime(path, (1, 1))
    return os.stat(path)


def context(store: Store, directory: Path, *, later: float = 0, than: int = 0) -> buildcache.ContextCache:
    """A cache whose hashing began so many seconds later than now, or than a time in unix ns."""
    found = store.cache.context(str(directory))
    found._began = (than or found._began) + int(later * 10**9)
    return found


def test_a_file_at_rest_is_not_hashed_again_and_a_changed_one_is(store: Store, tmp_path: Path) -> None:
    store.paths.make()
    directory = tmp_path / "context"
    directory.mkdir()
    path = directory / "file"
    path.write_text("x")
    state = rest(path)
    first = context(store, directory, later=10)
    assert first.get("file", state) is None
    first.put("file", state, LAYER)
    first.put("dir/\udcff", state, LAYER)
    first.save()
    again = context(store, directory)
    assert again.get("file", state) == LAYER == again.get("dir/\udcff", state)
    again.save()
    for change in (lambda: path.write_text("yy"), lambda: path.chmod(0o600), lambda: os.utime(path, (5, 5))):
        change()
        assert context(store, directory).get("file", os.stat(path)) is None
        path.write_text("x")
    assert context(store, tmp_path).get("file", state) is None


def test_a_file_that_was_fresh_when_it_was_hashed_is_hashed_again(store: Store, tmp_path: Path) -> None:
    store.paths.make()
    path = tmp_path / "file"
    path.write_text("x")
    state = os.stat(path)
    found = context(store, tmp_path, later=1, than=state.st_ctime_ns)
    found.put("file", state, LAYER)
    found.save()
    racy = context(store, tmp_path, later=10)
    assert racy.get("file", state) is None
    racy.put("other", rest(path), LAYER)  # saving later must not make the racy entry trusted
    racy.save()
    assert context(store, tmp_path).get("file", state) is None


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_torn_cache_file_counts_as_empty(store: Store, tmp_path: Path, damage: bytes | None) -> None:
    store.paths.make()
    path = tmp_path / "file"
    path.write_text("x")
    found = context(store, tmp_path, later=10)
    found.put("file", rest(path), LAYER)
    found.save()
    (name,) = os.listdir(store.paths.cache)
    stored = Path(store.paths.cache, name)
    data = stored.read_bytes()
    stored.write_bytes(data[:-3] + b"\0\0\0" if damage is None else damage)
    assert context(store, tmp_path).get("file", os.stat(path)) is None


def test_times_that_no_table_holds_are_not_kept(store: Store, tmp_path: Path) -> None:
    store.paths.make()
    strange = os.stat_result((0o100644, 1 << 64, 1, 1, 0, 0, 5, 0, 0, 0), {"st_mtime_ns": 0, "st_ctime_ns": 0})
    found = context(store, tmp_path)
    found.put("file", strange, LAYER)
    found.put("a\0b", os.stat(tmp_path), LAYER)
    found.save()
    assert os.listdir(store.paths.cache) == []
