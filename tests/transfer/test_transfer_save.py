"""Saving, and what other tools make of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from transfersupport import (
    BASE,
    TOP,
    Layout,
    config,
    digest,
    docker_files,
    simple_layout,
    tar_of,
    trees,
    write_tree,
)

import sampan
from sampan.errors import IntegrityError, InvalidArgument, NotFound, Unavailable


def saved(engine: sampan.Engine, path: Path, *names: str) -> str:
    with open(path, "wb") as file:
        size = engine.images.save(list(names), file.fileno())
    assert path.stat().st_size == size
    return str(path)


def loaded(engine: sampan.Engine, path: Path, layers: list[bytes], tags: list[str]) -> str:
    path.write_bytes(tar_of(docker_files(layers, tags)))
    engine.images.load(str(path))
    return engine.images.resolve(tags[0]).id


def test_saved_archive_loads_as_the_same_image(make_engine: Callable[[], sampan.Engine], tmp_path: Path) -> None:
    one, two = make_engine(), make_engine()
    loaded(one, tmp_path / "in.tar", [BASE, TOP], ["app:1"])
    loaded(one, tmp_path / "in2.tar", [BASE], ["example.com/other:2"])
    archive = saved(one, tmp_path / "a.tar", "app:1", "example.com/other:2")
    assert two.images.load(archive) == ["Loaded image: app:1", "Loaded image: example.com/other:2"]
    for name in ("app:1", "example.com/other:2"):
        assert one.images.resolve(name).manifest_digest == two.images.resolve(name).manifest_digest
        assert trees(one, name) == trees(two, name)
    assert (
        Path(saved(two, tmp_path / "b.tar", "app:1", "example.com/other:2")).read_bytes() == Path(archive).read_bytes()
    )


def test_saved_archive_is_both_forms_and_holds_blobs_once(engine: sampan.Engine, tmp_path: Path) -> None:
    loaded(engine, tmp_path / "in.tar", [BASE, TOP, BASE], ["app:1", "app:2"])
    with tarfile.open(saved(engine, tmp_path / "a.tar", "app:1", "app:2")) as archive:
        names = archive.getnames()
        index, listed = (json.load(member(archive, name)) for name in ("index.json", "manifest.json"))
        for name in names:
            if name.startswith("blobs/sha256/"):
                assert digest(member(archive, name).read()) == "sha256:" + name[13:]
    assert len(names) == len(set(names))
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == [
        "docker.io/library/app:1",
        "docker.io/library/app:2",
    ]
    assert [entry["RepoTags"] for entry in listed] == [["app:1", "app:2"]]
    assert listed[0]["Layers"][1] == "blobs/sha256/" + digest(TOP)[7:]


def test_docker_is_given_what_a_zstd_layer_holds(make_engine: Callable[[], sampan.Engine], tmp_path: Path) -> None:
    """Docker reads zstd in its archives since version 23 only; the layout keeps the image as it is."""
    made = zstd_layout(BASE)
    (tmp_path / "in.tar").write_bytes(tar_of(made.build()))
    engine, other = make_engine(), make_engine()
    engine.images.load(str(tmp_path / "in.tar"))
    with tarfile.open(saved(engine, tmp_path / "a.tar", "app:1")) as archive:
        names = archive.getnames()
        (listed,) = json.load(member(archive, "manifest.json"))
        assert [member(archive, name).read() for name in listed["Layers"]] == [BASE, TOP, BASE]
        for name in names:
            if name.startswith("blobs/sha256/"):
                assert digest(member(archive, name).read()) == "sha256:" + name[13:]
        assert len(names) == len(set(names)) and set(made.files) - set(names) == set()
    other.images.load(str(tmp_path / "a.tar"))
    assert other.images.resolve("app:1").manifest_digest == engine.images.resolve("app:1").manifest_digest
    assert (
        saved(other, tmp_path / "b.tar", "app:1")
        and (tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()
    )


def test_a_zstd_layer_that_is_damaged_is_told_before_the_first_byte(engine: sampan.Engine, tmp_path: Path) -> None:
    made = zstd_layout(BASE)
    (tmp_path / "in.tar").write_bytes(tar_of(made.build()))
    engine.images.load(str(tmp_path / "in.tar"))
    manifest = json.loads(engine.store.content.read(engine.images.resolve("app:1").manifest_digest))
    blob = Path(engine.store.paths.blob(manifest["layers"][1]["digest"]))
    blob.write_bytes(zstandard.compress(TOP + b"more"))
    with open(tmp_path / "a.tar", "wb") as file, pytest.raises(IntegrityError, match="cannot save the image"):
        engine.images.save(["app:1"], file.fileno())
    assert (tmp_path / "a.tar").stat().st_size == 0


def zstd_layout(base: bytes) -> Layout:
    """An image of a plain layer, a zstd one, and the plain one's content as zstd."""
    made = Layout()
    layers = [(base, ""), (zstandard.compress(TOP), "+zstd"), (zstandard.compress(base), "+zstd")]
    made.add(made.image(layers, config([base, TOP, base])), "docker.io/library/app:1")
    return made


