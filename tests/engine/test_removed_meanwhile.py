"""An image that is removed while a container of it is being started: its layers stay for as long as they are used."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

import sampan
from sampan.engine import launching, once, pruning
from sampan.engine.library import options
from sampan.errors import NotFound
from sampan.oci.options import RunOptions


@pytest.fixture
def layer(engine: sampan.Engine, tmp_path: pathlib.Path) -> Iterator[str]:
    """An image `going` with a layer of its own, which holds /file."""
    (tmp_path / "Dockerfile").write_text("FROM base\nCOPY file /file\n")
    (tmp_path / "file").write_text(f"content of {tmp_path}\n")
    engine.build(str(tmp_path), tags=["going"])
    yield engine.images.resolve("going").diff_ids[-1]
    if engine.images.has("going"):
        engine.images.remove("going")


def remove(engine: sampan.Engine) -> None:
    """Remove the image, and all that nothing needs then, as another process does."""
    other = sampan.Engine(engine.store.paths.root)
    other.images.remove("going")
    prune(other)
    other.close()


def prune(engine: sampan.Engine) -> None:
    pruning.measured(engine, lambda done: pruning.prune_build_cache(engine, pruning.Wanted(), done, all=True))


def test_a_run_of_which_nothing_is_kept_goes_on(
    engine: sampan.Engine, layer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    into, out = os.pipe(), os.pipe()
    asked = options(["sh", "-c", "read x; cat /file"], None, {"interactive": True})
    record, child = once.launch(
        engine.containers, "going", asked, (into[0], out[1], out[1]), True, lambda _: remove(engine)
    )
    os.close(into[0])
    os.close(out[1])
    try:
        assert not engine.images.has("going")
        prune(engine)  # now its record keeps them
        os.write(into[1], b"go on\n")
        os.close(into[1])
        assert os.read(out[0], 100).startswith(b"content of ")
        assert child.wait().code == 0
    finally:
        os.close(out[0])
        engine.containers.discard(record, child)
    prune(engine)
    assert engine.store.snapshots.find(layer) is None


def test_a_container_that_has_no_record_yet_is_refused(engine: sampan.Engine, layer: str) -> None:
    record = launching.new(engine, "going", RunOptions(command=["true"]), "", False)
    remove(engine)
    assert engine.store.snapshots.find(layer) is not None
    with pytest.raises(NotFound, match="image going is not in the store"):
        launching._enter(engine, record, durable=True)
    prune(engine)
    assert engine.store.snapshots.find(layer) is None
    with pytest.raises(NotFound, match="no such image: going"):
        launching.create(engine, "going", RunOptions(command=["true"]))
