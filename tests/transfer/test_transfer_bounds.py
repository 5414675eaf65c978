"""Archives that are small and would fill the memory: each is refused, or read in as much as it is worth."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from transfersupport import (
    BASE,
    MANIFEST,
    Layout,
    config,
    docker_files,
    member,
    nothing_left,
    simple_layout,
    tar,
    tar_of,
)

import sampan
from sampan.errors import IntegrityError
from sampan.oci.tarreader import TarReader

LARGE = 4 << 20  # bytes of a document: no more are accepted
LOAD = """
import sys
import sampan
engine = sampan.Engine(sys.argv[2])
print(len(engine.images.load(sys.argv[1])))
engine.close()
# Not ru_maxrss: across exec that keeps the peak of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def padded(data: bytes, number: int = 0) -> bytes:
    return data + b" " * (LARGE - len(data) - number)


def write(path: Path, files: dict[str, bytes]) -> str:
    path.write_bytes(tar_of(files))
    return str(path)


def listed(files: dict[str, bytes], entries: list[dict[str, object]]) -> dict[str, bytes]:
    return {**files, "manifest.json": json.dumps(entries).encode()}


def test_a_config_that_is_named_very_often_is_read_once(tmp_path: Path) -> None:
    files = docker_files([BASE], [], padded(config([BASE])))
    entries: list[dict[str, object]] = [
        {"Config": "config.json", "RepoTags": [f"app:{number}"], "Layers": ["0/layer.tar"]} for number in range(60)
    ]
    path = write(tmp_path / "a.tar", listed(files, entries))
    words = [sys.executable, "-c", LOAD, path, str(tmp_path / "store")]
    names, peak = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert names == "60" and int(peak) < 128 << 10


def test_an_archive_of_too_many_images_is_refused(engine: sampan.Engine, tmp_path: Path) -> None:
    files = docker_files([BASE], [])
    links = [member(f"l{number}", type=tarfile.SYMTYPE, link="0/layer.tar") for number in range(600)]
    entries: list[dict[str, object]] = [{"Config": "config.json", "Layers": [f"l{n}"]} for n in range(600)]
    (tmp_path / "a.tar").write_bytes(tar([member(n, d) for n, d in listed(files, entries).items()] + links))
    with pytest.raises(IntegrityError, match="more than 512 images"):
        engine.images.load(str(tmp_path / "a.tar"))
    assert nothing_left(engine)


def test_configs_that_are_too_large_together_are_refused(engine: sampan.Engine, tmp_path: Path) -> None:
    files = docker_files([BASE], [])
    files |= {f"c{number}": padded(config([BASE]), number) for number in range(17)}
    entries: list[dict[str, object]] = [{"Config": f"c{number}", "Layers": ["0/layer.tar"]} for number in range(17)]
    with pytest.raises(IntegrityError, match="configs have more than 67108864 bytes"):
        engine.images.load(write(tmp_path / "a.tar", listed(files, entries)))
    assert nothing_left(engine)


def test_documents_of_a_layout_that_are_too_large_together_are_refused(engine: sampan.Engine, tmp_path: Path) -> None:
    layout: Layout = simple_layout()
    manifest = next(data for data in layout.files.values() if b'"layers": [' in data)
    for number in range(17):
        layout.add(layout.blob(padded(manifest, number), MANIFEST))
    with pytest.raises(IntegrityError, match="documents have more than 67108864 bytes"):
        engine.images.load(write(tmp_path / "a.tar", layout.build()))
    assert nothing_left(engine)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_members_with_very_long_names_are_refused(engine: sampan.Engine, tmp_path: Path, kind: bytes) -> None:
    long = "a" * 60_000
    members = [
        member(f"{n}/{long}") if kind == tarfile.REGTYPE else member(f"{n}", type=kind, link=long) for n in range(300)
    ]
    (tmp_path / "a.tar").write_bytes(tar([member(n, d) for n, d in docker_files([BASE], []).items()] + members))
    with pytest.raises(IntegrityError, match="names of its members"):
        engine.images.load(str(tmp_path / "a.tar"))
    assert nothing_left(engine)


def extended(count: int) -> bytes:
    """A file after so many extended headers of almost a mebibyte."""
    out = io.BytesIO()
    for number in range(count):
        record = b"%d K%d=%s\n"
        value = b"v" * 1_000_000
        size = len(record % (1_000_000, number, value))
        data = record % (size, number, value)
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(data)
        out.write(info.tobuf(format=tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
    info, content = member("file", b"content")
    return out.getvalue() + info.tobuf() + content + bytes(-len(content) % 512)


def test_extended_headers_without_end_are_refused() -> None:
    twice = extended(3) + extended(3)  # they are counted for each file
    assert [entry.path for entry, _ in TarReader(io.BytesIO(twice).read)] == [b"file", b"file"]
    with pytest.raises(IntegrityError, match="too many extended headers"):
        list(TarReader(io.BytesIO(extended(6)).read))