def member(archive: tarfile.TarFile, name: str) -> io.BufferedReader:
    found = archive.extractfile(name)
    assert isinstance(found, io.BufferedReader)
    return found


def test_save_by_id_keeps_all_names_and_by_name_one(engine: sampan.Engine, tmp_path: Path) -> None:
    image_id = loaded(engine, tmp_path / "in.tar", [BASE], ["app:1", "app:2"])
    for wanted, names in ((image_id, ["app:1", "app:2"]), (image_id[7:19], ["app:1", "app:2"]), ("app:2", ["app:2"])):
        with tarfile.open(saved(engine, tmp_path / "a.tar", wanted)) as archive:
            assert json.load(member(archive, "manifest.json"))[0]["RepoTags"] == names


def test_save_of_a_repository_saves_all_its_tags(engine: sampan.Engine, tmp_path: Path) -> None:
    loaded(engine, tmp_path / "1.tar", [BASE], ["127.0.0.1:5000/app:1", "127.0.0.1:5000/app:latest", "app:3"])
    loaded(engine, tmp_path / "2.tar", [TOP], ["127.0.0.1:5000/app:2", "127.0.0.1:5000/app/more:1"])
    with tarfile.open(saved(engine, tmp_path / "a.tar", "127.0.0.1:5000/app", "app:3")) as archive:
        listed = json.load(member(archive, "manifest.json"))
    assert sorted(entry["RepoTags"] for entry in listed) == [
        ["127.0.0.1:5000/app:1", "127.0.0.1:5000/app:latest", "app:3"],
        ["127.0.0.1:5000/app:2"],
    ]
    with pytest.raises(NotFound) as caught:
        saved(engine, tmp_path / "a.tar", "127.0.0.1:5000/apq")
    assert "did you mean 127.0.0.1:5000/app:latest?" in caught.value.hint


def test_save_fails_before_the_first_byte_when_a_blob_is_gone(engine: sampan.Engine, tmp_path: Path) -> None:
    loaded(engine, tmp_path / "in.tar", [BASE], ["app:1"])
    os.unlink(engine.store.paths.blob(digest(BASE)))
    with open(tmp_path / "a.tar", "wb") as file, pytest.raises(NotFound):
        engine.images.save(["app:1"], file.fileno())
    assert (tmp_path / "a.tar").stat().st_size == 0


def test_save_to_a_full_disk_says_so(engine: sampan.Engine, tmp_path: Path) -> None:
    loaded(engine, tmp_path / "in.tar", [BASE], ["app:1"])
    with open("/dev/full", "wb") as file, pytest.raises(Unavailable, match="No space left"):
        engine.images.save(["app:1"], file.fileno())


