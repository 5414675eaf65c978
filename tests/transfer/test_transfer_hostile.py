"""Archives that lie: one clear error, nothing tagged, nothing left behind.

Each case spoils an archive that loads as it is (test_control_loads), so that it fails for the reason that it names.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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
    nothing_left,
    simple_layout,
    tar,
    tar_of,
    write_tree,
)

import sampan
from sampan.errors import IntegrityError, NotFound, NotSupported, SampanError
from sampan.store import gc


def docker(**entry: Any) -> bytes:
    return tar_of(docker_files([BASE, TOP], ["app:1"], **entry))


def docker_with(**changes: bytes | None) -> bytes:
    files: dict[str, bytes | None] = {**docker_files([BASE, TOP], ["app:1"]), **changes}
    return tar_of({name: data for name, data in files.items() if data is not None})


def docker_plus(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return tar([member(name, data) for name, data in docker_files([BASE, TOP], ["app:1"]).items()] + list(members))


def docker_layer(layer: bytes) -> bytes:
    return tar_of(docker_files([BASE, layer], ["app:1"]))


def oci(spoil: Callable[[Any], object]) -> bytes:
    """A layout whose manifest says something else; digests are right throughout."""
    return tar_of(simple_layout(spoil=spoil).build())


def oci_files(change: Callable[[dict[str, bytes]], object]) -> bytes:
    files = simple_layout().build()
    change(files)
    return tar_of(files)


def layer_name(layer: bytes) -> str:
    return "blobs/sha256/" + digest(layer)[7:]


def oci_size(size: object) -> bytes:
    return oci(lambda manifest: manifest["layers"][0].update(size=size))


def nested(depth: int) -> bytes:
    layout = Layout()
    entry = layout.image([(BASE, "")], config([BASE]))
    for _ in range(depth):
        entry = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)
    layout.add(entry, "docker.io/library/app:1")
    return tar_of(layout.build())


def wide(count: int) -> bytes:
    layout = Layout()
    for number in range(count):
        layout.add(layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "n": number}, INDEX))
    return tar_of(layout.build())


def two_names() -> bytes:
    layout = Layout()
    layout.add(layout.image([(BASE, "")], config([BASE])), "docker.io/library/app:1")
    layout.add(layout.image([(TOP, "")], config([TOP])), "docker.io/library/app:1")
    return tar_of(layout.build())


def both_kinds() -> bytes:
    return oci(lambda manifest: manifest.update(manifests=[]))


def wrong_kind() -> bytes:
    return oci(lambda manifest: manifest.update(mediaType=INDEX))


def artifact() -> bytes:
    layout = Layout()
    blob = layout.blob(b"gone", "application/vnd.example.thing")
    del layout.files["blobs/sha256/" + blob["digest"][7:]]
    config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    layout.add(
        layout.document({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [blob]}, MANIFEST)
    )
    return tar_of(layout.build())


def big_extended_header() -> bytes:
    info, _ = member("x", b"1" * (2 << 20))
    info.type = tarfile.XHDTYPE
    return info.tobuf(tarfile.USTAR_FORMAT) + b"1" * (2 << 20) + docker()


MANIFEST_JSON = json.loads(docker_files([BASE, TOP], [])["manifest.json"])[0]

CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    # the archive
    "absolute name": (lambda: docker_plus(member("/etc/evil", b"x")), "absolute"),
    "climbing name": (lambda: docker_plus(member("a/../../evil", b"x")), "leaves"),
    "climbing link": (lambda: docker_plus(member("l", type=tarfile.SYMTYPE, link="../../etc/passwd")), "leaves"),
    "absolute link": (lambda: docker_plus(member("l", type=tarfile.SYMTYPE, link="/etc/passwd")), "absolute"),
    "hard link out": (lambda: docker_plus(member("l", type=tarfile.LNKTYPE, link="../x")), "leaves"),
    "device": (lambda: docker_plus(member("d", type=tarfile.CHRTYPE)), "type"),
    "fifo": (lambda: docker_plus(member("f", type=tarfile.FIFOTYPE)), "type"),
    "same name twice": (lambda: docker_plus(member("config.json", config([BASE, TOP]))), "twice"),
    "link loop": (
        lambda: tar(
            [member(n, d) for n, d in docker_files([BASE], ["app:1"], Layers=["a"]).items()]
            + [member("a", type=tarfile.SYMTYPE, link="b"), member("b", type=tarfile.SYMTYPE, link="a")]
        ),
        "too many links",
    ),
    "large extended header": (big_extended_header, "extended header"),
    "not an archive": (lambda: b"hello world\n" * 1000, "it is no tar archive"),
    "empty archive": (lambda: bytes(10240), "neither"),
    "nothing": (lambda: b"", "no tar archive|empty"),
    # Docker's form
    "no config": (lambda: docker_with(**{"config.json": None}), "missing"),
    "no layer": (lambda: docker_with(**{"1/layer.tar": None}), "missing"),
    "layer is a directory": (lambda: docker(Layers=["0/layer.tar", "0"]), "missing"),
    "layer outside": (lambda: docker(Layers=["0/layer.tar", "../../etc/passwd"]), "outside"),
    "config outside": (lambda: docker(Config="/etc/passwd"), "outside"),
    "wrong layer": (lambda: docker_with(**{"1/layer.tar": BASE}), "diff_id|digest"),
    "layers reordered": (lambda: docker(Layers=["1/layer.tar", "0/layer.tar"]), "diff_id|digest"),
    "layer too few": (lambda: docker(Layers=["0/layer.tar"]), "1 layer, the config 2"),
    "layer too many": (lambda: docker(Layers=["0/layer.tar", "1/layer.tar", "1/layer.tar"]), "layers"),
    "layers no list": (lambda: docker(Layers="0/layer.tar"), "list"),
    "config no name": (lambda: docker(Config=["config.json"]), "config"),
    "manifest no JSON": (lambda: docker_with(**{"manifest.json": b"{"}), "manifest.json"),
    "manifest no list": (lambda: docker_with(**{"manifest.json": json.dumps(MANIFEST_JSON).encode()}), "list"),
    "manifest too large": (lambda: docker_with(**{"manifest.json": b"[" + b" " * (5 << 20) + b"]"}), "bytes"),
    "deep JSON": (lambda: docker_with(**{"manifest.json": b"[" * 200000}), "deep|nested"),
    "bad tag": (lambda: docker(RepoTags=["../evil:1"]), "reference"),
    "tag with a newline": (lambda: docker(RepoTags=["app:1\nnext"]), "reference"),
    "tag no text": (lambda: docker(RepoTags=[1]), "strings"),
    "bad config": (lambda: docker_with(**{"config.json": b"[]"}), "object"),
    "diff_ids no digests": (
        lambda: docker_with(**{"config.json": config([BASE, TOP], rootfs={"type": "layers", "diff_ids": ["a", "b"]})}),
        "diff_ids",
    ),
    "environment no list": (lambda: docker_with(**{"config.json": config([BASE, TOP], config={"Env": {}})}), "Env"),
    "truncated layer": (lambda: docker_layer(gzip.compress(TOP)[:-20]), "early|diff_id"),
    "damaged layer": (lambda: docker_layer(gzip.compress(os.urandom(9999))[:9000] + b"x" * 999), "gzip|checksum|octal"),
    "layer no tar": (lambda: docker_layer(b"x" * 2048), "checksum|octal"),
    "layer climbs": (lambda: docker_layer(tar([member("../../evil", b"x")])), "outside"),
    "layer links out": (lambda: docker_layer(tar([member("l", type=tarfile.LNKTYPE, link="../../x")])), "outside"),
    # OCI's form
    "digest lies": (lambda: oci_files(lambda files: files.update({layer_name(TOP): BASE})), "bytes|digest"),
    "digest lies, same size": (
        lambda: oci_files(lambda files: files.update({layer_name(TOP): TOP[:-1] + b"x"})),
        "digest|diff_id",
    ),
    "blob missing": (lambda: oci_files(lambda files: files.pop(layer_name(TOP))), "missing"),
    "config lies": (
        lambda: oci_files(lambda files: files.update({layer_name(config([BASE, TOP])): config([BASE, TOP]) + b" "})),
        "bytes|digest",
    ),
    "size too small": (lambda: oci_size(len(BASE) - 1), "longer"),
    "size too large": (lambda: oci_size(len(BASE) + 1), "bytes"),
    "size negative": (lambda: oci_size(-1), "size"),
    "size 2^63": (lambda: oci_size(1 << 63), "size"),
    "size a text": (lambda: oci_size("10240"), "size"),
    "size a float": (lambda: oci_size(1.5), "size"),
    "size 1e400": (lambda: oci_files(replace_size(b"1e400")), "bytes|digest|range"),
    "digest no digest": (lambda: oci(lambda m: m["layers"][0].update(digest="../../../etc/passwd")), "digest"),
    "digest of another kind": (lambda: oci(lambda m: m["layers"][0].update(digest="sha512:" + "0" * 128)), "digest"),
    "layers reordered, digests right": (lambda: oci(lambda manifest: manifest["layers"].reverse()), "diff_id"),
    "layer doubled": (lambda: oci(lambda manifest: manifest["layers"].append(manifest["layers"][0])), "layers"),
    "layers and manifests": (both_kinds, "both|index"),
    "type differs": (wrong_kind, "manifest|index"),
    "artifact without a blob": (artifact, "missing"),
    "layer no tar type": (lambda: oci(lambda m: m["layers"][0].update(mediaType="application/x-tar")), "layer"),
    "index nested": (lambda: nested(6), "nested"),
    "index wide": (lambda: wide(1000), "documents"),
    "index no object": (lambda: oci_files(lambda files: files.update({"index.json": b"[]"})), "object"),
    "other version": (
        lambda: oci_files(lambda files: files.update({"oci-layout": b'{"imageLayoutVersion": "2.0.0"}'})),
        "version",
    ),
    "one name for two": (two_names, "two images"),
    "bad name": (lambda: tar_of(simple_layout(name="docker.io/library/app:1\x1b[2J").build()), "reference"),
    "name with a digest only": (lambda: tar_of(simple_layout(name="UPPER CASE").build()), "reference"),
}


def replace_size(text: bytes) -> Callable[[dict[str, bytes]], object]:
    def change(files: dict[str, bytes]) -> None:
        files["index.json"] = re.sub(rb'"size": \d+', b'"size": ' + text, files["index.json"])

    return change


@pytest.mark.parametrize(
    "data", [docker(), tar_of(simple_layout().build()), nested(2)], ids=["docker", "oci", "nested"]
)
def test_control_loads(engine: sampan.Engine, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    assert engine.images.load(str(tmp_path / "a.tar")) == ["Loaded image: app:1"]


def test_an_archive_of_a_file_system_is_for_import(engine: sampan.Engine, tmp_path: Path) -> None:
    device = member("dev/console", b"", tarfile.CHRTYPE)
    for members in ([member("etc/hosts", b"")], [device, member("etc/hosts", b"")]):
        (tmp_path / "a.tar").write_bytes(tar(members))
        with pytest.raises(IntegrityError) as caught:
            engine.images.load(str(tmp_path / "a.tar"))
        assert "sampan import" in caught.value.hint


@pytest.mark.parametrize("case", CASES)
def test_hostile_archive_is_refused(engine: sampan.Engine, tmp_path: Path, case: str) -> None:
    make, reason = CASES[case]
    path = tmp_path / "a.tar"
    path.write_bytes(make())
    with pytest.raises((IntegrityError, NotSupported, NotFound, SampanError)) as caught:
        engine.images.load(str(path))
    assert re.search(reason, caught.value.message), caught.value.message
    assert caught.value.message.startswith(f"cannot load {path}: ") and "\n" not in caught.value.message
    assert nothing_left(engine)
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "store0"]


def test_hostile_archive_keeps_the_names_that_were_there(engine: sampan.Engine, tmp_path: Path) -> None:
    (tmp_path / "good.tar").write_bytes(docker())
    engine.images.load(str(tmp_path / "good.tar"))
    before = engine.images.ls()
    good = docker_files([BASE], ["app:1"], json.dumps(json.loads(config([BASE])) | {"author": "other"}).encode())
    entries = json.loads(good["manifest.json"]) + [MANIFEST_JSON | {"Config": "none.json"}]
    (tmp_path / "bad.tar").write_bytes(tar_of(good | {"manifest.json": json.dumps(entries).encode()}))
    with pytest.raises(IntegrityError):
        engine.images.load(str(tmp_path / "bad.tar"))
    assert [row["ID"] for row in engine.images.ls()] == [row["ID"] for row in before]


@pytest.mark.parametrize("data", [docker(), tar_of(simple_layout(suffix="+gzip").build())], ids=["docker", "oci"])
def test_truncated_archive_is_refused(engine: sampan.Engine, tmp_path: Path, data: bytes) -> None:
    end = data.rstrip(b"\0")
    path = tmp_path / "a.tar"
    for sixteenth in range(16):
        path.write_bytes(end[: len(end) * sixteenth // 16])
        with pytest.raises(SampanError):
            engine.images.load(str(path))
        assert nothing_left(engine)


def test_random_damage_is_an_error_or_nothing(engine: sampan.Engine, tmp_path: Path) -> None:
    data = tar_of(simple_layout().build())
    chance = random.Random(20240501)
    path = tmp_path / "a.tar"
    for _ in range(60):
        spoilt = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        path.write_bytes(spoilt)
        try:
            engine.images.load(str(path))
        except SampanError:
            continue
    assert {row["ID"] for row in engine.images.ls()} <= {digest(config([BASE, TOP]))}


def test_layout_directory_is_not_left_through_links(engine: sampan.Engine, tmp_path: Path) -> None:
    files = simple_layout().build()
    layout = write_tree(tmp_path / "layout", files)
    name = layer_name(TOP)
    (tmp_path / "outside").write_bytes(files[name])
    (layout / name).unlink()
    (layout / name).symlink_to(tmp_path / "outside")
    with pytest.raises(SampanError):
        engine.images.load(str(layout))
    assert nothing_left(engine)
    (layout / name).unlink()
    (layout / name).write_bytes(files[name])
    assert engine.images.load(str(layout)) == ["Loaded image: app:1"]


def test_layout_directory_with_a_fifo_does_not_hang(engine: sampan.Engine, tmp_path: Path) -> None:
    layout = write_tree(tmp_path / "layout", simple_layout().build())
    (layout / layer_name(TOP)).unlink()
    os.mkfifo(layout / layer_name(TOP))
    with pytest.raises(IntegrityError):
        engine.images.load(str(layout))


BOMB = """
import sys
import sampan
from sampan.errors import SampanError
from sampan.transfer.load import load
engine = sampan.Engine(sys.argv[2])
try:
    load(engine.store, sys.argv[1], engine.host.facts, limit=int(sys.argv[3]))
