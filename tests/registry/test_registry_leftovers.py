"""What is left of a pull that did not come to its end, or was damaged since: the next one uses or replaces it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import transfersupport as ts
from lyingregistry import Answer, LyingRegistry
from lyingsupport import DIGEST, LAYER, of_layer, pulled

import sampan
from sampan.errors import SampanError
from sampan.store import gc

ROOT = Path(__file__).parent.parent.parent


def test_what_arrived_is_used_by_the_next_pull(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.hook = lambda request: (
        (Answer(404) if request.count else Answer(200, {}, iter([LAYER[:700_000]]), length=len(LAYER), close=True))
        if of_layer(request)
        else None
    )
    with pytest.raises(SampanError):
        engine.images.pull(f"{registry.host}/app:1")
    (kept,) = os.listdir(engine.store.paths.ingest)
    assert os.stat(f"{engine.store.paths.ingest}/{kept}").st_size == 700_000
    gc.collect(engine.store.db, engine.store.content, engine.store.paths)  # which leaves it
    registry.hook = lambda request: None
    registry.served = 0
    assert pulled(registry, engine)["noise"]
    assert registry.served < len(LAYER) - 700_000 + 10_000
    assert registry.asked(DIGEST)[-1].headers["Range"] == "bytes=700000-"


def test_what_arrived_but_is_damaged_is_fetched_again(registry: LyingRegistry, engine: sampan.Engine) -> None:
    partial = f"{engine.store.paths.ingest}/partial-{DIGEST[7:]}"
    Path(partial).write_bytes(b"\0" * 700_000)  # as a power cut may leave it
    assert pulled(registry, engine)["noise"]
    assert registry.asked(DIGEST)[-1].offset == 0


def spoilt(engine: sampan.Engine, digest: str, change: Callable[[bytes], bytes]) -> None:
    path = Path(engine.store.paths.blob(digest))
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_layer_whose_blob_is_damaged_here_is_fetched_again(
    registry: LyingRegistry, engine: sampan.Engine, zipped: bool
) -> None:
    """Its unpacked files are gone, so a pull unpacks what lies here, and finds out."""
    document, blob = registry.image([LAYER]), LAYER
    if zipped:
        blob = gzip.compress(LAYER)
        (layer,) = document["layers"]
        layer |= {"mediaType": ts.LAYER + "+gzip", "digest": registry.blob(blob), "size": len(blob)}
    registry.manifest("app", "1", document)
    assert pulled(registry, engine)["noise"]
    digest = ts.digest(blob)
    for change in (lambda data: data[:5000] + bytes(100) + data[5100:], bytes, lambda data: data[:-1]):
        engine.store.snapshots.remove(ts.digest(LAYER))
        spoilt(engine, digest, change)
        before = len(registry.asked(digest))
        assert pulled(registry, engine)["noise"]
        assert engine.store.content.verify(digest)
        fetched = len(registry.asked(digest)) - before
        assert fetched == (0 if change is bytes else 1)  # what is intact is unpacked from here


def test_what_became_shorter_here_is_fetched_again(registry: LyingRegistry, engine: sampan.Engine) -> None:
    """A blob without its end shows by its size alone; a manifest and a config are compared with their digests."""
    assert pulled(registry, engine)["noise"]
    image = engine.images.resolve(f"{registry.host}/app:1")
    for digest in engine.store.images.blobs(image):
        spoilt(engine, digest, lambda data: data[:-1])
        engine.images.pull(f"{registry.host}/app:1")
        assert engine.store.content.verify(digest)
    for digest in (image.manifest_digest, image.id):
        spoilt(engine, digest, lambda data: b"[" + data[1:])
        engine.images.pull(f"{registry.host}/app:1")
        assert engine.store.content.verify(digest)


def test_the_collector_takes_what_nobody_came_back_for(engine: sampan.Engine) -> None:
    store = engine.store
    paths = [f"{store.paths.ingest}/partial-{letter * 64}" for letter in "abc"]
    for path in paths:
        Path(path).write_bytes(b"x")
    os.utime(paths[0], (0, 0))
    gc.collect(store.db, store.content, store.paths)
    assert [os.path.exists(path) for path in paths] == [False, True, True]
    gc.collect(store.db, store.content, store.paths, partials_too=True)
    assert os.listdir(store.paths.ingest) == []


def test_a_pull_removes_what_a_killed_one_had_unpacked(registry: LyingRegistry, engine: sampan.Engine) -> None:
    from sampan.store import owner

    dead = f"{owner.boot_id()}.{os.stat('/proc/self/ns/pid').st_ino}.4194305.1.abcd"
    left = Path(engine.store.paths.active) / dead
    (left / "upper").mkdir(parents=True)
    (Path(engine.store.paths.ingest) / dead).write_bytes(b"x")
    assert pulled(registry, engine)["noise"]
    assert not left.exists()


def test_a_prune_of_the_system_takes_what_was_kept_for_the_next_try(engine: sampan.Engine) -> None:
    from sampan.engine import pruning
    from sampan.store import ledger

    path = Path(engine.store.paths.ingest) / f"partial-{'a' * 64}"
    path.write_bytes(b"x" * 5000)
    assert "ingest/" + path.name in [line.path for line in ledger.read(engine.store.db, engine.store.paths)]
    pruning.measured(engine, lambda done: None, "image")
    assert path.exists()
    pruning.everything(engine, pruning.Wanted())
    assert not path.exists()


def test_what_a_crash_left_of_a_config_goes_with_the_next_pull(registry: LyingRegistry, engine: sampan.Engine) -> None:
    engine.store.images.ls()
    config = next(path.rpartition("/")[2] for path in _blobs_asked(registry))
    left = f"{engine.store.paths.ingest}/partial-{config.removeprefix('sha256:')}"
    with open(left, "wb") as file:
        file.write(b"half")
    engine.images.pull(f"{registry.host}/app:1")
    assert os.listdir(engine.store.paths.ingest) == []


def _blobs_asked(registry: LyingRegistry) -> list[str]:
    """The paths of the blobs that a pull asks for, the config's first."""
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        other = sampan.Engine(root)
        other.images.pull(f"{registry.host}/app:1")
        other.close()
    return [request.path for request in registry.asked("/blobs/")]