class Writer(io.RawIOBase):
    """A file object without a descriptor, that breaks off after so many bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def write(self, data: Any, /) -> int:
        self.limit -= len(data)
        if self.limit < 0:
            raise ConnectionResetError("the other end went away")
        return len(data)


def test_archives_go_to_and_come_from_paths_and_file_objects(
    make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    engine = make_engine()
    loaded(engine, tmp_path / "in.tar", [BASE, TOP], ["app:1"])
    expected = Path(saved(engine, tmp_path / "a.tar", "app:1")).read_bytes()
    memory = io.BytesIO()
    with open(tmp_path / "b.tar", "wb") as file:
        file.write(b"before")
        for target in (memory, file, str(tmp_path / "c.tar"), tmp_path / "d.tar"):
            assert engine.images.save(["app:1"], target) == len(expected)
        file.write(b"after")
    assert (tmp_path / "b.tar").read_bytes() == b"before" + expected + b"after"
    assert memory.getvalue() == (tmp_path / "c.tar").read_bytes() == (tmp_path / "d.tar").read_bytes() == expected
    memory.seek(0)
    with open(tmp_path / "b.tar", "rb") as file:
        assert file.read(6) == b"before"
        for source in (memory, file, tmp_path / "d.tar", str(tmp_path / "c.tar")):
            assert make_engine().images.load(source) == ["Loaded image: app:1"]
    assert engine.images.import_(io.BytesIO(BASE), "imported:1") == engine.images.resolve("imported:1").id
    assert engine.images.resolve("imported:1").diff_ids == [digest(BASE)]


def test_a_file_object_that_breaks_off_says_why(engine: sampan.Engine, tmp_path: Path) -> None:
    loaded(engine, tmp_path / "in.tar", [BASE], ["app:1"])
    for limit in (0, 5000):
        with pytest.raises(ConnectionResetError, match="went away"):
            engine.images.save(["app:1"], Writer(limit))  # type: ignore[arg-type]
    for wrong in (None, b"x", ["path"]):
        with pytest.raises(InvalidArgument, match="cannot write images to a"):
            engine.images.save(["app:1"], wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="cannot read images from a"):
            engine.images.load(wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        engine.images.save(["app:2"], tmp_path / "none.tar")
    assert not (tmp_path / "none.tar").exists() and not list(tmp_path.glob(".none*"))


def skopeo(*words: str) -> str:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    found = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("suffix", ["", "+gzip"])
def test_skopeo_reads_both_forms_and_the_store(engine: sampan.Engine, tmp_path: Path, suffix: str) -> None:
    engine.images.load(str(write_tree(tmp_path / "layout", simple_layout(suffix=suffix).build())))
    archive = saved(engine, tmp_path / "a.tar", "app:1")
    for source in (f"docker-archive:{archive}", f"docker-archive:{archive}:app:1", f"oci-archive:{archive}:1"):
        skopeo("copy", source, f"dir:{tmp_path}/{len(os.listdir(tmp_path))}")
        assert json.loads(skopeo("inspect", "--config", source)) == json.loads(config([BASE, TOP]))
    stored = f"oci:{engine.store.paths.oci}:docker.io/library/app:1"
    assert json.loads(skopeo("inspect", stored))["Digest"] == engine.images.resolve("app:1").manifest_digest


@pytest.mark.parametrize(
    "form", ["docker-archive:{}.tar:app:1", "oci-archive:{}.tar:app:1", "oci:{}:docker.io/library/app:1"]
)
def test_what_skopeo_writes_loads(make_engine: Callable[[], sampan.Engine], tmp_path: Path, form: str) -> None:
    one, two = make_engine(), make_engine()
    image_id = loaded(one, tmp_path / "in.tar", [BASE, TOP], ["app:1"])
    archive = saved(one, tmp_path / "a.tar", "app:1")
    # skopeo writes the config anew when it converts between the two forms.
    source = f"docker-archive:{archive}" if form.startswith("docker") else f"oci-archive:{archive}:1"
    skopeo("copy", source, form.format(tmp_path / "b"))
    said = two.images.load(str(tmp_path / "b" if form.startswith("oci:") else tmp_path / "b.tar"))
    assert said == ["Loaded image: app:1"]
    assert two.images.resolve("app:1").id == image_id
    assert trees(one, "app:1") == trees(two, "app:1")


def written(engine: sampan.Engine, how: str, path: str) -> None:
    if how == "save":
        engine.images.save(["app:1"], path)
    else:
        engine.images.copy("app:1", f"oci-archive:{path}:app:1")


@pytest.mark.parametrize("how", ["save", "copy"])
def test_a_pipe_is_written_to_and_stays_one(engine: sampan.Engine, tmp_path: Path, how: str) -> None:
    engine.images.load(str(write_tree(tmp_path / "layout", simple_layout().build())))
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        try:
            written(engine, how, str(tmp_path / "pipe"))
            assert (tmp_path / "pipe").is_fifo()
            out, _ = reader.communicate(timeout=60)
        except BaseException:
            reader.kill()
            raise
    assert (tmp_path / "pipe").is_fifo() and sorted(os.listdir(tmp_path)) == ["layout", "pipe", "store0"]
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert "manifest.json" in archive.getnames()


@pytest.mark.parametrize("how", ["save", "copy"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_a_descriptors_name_leads_to_is_written_to(
    engine: sampan.Engine, tmp_path: Path, how: str, linked: bool
) -> None:
    """As with /dev/stdout, which is a link to such a name: neither it nor the file behind it is replaced."""
    engine.images.load(str(write_tree(tmp_path / "layout", simple_layout().build())))
    with open(tmp_path / "out", "wb+") as file:
        path = f"/proc/self/fd/{file.fileno()}"
        if linked:
            os.symlink(path, tmp_path / "link")
            path = str(tmp_path / "link")
        written(engine, how, path)
        assert os.path.samestat(os.fstat(file.fileno()), os.stat(tmp_path / "out"))
        assert os.path.islink(path)
        with tarfile.open(fileobj=file) as archive:
            assert "manifest.json" in archive.getnames()