except SampanError as exc:
    print("refused:", exc.message)
# Not ru_maxrss: across exec that keeps the peak of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def run_bomb(tmp_path: Path, limit: int) -> tuple[str, int]:
    size = 512 << 20
    info, _ = member("zeros")
    info.size = size
    path = tmp_path / "bomb.tar"
    inner = tmp_path / "layer.gz"
    with gzip.open(inner, "wb", compresslevel=1) as out:
        out.write(info.tobuf())
        for _ in range(size >> 20):
            out.write(bytes(1 << 20))
        out.write(bytes(1024))
    layer = inner.read_bytes()
    files = docker_files([layer], ["bomb:1"], config([]))
    files["config.json"] = json.dumps(
        json.loads(config([layer])) | {"rootfs": {"type": "layers", "diff_ids": [unpacked_digest(info, size)]}}
    ).encode()
    path.write_bytes(tar_of(files))
    words = [sys.executable, "-c", BOMB, str(path), str(tmp_path / "store"), str(limit)]
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout.split("\n")
    return found[0], int(found[-2])


def unpacked_digest(info: tarfile.TarInfo, size: int) -> str:
    import hashlib

    running = hashlib.sha256(info.tobuf())
    for _ in range(size >> 20):
        running.update(bytes(1 << 20))
    running.update(bytes(1024))
    return "sha256:" + running.hexdigest()


