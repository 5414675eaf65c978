"""Containers and volumes: one owner per name, found as in Docker, removed only when unused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from storekit import Spawn, Store, finish, killed

from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.store import names, owner
from sampan.store.containers import Record

BAD_NAMES = ["..", ".", "a/b", "x" * 4096, "a\0", "-a", "é", "a b", "_a", ".a", "\udcff"]


def test_a_record_survives_as_it_was(store: Store) -> None:
    made = store.image(b"l", tag="app")
    record = store.containers.new(
        "ab" * 32,
        name="web",
        image_id=made.id,
        image_reference="app",
        config={"spec": {"a": [1]}},
        auto_remove=True,
        labels={"k": "v"},
    )
    store.containers.insert(record)
    found = store.containers.get("web")
    for field in Record.__slots__:
        assert getattr(found, field) == getattr(record, field), field
    assert found.status == "created" and found.config == {"spec": {"a": [1]}} and found.auto_remove is True


def test_a_container_is_found_by_id_name_and_prefix_in_this_order(store: Store) -> None:
    one = store.containers.insert(Record("a1" + "0" * 62, name="web"))
    two = store.containers.insert(Record("a2" + "0" * 62, name="a1"))
    assert store.containers.get(one.id).id == one.id
    assert store.containers.get("a1").id == two.id
    assert store.containers.get("/web").id == one.id == store.containers.get("a10").id
    with pytest.raises(InvalidArgument, match="ambiguous"):
        store.containers.get("a")
    for text in ("", "nope", "b", "WEB", "a" * 65, "\udcff", "%"):
        with pytest.raises(NotFound):
            store.containers.get(text)
    assert {record.name for record in store.containers.ls()} == {"web", "a1"}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_everywhere(store: Store, name: str) -> None:
    store.container("web")
    for call in (
        lambda: store.container(name),
        lambda: store.containers.rename(store.containers.get("web").id, name),
        lambda: store.volumes.create(name),
        lambda: store.volumes.create(name).path,
    ):
        with pytest.raises(InvalidArgument):
            call()
    with pytest.raises(NotFound):
        store.volumes.remove(name)
    assert os.listdir(store.paths.volumes) == []


@pytest.mark.parametrize("container_id", ["", "abc", "A" * 64, "g" * 64, "../" + "a" * 61, "a" * 65])
def test_ids_are_64_hex_digits(store: Store, container_id: str) -> None:
    with pytest.raises(InvalidArgument):
        store.containers.insert(Record(container_id))


def test_a_name_that_is_taken_is_a_conflict_until_it_is_free(store: Store) -> None:
    first, second = store.container("web"), store.container("db")
    with pytest.raises(Conflict, match=f"container {first.id[:12]} has that name"):
        store.container("web")
    with pytest.raises(Conflict):
        store.containers.rename(second.id, "web")
    store.containers.rename(first.id, "www")
    store.containers.rename(second.id, "web")
    assert store.containers.get("web").id == second.id
    assert store.containers.remove(second.id)
    assert not store.containers.remove(second.id)
    store.container("web")


def test_containers_without_a_name_get_one_of_their_own(store: Store) -> None:
    given = {store.container().name for _ in range(200)}
    assert len(given) == 200
    assert all(names.check(name, "container") and "_" in name for name in given)


def test_a_random_name_is_found_when_nearly_all_are_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ADJECTIVES", ("calm",))
    monkeypatch.setattr(names, "_NOUNS", ("bay",))
    given = {store.container().name for _ in range(30)}
    assert "calm_bay" in given and len(given) == 30


def test_state_is_written_down_column_by_column(store: Store) -> None:
    record = store.container("web")
    store.containers.update(record.id, status="running", pid=5, pid_start=7, boot_id="b", started=9)
    store.containers.update(record.id, durable=False, status="exited", exit_code=137, oom=1, finished=10)
    found = store.containers.get("web")
    assert (found.status, found.pid, found.pid_start, found.boot_id) == ("exited", 5, 7, "b")
    assert (found.exit_code, found.oom, found.started, found.finished) == (137, 1, 9, 10)
    for wrong in ({"status": "flying"}, {"name": "x"}, {"config": 1}):
        with pytest.raises(InvalidArgument):
            store.containers.update(record.id, **wrong)
    with pytest.raises(NotFound):
        store.containers.update("f" * 64, status="exited")


def test_a_container_of_an_image_that_is_gone_is_not_made(store: Store) -> None:
    made = store.image(b"l", tag="app")
    store.images.remove("app")
    with pytest.raises(NotFound):
        store.container(image_id=made.id)


def test_of_a_hundred_that_want_one_name_one_gets_it(spawn: Spawn, store: Store) -> None:
    code = """
    from sampan.errors import Conflict
    won = 0
    for _ in range(20):
        try:
            store.container("web")
            won += 1
        except Conflict:
            continue
    print(won)
    """
    store.db.query("SELECT 1")
    assert sum(int(finish(process)) for process in [spawn(code) for _ in range(5)]) == 1
    assert [record.name for record in store.containers.ls()] == ["web"]


def test_inserts_of_several_processes_all_arrive(spawn: Spawn, store: Store) -> None:
    code = "for _ in range(25): store.containers.insert(store.containers.new(os.urandom(32).hex()), durable=False)"
    for process in [spawn(code) for _ in range(4)]:
        finish(process)
    assert len({record.name for record in store.containers.ls()}) == 100


def test_a_name_is_kept_by_an_acknowledged_create_of_a_killed_process(spawn: Spawn, store: Store) -> None:
    killed(spawn('store.container("web")\nprint("done", flush=True)\ntime.sleep(60)'), "done")
    with pytest.raises(Conflict):
        store.container("web")


def test_a_volume_is_a_directory_that_is_made_once(store: Store) -> None:
    path = store.volumes.create("data").path
    assert path == store.paths.volume_data("data") == store.volumes.create("data", labels={"a": "b"}).path
    assert os.path.isdir(path)
    found = store.volumes.get("data")
    assert (found.name, found.anonymous, found.labels) == ("data", False, {})
    anonymous = store.volumes.create()
    assert anonymous.anonymous and len(anonymous.name) == 64
    assert [volume.name for volume in store.volumes.ls()] == sorted(["data", anonymous.name])


def test_a_volume_that_lost_its_directory_gets_a_new_one(store: Store) -> None:
    os.rmdir(store.volumes.create("data").path)
    assert os.path.isdir(store.volumes.create("data").path)


def test_a_volume_in_use_is_not_removed(store: Store) -> None:
    path = store.volumes.create("data").path
    one = store.container("one", volumes=["data"])
    two = store.container("two", config={"spec": {"mounts": [{"source": path + "/sub"}, {"source": "/etc"}, {}]}})
    assert store.volumes.users("data") == ["one", "two"]
    for record in (one, two):
        with pytest.raises(Conflict):
            store.volumes.remove("data")
        store.containers.remove(record.id)
    store.volumes.remove("data")
    assert os.listdir(store.paths.volumes) == []
    with pytest.raises(NotFound):
        store.volumes.remove("data")


def test_a_new_volume_never_shows_what_an_old_one_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(store.volumes.create("data").path + "/secret", "w") as file:
        file.write("old")
    with monkeypatch.context() as patch:  # killed before the directory is emptied
        patch.setattr(store.volumes, "_remove_tree", lambda path: None)
        store.volumes.remove("data")
    assert os.listdir(store.volumes.create("data").path) == []
    store.collect()
    assert os.listdir(store.paths.volumes) == ["data"]


def test_prune_takes_anonymous_volumes_that_nobody_uses(store: Store) -> None:
    store.volumes.create("named")
    unused, used = store.volumes.create(), store.volumes.create()
    store.container("web", volumes=[used.name])
    assert store.volumes.prune() == [unused.name]
    assert store.volumes.prune(all=True) == ["named"]
    assert [volume.name for volume in store.volumes.ls()] == [used.name]


def test_an_ambiguous_prefix_lists_what_it_may_be(store: Store) -> None:
    for end, name in (("1", "first"), ("2", "second")):
        store.containers.insert(Record("ab" * 31 + "c" + end, name=name))
    with pytest.raises(InvalidArgument) as caught:
        store.containers.get("abab")
    assert "(first)" in caught.value.hint and "(second)" in caught.value.hint and "abababababab" in caught.value.hint


def test_a_mistyped_name_is_told_what_was_meant(store: Store) -> None:
    store.containers.insert(Record("ab" * 32, name="webserver"))
    with pytest.raises(NotFound) as caught:
        store.containers.get("websever")
    assert caught.value.hint == "did you mean webserver?"
    with pytest.raises(NotFound) as caught:
        store.containers.get("database")
    assert caught.value.hint == "`sampan ps -a` lists what there is"


class Cut(Exception):
    """What ends a command in the middle."""


def test_a_removal_that_was_cut_short_is_undone(store: Store) -> None:
    for undo in (lambda: store.volumes.create("data"), lambda: store.volumes.recover("data"), store.collect):
        Path(store.volumes.create("data").path, "kept").touch()
        with pytest.raises(Cut), store.db.transaction():
            store.volumes.forget("data")
            raise Cut
        assert [volume.name for volume in store.volumes.ls()] == ["data"]
        assert "data" not in os.listdir(store.paths.volumes)
        undo()
        assert os.listdir(store.volumes.create("data").path) == ["kept"]
        assert os.listdir(store.paths.volumes) == ["data"]


def test_what_killed_commands_left_of_volumes_is_collected(store: Store) -> None:
    store.volumes.create("data")
    half = f"{store.paths.volumes}/.new-{owner.boot_id()}.{owner.this_process().split('.')[1]}.4194303.1.abcd"
    living = f"{store.paths.volumes}/.new-{owner.this_process()}.abcd"
    for path in (store.paths.volume_data("made"), store.paths.volume("begun"), half + "/file", living):
        os.makedirs(path)
    Path(store.paths.volume_data("made")).chmod(0o755)
    os.makedirs(store.paths.volume_data("lost"))
    Path(store.paths.volume_data("lost"), "file").touch()  # perhaps the database lost it
    store.collect()
    assert set(os.listdir(store.paths.volumes)) == {"data", "lost", os.path.basename(living)}
