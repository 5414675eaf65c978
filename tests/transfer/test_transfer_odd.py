"""Names and times that few archives have: they come through unchanged, and so does the layer's digest."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from transfersupport import config, digest, docker_files, member, tar_of

import sampan

NAMES = {
    "not UTF-8": "d/\udcff\udcfe",
    "newline": "d/a\nb",
    "255 bytes": "d/" + "n" * 255,
    "longer than PATH_MAX": "/".join(["p" * 200] * 19 + ["f"]),
    "leading dash": "-rf",
    "spaces": " a b ",
    "tab and quotes": "d/\t'\"",
    "backslash": "d/a\\b",
    "unicode": "d/ångström",
}
TIMES = {
    "epoch": "0",
    "before": "-1",
    "nanoseconds": "1700000000.000000001",
    "far": "4294967296",
    "before with a fraction": "-1.5",
}


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def round_trip(engine: sampan.Engine, tmp_path: Path, data: bytes) -> None:
    """Load it, build on it, take it out and in again: the layer is the same each time, and so are its bytes."""
    (tmp_path / "in.tar").write_bytes(tar_of(docker_files([data], ["odd:1"], config([data]))))
    engine.images.load(str(tmp_path / "in.tar"))
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM odd:1\nCOPY x /added\n")
    (context / "x").write_text("x")
    engine.build(str(context), tags=["odd:2"])
    with (tmp_path / "out.tar").open("wb") as file:
        engine.images.save(["odd:2"], file.fileno())
    other = sampan.Engine(str(tmp_path / "other"))
    other.images.load(str(tmp_path / "out.tar"))
    assert other.images.resolve("odd:2").diff_ids[0] == digest(data)
    with open(other.store.content.path(digest(data)), "rb") as blob:
        assert blob.read() == data
    other.close()


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_come_through(engine: sampan.Engine, tmp_path: Path, name: str) -> None:
    data = layer(member(NAMES[name], b"content"))
    round_trip(engine, tmp_path, data)
    root = engine.store.snapshots.path(engine.images.resolve("odd:1").diff_ids[0])
    at = os.open(root, os.O_RDONLY)
    *parents, last = NAMES[name].split("/")
    for part in parents:
        below = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    with open(os.open(last, os.O_RDONLY, dir_fd=at), "rb") as file:
        assert file.read() == b"content"
    os.close(at)


@pytest.mark.parametrize("time", TIMES)
def test_odd_times_come_through(engine: sampan.Engine, tmp_path: Path, time: str) -> None:
    info, content = member("f", b"x")
    info.pax_headers = {"mtime": TIMES[time]}
    round_trip(engine, tmp_path, layer((info, content)))
    root = engine.store.snapshots.path(engine.images.resolve("odd:1").diff_ids[0])
    whole, _, fraction = TIMES[time].partition(".")
    nanoseconds = int(whole) * 10**9 + (-1 if whole.startswith("-") else 1) * int(fraction.ljust(9, "0") or 0)
    assert os.stat(root + "/f").st_mtime_ns == nanoseconds


@pytest.mark.parametrize("time", ["1e400", "9223372036854775808", "-9223372036854775809", "nan", "1 2", "١"])
def test_times_that_are_none_are_refused_or_bounded(engine: sampan.Engine, tmp_path: Path, time: str) -> None:
    info, content = member("f", b"x")
    info.pax_headers = {"mtime": time}
    data = layer((info, content))
    (tmp_path / "in.tar").write_bytes(tar_of(docker_files([data], ["odd:1"], config([data]))))
    with pytest.raises(sampan.SampanError, match="time|number"):
        engine.images.load(str(tmp_path / "in.tar"))