def test_bomb_is_unpacked_in_bounded_memory_and_stops_at_a_limit(tmp_path: Path) -> None:
    said, peak = run_bomb(tmp_path, 64 << 20)
    assert said.startswith("refused:") and "limit" in said
    assert peak < 128 << 10
    engine = sampan.Engine(str(tmp_path / "store"))
    assert nothing_left(engine) and engine.store.snapshots.ls() == []
    said, peak = run_bomb(tmp_path, 0)
    assert not said.startswith("refused:") and peak < 128 << 10
    assert [row["Repository"] for row in engine.images.ls()] == ["bomb"]
    engine.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bomb_ends_at_once_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """A layer of 100 GiB in 10 MB, which would take minutes."""
    info, _ = member("zeros")
    info.size = 100 << 30
    zeros = gzip.compress(bytes(256 << 20), 1)
    layer = gzip.compress(info.tobuf()) + zeros * (info.size // (256 << 20))
    path = tmp_path / "bomb.tar"
    path.write_bytes(tar_of(docker_files([layer], ["bomb:1"], config([BASE]))))
    store = tmp_path / "store"
    env = {**os.environ, "SAMPAN_ROOT": str(store)}
    words = [sys.executable, "-m", "sampan", "load", "-i", str(path)]
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and not list(store.glob("snapshots/.active/*/upper/zeros")):
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)  # on a quiet machine: 0.6 s
    assert process.returncode in (128 + number, -number)
    engine = sampan.Engine(str(store))
    if number == signal.SIGTERM:  # which gives no time to clean up: the next collection does
        gc.collect(engine.store.db, engine.store.content, engine.store.paths, remove_tree=engine.remove_tree)
    assert nothing_left(engine)
    engine.close()
