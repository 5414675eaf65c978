"""A layout directory as the end of a copy: what lies there is not believed, and a copy that fails leaves no trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, noise

import sampan
from sampan.errors import IntegrityError, SampanError
from sampan.oci import image
from sampan.transfer.layoutdir import LayoutDirectory

LAYER = noise(300_000)
ROOT = Path(__file__).parent.parent.parent
KINDS = ("nothing", "below", "empty", "other files", "layout")


def prepared(place: Path, kind: str) -> Path:
    """Give a layout's directory below a place: one that is not there, or has something in it."""
    target = place / ("a/b/layout" if kind == "below" else "layout")
    place.mkdir()
    if kind == "layout":
        written(target)
    elif kind in ("empty", "other files"):
        target.mkdir()
    if kind == "other files":
        (target / "blobs").mkdir()
        (target / "notes").write_text("mine")
    return target


def written(place: Path) -> Path:
    return ts.write_tree(place, ts.simple_layout().build())


def seen(place: Path) -> dict[str, bytes]:
    """Every file and directory below a place."""
    return {str(path.relative_to(place)): path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}


def reader(data: bytes) -> Callable[[int], bytes]:
    pieces = iter((data, b""))
    return lambda count: next(pieces)


def entry(data: bytes) -> dict[str, Any]:
    return image.descriptor(ts.MANIFEST, ts.digest(data), len(data))


@pytest.mark.parametrize("damaged", ["layer", "config", "manifest"])
def test_a_blob_of_the_right_name_and_size_is_not_believed(engine: sampan.Engine, tmp_path: Path, damaged: str) -> None:
    source, target = written(tmp_path / "source"), written(tmp_path / "target")
    (named,) = json.loads((source / "index.json").read_text())["manifests"]
    manifest = json.loads((source / "blobs/sha256" / named["digest"][7:]).read_text())
    found = {"layer": manifest["layers"][0], "config": manifest["config"], "manifest": named}[damaged]
    blob = target / "blobs/sha256" / found["digest"][7:]
    whole = blob.read_bytes()
    wrong = whole.replace(b"sh", b"st", 1)  # of /bin/sh, or of sha256
    blob.write_bytes(wrong)
    for end in ("app:2", f"oci:{tmp_path}/third", f"oci-archive:{tmp_path}/third.tar"):
        with pytest.raises(SampanError, match="digest"):
            engine.images.copy(f"oci:{target}", end)
    assert ts.nothing_left(engine) and blob.read_bytes() == wrong != whole
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("third")]
    engine.images.copy(f"oci:{source}", f"oci:{target}")
    assert blob.read_bytes() == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failing", ["config", "layer", "gone"])
def test_a_copy_that_fails_leaves_the_directory_as_it_was(
    registry: LyingRegistry, engine: sampan.Engine, tmp_path: Path, kind: str, failing: str
) -> None:
    target = prepared(tmp_path / "place", kind)
    before = seen(tmp_path / "place")
    document = registry.image([LAYER, ts.tar_of({"other": b"file"})])
    registry.manifest("app", "1", document)
    wrong = document["config"] if failing == "config" else document["layers"][1]

    def hook(request: Asked) -> Answer | None:
        if not request.path.endswith(wrong["digest"]):
            return None
        return Answer(404) if failing == "gone" else Answer(200, {}, bytes(wrong["size"]))

    registry.hook = hook
    with pytest.raises(SampanError):
        engine.images.copy(f"docker://{registry.host}/app:1", f"oci:{target}:app:1")
    assert seen(tmp_path / "place") == before
    registry.hook = lambda request: None
    engine.images.copy(f"docker://{registry.host}/app:1", f"oci:{target}:app:1")
    assert {
        name: data for name, data in seen(tmp_path / "place").items() if name in before and "index" not in name
    } == {name: data for name, data in before.items() if "index" not in name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0, 35, 1000, 200_000])
def test_a_disk_that_is_full_is_left_as_it_was(tmp_path: Path, kind: str, room: int) -> None:
    """No file may be longer than `room`: it is the index, the mark, a manifest or a layer that cannot be written."""
    made = ts.Layout()
    made.add(made.image([(ts.BASE, ""), (LAYER, "")], ts.config([ts.BASE, LAYER])), "docker.io/library/app:1")
    ts.write_tree(tmp_path / "source", made.build())
    target = prepared(tmp_path / "place", kind)
    before = seen(tmp_path / "place")
    words = [sys.executable, "-m", "sampan", "--root", f"{tmp_path}/store", "image", "copy", f"oci:{tmp_path}/source"]
    limited = ["prlimit", f"--fsize={room}", *words, f"oci:{target}:app:1"]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and f"{target}" in done.stderr and "too large" in done.stderr, done
    assert "Traceback" not in done.stderr and seen(tmp_path / "place") == before
    subprocess.run([*words, f"oci:{target}:app:1"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    assert (target / "blobs/sha256" / ts.digest(LAYER)[7:]).read_bytes() == LAYER


def test_what_another_copy_may_count_on_stays(tmp_path: Path) -> None:
    place = tmp_path / "layout"
    one, two, three = (LayoutDirectory(str(place)) for _ in range(3))
    one.make()
    two.make()
    one.write(ts.digest(b"shared"), reader(b"shared"))
    assert two.has(ts.digest(b"shared"), 6)
    one.undo()  # at that moment the other one is under way
    assert two.has(ts.digest(b"shared"), 6)
    three.make()
    three.write(ts.digest(b"later"), reader(b"later"))
    two.enter(lambda entries: [*entries, entry(b"shared")])
    two.close()
    three.undo()  # it has named an image meanwhile, of which these blobs may be
    assert sorted(os.listdir(place / "blobs/sha256")) == sorted(ts.digest(data)[7:] for data in (b"shared", b"later"))
    assert json.loads((place / "index.json").read_text())["manifests"] == [entry(b"shared")]


def test_an_index_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    directory = LayoutDirectory(str(tmp_path / "a/layout"))
    directory.make()
    directory.write(ts.digest(b"x"), reader(b"x"))

    def fail(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        raise IntegrityError("no")

    with pytest.raises(IntegrityError):
        directory.enter(fail)
    directory.undo()
    assert not (tmp_path / "a").exists()


def test_a_copy_that_succeeds_beside_one_that_fails_is_whole(tmp_path: Path) -> None:
    for number in range(40):
        place = tmp_path / str(number)
        barrier = threading.Barrier(2)

        def fails(place: Path = place, barrier: threading.Barrier = barrier) -> None:
            directory = LayoutDirectory(str(place))
            barrier.wait()
            directory.make()
            directory.write(ts.digest(b"shared"), reader(b"shared"))
            directory.undo()

        thread = threading.Thread(target=fails)
        thread.start()
        directory = LayoutDirectory(str(place))
        barrier.wait()
        directory.make()
        if not directory.has(ts.digest(b"shared"), 6):
            directory.write(ts.digest(b"shared"), reader(b"shared"))
        directory.enter(lambda entries: [*entries, entry(b"shared")])
        directory.close()
        thread.join()
        assert (place / "blobs/sha256" / ts.digest(b"shared")[7:]).read_bytes() == b"shared"
        assert sorted(os.listdir(place)) == ["blobs", "index.json", "oci-layout"]
        assert json.loads((place / "index.json").read_text())["manifests"] == [entry(b"shared")]


def test_a_link_to_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SampanError, match="cannot make the image layout .*/link: No such file"):
        LayoutDirectory(f"{tmp_path}/link").make()
