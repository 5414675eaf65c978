"""An image that is removed while it leaves the store leaves it whole, and what comes stays for whoever asked for it."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registrysupport import Registry, needs_registry

import sampan
from sampan.engine import pruning, pulling
from sampan.engine.events import Events
from sampan.errors import NotFound
from sampan.transfer.events import Event

NAMES = ["first", "second", "third"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sampan.Engine]:
    """A store with `going`: three layers of a mebibyte each, more than a pipe or a request holds."""
    (tmp_path / "context").mkdir()
    for name in NAMES:
        (tmp_path / "context" / name).write_bytes(os.urandom(1 << 20))
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\n" + "".join(f"COPY {name} /{name}\n" for name in NAMES))
    tmp_path.chmod(0o711)
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.build(str(tmp_path / "context"), tags=["going"])
    yield engine
    engine.close()


def remove(engine: sampan.Engine, *names: str) -> None:
    """Remove images, and all that nothing needs then, as another process does."""
    other = sampan.Engine(engine.store.paths.root)
    for name in names:
        other.images.remove(name)
    pruning.everything(other, pruning.Wanted(), all=True)
    other.close()


def once(work: Callable[[], None]) -> Callable[[Event], None]:
    """Listen to a transfer, and do something when its first part begins to move."""
    works = [work]

    def listen(event: Event) -> None:
        if event.kind in ("begin", "moving") and works:
            works.pop()()

    return listen


def everything_is_gone(engine: sampan.Engine) -> None:
    pruning.everything(engine, pruning.Wanted(), all=True)
    assert engine.store.content.ls() == [] and engine.store.snapshots.ls() == []
    assert engine.store.db.query("SELECT * FROM leases") == []


def test_a_save_that_has_begun_is_whole(store: sampan.Engine) -> None:
    read, write = os.pipe()
    saved: list[object] = []

    def save() -> None:
        try:
            saved.append(store.images.save(["going"], write))
        except BaseException as error:
            saved.append(error)
        finally:
            os.close(write)

    thread = threading.Thread(target=save)
    thread.start()
    data = os.read(read, 1)  # the rest waits for us
    remove(store, "going")
    with open(read, "rb") as rest:
        data += rest.read()
    thread.join()
    assert saved == [len(data)]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert len([one for one in archive.getnames() if one.startswith("blobs/sha256/")]) == 5
    everything_is_gone(store)


@needs_registry
def test_a_push_that_has_begun_is_whole(store: sampan.Engine, plain: Registry) -> None:
    name = f"{plain.host}/going:1"
    store.images.tag("going", name)
    store.images.push(name, listen=once(lambda: remove(store, "going", name)))
    assert not store.images.has(name)
    everything_is_gone(store)
    (pulled,) = store.images.pull(name)
    assert len(store.images.resolve(pulled.id).diff_ids) == 3
    store.images.remove(name)


def test_a_copy_to_a_layout_that_has_begun_is_whole(store: sampan.Engine, tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/layout:x"
    store.images.copy("going", place, listen=once(lambda: remove(store, "going")))
    assert not store.images.has("going")
    everything_is_gone(store)
    store.images.copy(place, "back")
    assert len(store.images.resolve("back").diff_ids) == 3
    store.images.remove("back")


def test_a_load_succeeds_though_its_images_are_removed_at_once(
    store: sampan.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.images.tag("going", "other")
    store.images.save(["going", "other"], str(tmp_path / "both.tar"))
    emit, works = Events.emit, [lambda: remove(store, "going", "other")]

    def interrupted(self: Events, kind: str, *words: Any) -> None:
        emit(self, kind, *words)
        if works:
            works.pop()()

    monkeypatch.setattr(Events, "emit", interrupted)
    assert store.images.load(str(tmp_path / "both.tar")) == ["Loaded image: going:latest", "Loaded image: other:latest"]
    assert not works
    everything_is_gone(store)


@needs_registry
def test_what_is_pulled_for_a_build_is_held_by_its_lease(store: sampan.Engine, plain: Registry) -> None:
    name = f"{plain.host}/base:1"
    store.images.tag("going", name)
    store.images.push(name)
    remove(store, "going", name)
    with store.store.leases.take("build") as lease:
        found = pulling.obtain(store, name, "missing", lease=lease)
        again = pulling.obtain(store, name, "always", lease=lease)
        assert found.id == again.id
        remove(store, name)
        assert all(map(store.store.snapshots.find, found.diff_ids))
        with pytest.raises(NotFound):
            store.images.resolve(name)
    everything_is_gone(store)
