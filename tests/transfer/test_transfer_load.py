"""Loading: every form that other tools write, from files and pipes."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from transfersupport import (
    BASE,
    INDEX,
    MANIFEST,
    TOP,
    Layout,
    config,
    digest,
    docker_files,
    member,
    simple_layout,
    tar,
    tar_of,
    trees,
    write_tree,
)

import sampan
from sampan.errors import Unavailable
from sampan.transfer.archive import _splice


def put(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def from_pipe(engine: sampan.Engine, data: bytes) -> list[str]:
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return engine.images.load(read)
    finally:
        os.close(read)
        thread.join()


def test_load_docker_archive(engine: sampan.Engine, tmp_path: Path) -> None:
    archive = put(tmp_path / "a.tar", tar_of(docker_files([BASE, TOP], ["app:1", "example.com/team/app:2"])))
    assert engine.images.load(archive) == ["Loaded image: app:1", "Loaded image: example.com/team/app:2"]
    image = engine.images.resolve("app:1")
    assert image.id == digest(config([BASE, TOP]))
    assert image.diff_ids == [digest(BASE), digest(TOP)]
    base, top = trees(engine, "app:1")
    assert base["usr/bin/tool"][0] & 0o7777 == 0o4755 and base["etc/passwd"][5].startswith(b"root")
    assert base["bin"][5] == "usr/bin"
    assert base["usr/bin/tool"][3] == 1_700_000_000 * 10**9
    assert os.major(top["etc/old"][4]) == 0 and top["etc/new"][5] == b"new"


def test_load_from_a_pipe_leaves_no_copy(engine: sampan.Engine) -> None:
    assert from_pipe(engine, tar_of(docker_files([BASE], ["app:1"]))) == ["Loaded image: app:1"]
    assert os.listdir(engine.store.paths.ingest) == []


def test_a_pipe_is_copied_whole_and_by_the_kernel(engine: sampan.Engine, tmp_path: Path) -> None:
    """A plain pipe is spliced; where that is refused (a file that only grows) the rest is read."""
    noise = random.Random(1).randbytes(3_000_000)
    data = tar_of(docker_files([tar_of({"noise": noise})], ["app:1"]))
    assert from_pipe(engine, data) == ["Loaded image: app:1"]
    (tree,) = trees(engine, "app:1")
    assert tree["noise"][5] == noise
    for flags, left in ((os.O_RDWR, 0), (os.O_RDWR | os.O_APPEND, 5)):
        read, write = os.pipe()
        os.write(write, b"bytes")
        os.close(write)
        copy = os.open(tmp_path / "copy", flags | os.O_CREAT | os.O_TRUNC)
        _splice(read, copy, "it")
        assert len(os.read(read, 10)) == left and os.fstat(copy).st_size == 5 - left
        os.close(copy)
        os.close(read)
    read, write = os.pipe()
    os.write(write, b"bytes")
    with (
        open("/dev/null", "rb") as null,
        pytest.raises(Unavailable, match="no copy of it can be made in the store: Bad file"),
    ):
        _splice(read, null.fileno(), "it")
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
def test_load_compressed_archive(engine: sampan.Engine, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = pack(tar_of(docker_files([BASE], ["app:1"])))
    assert engine.images.load(put(tmp_path / "a", data)) == ["Loaded image: app:1"]
    assert from_pipe(engine, data) == ["Loaded image: app:1"]


def test_load_follows_the_links_of_old_archives(engine: sampan.Engine, tmp_path: Path) -> None:
    files = docker_files([BASE, TOP, BASE], ["app:1"])
    files.pop("2/layer.tar")
    members = [member("2/layer.tar", type=tarfile.SYMTYPE, link="../0/layer.tar")]
    members += [member("./" + name, data) for name, data in files.items()]
    assert engine.images.load(put(tmp_path / "a.tar", tar(members))) == ["Loaded image: app:1"]
    assert engine.images.resolve("app:1").diff_ids == [digest(BASE), digest(TOP), digest(BASE)]


@pytest.mark.parametrize("form", ["archive", "directory", "pipe"])
@pytest.mark.parametrize("suffix", ["", "+gzip"])
def test_load_oci_layout(engine: sampan.Engine, tmp_path: Path, form: str, suffix: str) -> None:
    layout = simple_layout(suffix=suffix)
    manifest = layout.entries[0]["digest"]
    files = layout.build()
    if form == "directory":
        said = engine.images.load(str(write_tree(tmp_path / "layout", files)))
    elif form == "archive":
        said = engine.images.load(put(tmp_path / "a.tar", tar_of(files)))
    else:
        said = from_pipe(engine, tar_of(files))
    assert said == ["Loaded image: app:1"]
    image = engine.images.resolve("app:1")
    assert (image.manifest_digest, image.id) == (manifest, digest(config([BASE, TOP])))
    assert trees(engine, "app:1")[1]["etc/new"][5] == b"new"


def test_load_zstd_and_many_membered_gzip_layers(engine: sampan.Engine, tmp_path: Path) -> None:
    layout = Layout()
    half = len(BASE) // 2
    members = gzip.compress(BASE[:half]) + gzip.compress(b"") + gzip.compress(BASE[half:]) + bytes(100)
    compressor = zstandard.ZstdCompressor()
    # RFC 8878, 3.1.2: a skippable frame between two frames.
    frames = compressor.compress(TOP[:1000]) + b"\x50\x2a\x4d\x18\x04\0\0\0skip" + compressor.compress(TOP[1000:])
    layout.add(layout.image([(members, "+gzip"), (frames, "+zstd")], config([BASE, TOP])), "docker.io/library/app:1")
    assert engine.images.load(put(tmp_path / "a.tar", tar_of(layout.build()))) == ["Loaded image: app:1"]
    assert engine.images.resolve("app:1").diff_ids == [digest(BASE), digest(TOP)]


def test_load_takes_this_hosts_platform(engine: sampan.Engine, tmp_path: Path) -> None:
    layout = Layout()
    ours = layout.image([(BASE, "")], config([BASE]), platform=platform_of(config([BASE])))
    theirs = layout.image([(TOP, "")], config([TOP]), platform={"os": "linux", "architecture": "s390x"})
    proof = layout.document({"schemaVersion": 2}, MANIFEST, platform={"os": "unknown", "architecture": "unknown"})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs, proof, ours]}
    layout.add(layout.document(index, INDEX), "docker.io/library/app:1")
    assert engine.images.load(put(tmp_path / "a.tar", tar_of(layout.build()))) == ["Loaded image: app:1"]
    assert engine.images.resolve("app:1").manifest_digest == ours["digest"]


def platform_of(configuration: bytes) -> dict[str, str]:
    return {"os": "linux", "architecture": json.loads(configuration)["architecture"]}


def test_load_without_a_name_says_the_id(engine: sampan.Engine, tmp_path: Path) -> None:
    image_id = digest(config([BASE, TOP]))
    data = tar_of(simple_layout(name="").build())
    assert engine.images.load(put(tmp_path / "a.tar", data)) == [f"Loaded image ID: {image_id}"]
    assert engine.images.resolve(image_id).references == []


def test_load_says_what_lost_its_name(engine: sampan.Engine, tmp_path: Path) -> None:
    engine.images.load(put(tmp_path / "a.tar", tar_of(docker_files([BASE], ["app:1"]))))
    old = engine.images.resolve("app:1").id
    other = put(tmp_path / "b.tar", tar_of(docker_files([TOP], ["app:1"])))
    assert engine.images.load(other) == [f"Replaced image: app:1 was {old}", "Loaded image: app:1"]
    assert engine.images.load(other) == ["Loaded image: app:1"]
    assert engine.images.resolve(old).references == []


def test_load_reads_a_layer_once_and_unpacks_it_once(engine: sampan.Engine, tmp_path: Path) -> None:
    archive = put(tmp_path / "a.tar", tar_of(docker_files([BASE, TOP, BASE], ["app:1"])))
    engine.images.load(archive)
    before = engine.store.snapshots.ls()
    assert len(before) == 2
    engine.images.load(archive)
    assert engine.store.snapshots.ls() == before


KILLED = """
import sys
import sampan
engine = sampan.Engine(sys.argv[2])
print("ready", flush=True)
engine.images.load(sys.argv[1])
print("done", flush=True)
"""


def test_load_killed_anywhere_shows_all_or_nothing(tmp_path: Path) -> None:
    archive = put(tmp_path / "a.tar", tar_of(docker_files([BASE, TOP], ["app:1"])))
    store = str(tmp_path / "store")
    seen = set()
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 60.0):  # the last one comes to its end
        process = subprocess.Popen([sys.executable, "-c", KILLED, archive, store], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        process.stdout.close()
        engine = sampan.Engine(store)
        names = [row["Repository"] for row in engine.images.ls()]
        seen.add(tuple(names))
        if names:
            assert trees(engine, "app:1")[0]["etc/passwd"][5].startswith(b"root")
            engine.images.remove("app:1")
            paths = engine.store.paths
            assert os.listdir(paths.ingest) == os.listdir(paths.active) == os.listdir(paths.blobs) == []
        engine.close()
    assert ("app",) in seen and seen <= {(), ("app",)}
