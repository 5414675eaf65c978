"""Images: recorded whole, named, resolved as in Docker, removed only when nothing uses them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from storekit import Interrupted, Spawn, Store, finish

from sampan.errors import Conflict, IntegrityError, InvalidArgument, NotFound
from sampan.oci import digest, image
from sampan.store import salvage


def index(store: Store) -> dict[str, str]:
    """Return what index.json says: reference to manifest digest."""
    document = json.loads(Path(store.paths.oci, "index.json").read_text())
    return {entry.get("annotations", {}).get(image.REF_NAME, ""): entry["digest"] for entry in document["manifests"]}


def test_an_image_is_resolved_by_every_name_it_has(store: Store) -> None:
    made = store.image(b"layer", tag="app:1", Env=["A=b"])
    store.images.tag("example.com/app", made.manifest_digest)
    for text in (
        *("app:1", "docker.io/library/app:1", "example.com/app", made.id, made.short_id, made.id[7:], made.id[7:10]),
        *(
            made.manifest_digest,
            f"app@{made.manifest_digest}",
            f"app:1@{made.manifest_digest}",
            "sha256:" + made.id[7:13],
        ),
    ):
        found = store.images.resolve(text)
        assert (found.id, found.manifest_digest) == (made.id, made.manifest_digest), text
    assert found.references == ["docker.io/library/app:1", "example.com/app:latest"]
    assert found.config["config"] == {"Env": ["A=b"]}
    assert found.diff_ids == [digest.of(b"layer")]


def test_whoever_is_let_into_the_layout_reads_all_of_it(store: Store) -> None:
    store.image(b"layer", tag="app:1")
    top = Path(store.paths.oci)
    files = [top / "index.json", top / "oci-layout", *(top / "blobs/sha256").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644} and top.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text", ["other", "app:2", "", "g" * 12, "sha256:", "../x", "App", "\udcff", "app:2@{}", "other@{}"]
)
def test_what_names_no_image_is_not_found(store: Store, text: str) -> None:
    made = store.image(b"layer", tag="app:1")
    with pytest.raises(NotFound):
        store.images.resolve(text.format(made.manifest_digest))


def test_a_prefix_of_several_ids_is_ambiguous(store: Store) -> None:
    first: dict[str, str] = {}
    for number in range(40):
        made = store.image(b"layer", unpack=number == 0, Env=[f"A={number}"])
        twin = first.setdefault(made.id[7], made.id)
        if twin != made.id:
            with pytest.raises(InvalidArgument, match="ambiguous"):
                store.images.resolve(made.id[7])
            return
    pytest.fail("no two ids of 40 begin alike")


def test_a_reference_wins_over_the_prefix_of_an_id(store: Store) -> None:
    other, made = store.image(b"a"), store.image(b"b")
    prefix = other.id[7:11]
    store.images.tag(prefix, made.manifest_digest)
    assert store.images.resolve(prefix).id == made.id


def test_only_an_image_that_is_here_as_a_whole_is_recorded(store: Store) -> None:
    config = image.build_config(
        {"architecture": "a", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest.of(b"l")]}}
    )
    descriptors = (
        image.descriptor(image.OCI_CONFIG, digest.of(config), len(config)),
        image.descriptor(image.OCI_LAYER, digest.of(b"l"), 1),
    )
    manifest = store.content.add(image.build_manifest(descriptors[0], [descriptors[1]]))
    with pytest.raises(NotFound):
        store.images.put(manifest)
    store.content.add(config)
    with pytest.raises(NotFound):
        store.images.put(manifest)
    with pytest.raises(NotFound):
        store.images.tag("app", manifest)
    assert store.images.ls() == []
    store.snapshot(b"l")  # unpacked is enough
    assert store.images.put(manifest).id == digest.of(config)


def test_a_manifest_with_other_layers_than_its_config_is_refused(store: Store) -> None:
    config = image.build_config({"architecture": "a", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    store.content.add(config)
    layer = image.descriptor(image.OCI_LAYER, store.content.add(b"l"), 1)
    manifest = image.build_manifest(image.descriptor(image.OCI_CONFIG, digest.of(config), len(config)), [layer])
    with pytest.raises(IntegrityError):
        store.images.put(store.content.add(manifest))
    assert store.images.ls() == []


def test_a_tag_that_moves_tells_what_it_named_and_leaves_it_dangling(store: Store) -> None:
    old, new = store.image(b"old", tag="app"), store.image(b"new")
    assert store.images.tag("app", new.manifest_digest) == old.manifest_digest
    assert store.images.tag("app", new.manifest_digest) == new.manifest_digest
    assert [one.id for one in store.images.dangling()] == [old.id]
    assert store.images.resolve("app").id == new.id
    assert store.images.resolve(old.id).references == []
    assert {one.id for one in store.images.ls()} == {old.id, new.id}


def test_the_first_image_is_in_the_index_once_it_is_recorded(store: Store) -> None:
    """Else a power cut in between, or a check beside, would find an index and a database that knows nothing."""
    other = Store(store.paths.root)
    one, two = store.image(b"1"), store.image(b"2")
    store.images.prune()
    assert salvage.lost(other.db, other.paths) == []
    Path(store.paths.oci, "index.json").unlink()
    with store.db.transaction():
        for image, name in ((one, "a"), (two, "b")):
            store.images.put(image.manifest_digest)
            store.images.tag(name, image.manifest_digest)
        assert salvage.lost(other.db, other.paths) == [] and index(store) == {}
    assert index(store) == {
        "docker.io/library/a:latest": one.manifest_digest,
        "docker.io/library/b:latest": two.manifest_digest,
    }
    with pytest.raises(KeyError), store.db.transaction():
        store.images.tag("c", two.manifest_digest)
        raise KeyError
    store.images.tag("d", two.manifest_digest)
    assert sorted(index(store)) == [f"docker.io/library/{name}:latest" for name in "abd"]
    other.db.close()


def test_an_image_that_comes_while_one_looks_for_a_lost_database(store: Store) -> None:
    gone = store.image(b"one", tag="app:1")
    store.images.remove("app:1")
    db = Interrupted(store.paths, "SELECT 1 FROM images UNION", lambda: store.image(b"one", tag="app:1"))
    assert salvage.lost(db, store.paths) == []
    assert store.images.resolve("app:1").id == gone.id
    db.close()


def test_a_container_that_a_removal_left_is_told_from_one_whose_database_was_lost(store: Store) -> None:
    """Records are synced, the removing of files is not: on some file systems (btrfs) all of it may be undone."""
    store.image(b"1", tag="a")
    Path(store.paths.containers, "c" * 64).mkdir()
    store.images.remove("a")
    assert salvage.lost(store.db, store.paths) == []
    Path(store.paths.oci, "index.json").unlink()
    assert "1 containers in" in salvage.lost(store.db, store.paths)[0]


def test_what_a_transaction_that_failed_was_to_be_followed_by_is_not_done(store: Store) -> None:
    done: list[str] = []
    with pytest.raises(KeyError), store.db.transaction():
        store.db.afterwards(lambda: done.append("failed"))
        raise KeyError
    with store.db.transaction():
        store.db.afterwards(lambda: done.append("committed"))
        with store.db.transaction():
            assert done == []
        assert done == []
    assert done == ["committed"]


def test_the_index_of_the_layout_follows_the_references(store: Store) -> None:
    first, second = store.image(b"1", tag="a"), store.image(b"2", tag="b:x")
    assert index(store) == {
        "docker.io/library/a:latest": first.manifest_digest,
        "docker.io/library/b:x": second.manifest_digest,
    }
    store.images.tag("b:x", first.manifest_digest)
    assert index(store) == {
        "docker.io/library/a:latest": first.manifest_digest,
        "docker.io/library/b:x": first.manifest_digest,
        "": second.manifest_digest,
    }
    store.images.remove(second.id)
    store.images.remove("a")
    store.images.remove("b:x")
    assert index(store) == {}


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_the_layout_in_place(store: Store) -> None:
    made = store.image(b"\0" * 1024, tag="registry.example:5000/a/b:1.0", Env=["A=b"])
    where = f"oci:{store.paths.oci}:registry.example:5000/a/b:1.0"
    done = subprocess.run(["skopeo", "inspect", where], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Digest"] == made.manifest_digest


def test_removing_a_tag_keeps_an_image_that_has_another(store: Store) -> None:
    made = store.image(b"layer", tag="a")
    store.images.tag("b", made.manifest_digest)
    with pytest.raises(Conflict, match="2 references"):
        store.images.remove(made.short_id)
    assert store.images.remove("a") == (["docker.io/library/a:latest"], "")
    store.collect()
    assert store.images.resolve("b").id == made.id
    assert store.images.remove("b") == (["docker.io/library/b:latest"], made.id)
    with pytest.raises(NotFound):
        store.images.resolve(made.id)
    done = store.collect()
    assert len(done.blobs) == 3 and done.snapshots == [digest.of(b"layer")]
    assert store.content.ls() == []
    assert store.snapshots.find(digest.of(b"layer")) is None


def test_a_name_with_a_digest_is_removed_alone(store: Store) -> None:
    made = store.image(b"layer", tag="app:1")
    at = f"docker.io/library/app@{made.manifest_digest}"
    other = f"other.example/app@{made.manifest_digest}"
    for name in ("other.example/app:1", at, other):
        store.images.tag(name, made.manifest_digest)
    assert store.images.remove(at) == ([at], "")
    assert store.images.resolve("app:1").digests == [other]
    assert store.images.remove(f"app:1@{made.manifest_digest}") == (["docker.io/library/app:1"], "")
    assert store.images.remove(other) == ([other], "")
    assert store.images.remove("other.example/app:1") == (["other.example/app:1"], made.id)
    made = store.image(b"layer")
    store.images.tag(at, made.manifest_digest)
    store.images.tag(other, made.manifest_digest)
    assert store.images.remove(at) == ([at], "") and store.images.resolve(other).id == made.id
    assert store.images.remove(other) == ([other], made.id)


def test_an_image_in_use_is_not_removed_and_force_only_takes_its_name(store: Store) -> None:
    made = store.image(b"layer", tag="app")
    record = store.container("web", image_id=made.id, image_reference="app")
    with pytest.raises(Conflict, match="container web uses it"):
        store.images.remove("app")
    assert store.images.remove("app", force=True) == (["docker.io/library/app:latest"], "")
    assert store.images.dangling() == []
    store.collect()
    assert store.snapshots.lowers(made.diff_ids)
    store.containers.remove(record.id)
    assert store.images.remove(made.id) == ([], made.id)
    store.collect()
    assert store.content.ls() == []


def test_removing_by_id_with_force_takes_all_names(store: Store) -> None:
    made = store.image(b"layer", tag="a")
    store.images.tag("b", made.manifest_digest)
    assert store.images.remove(made.id, force=True)[1] == made.id
    assert store.images.ls() == []


def test_two_compressions_of_one_image_are_one_image(store: Store) -> None:
    made = store.image(b"layer", tag="a")
    manifest = image.parse_manifest(store.content.read(made.manifest_digest))
    packed = image.descriptor(image.OCI_LAYER_GZIP, store.content.add(b"packed"), 6)
    other = store.images.put(store.content.add(image.build_manifest(manifest["config"], [packed])))
    store.images.tag("b", other.manifest_digest)
    assert other.id == made.id and other.manifest_digest != made.manifest_digest
    (one,) = store.images.ls()
    assert one.references == ["docker.io/library/a:latest", "docker.io/library/b:latest"]
    assert store.images.resolve("a").manifest_digest == made.manifest_digest


def test_the_size_is_that_of_the_unpacked_layers(store: Store) -> None:
    assert store.image(b"12345", b"123").size == 8


def test_many_processes_tag_and_remove_at_once(spawn: Spawn, store: Store) -> None:
    code = """
    me = sys.argv[4]
    for number in range(15):
        made = store.image(b"shared", b"layer " + me.encode(), tag=f"app{me}:{number}", Env=[f"N={number}"])
        store.images.tag("same", made.manifest_digest)
        if number % 3:
            store.images.remove(f"app{me}:{number}")
            store.collect()
    """
    for process in [spawn(code, str(number)) for number in range(4)]:
        finish(process)
    names = index(store)
    assert {name for name in names if name} == {name for one in store.images.ls() for name in one.references}
    for one in store.images.ls():
        assert all(store.content.verify(blob) for blob in (one.id, one.manifest_digest, *one.diff_ids))
        assert len(store.snapshots.lowers(one.diff_ids)) == 2


def test_prune_takes_dangling_images_and_all_unused_ones_when_asked(store: Store) -> None:
    dangling, tagged, used = store.image(b"1"), store.image(b"2", tag="b"), store.image(b"3", tag="c")
    store.container("web", image_id=used.id)
    with store.leases.take("build") as lease:
        lease.hold(dangling.manifest_digest)
        assert store.images.prune() == []
    assert [one.id for one in store.images.prune()] == [dangling.id]
    assert [one.id for one in store.images.prune(all=True)] == [tagged.id]
    assert list(index(store).values()) == [used.manifest_digest]
