"""The promise about docker, kept with docker: what sampan builds runs there, comes back, and is unpacked the same."""

from __future__ import annotations

import json
import os
import stat
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dockersupport
import pytest
import zstandard
from dockersupport import Docker
from transfersupport import Layout, config, docker_files, member, tar, tar_of

import sampan

pytestmark = pytest.mark.skipif(bool(dockersupport.NEEDS), reason=dockersupport.NEEDS)

DOCKERFILE = """FROM base
COPY --chown=7:8 --chmod=640 data /srv/data
RUN mkdir /made && echo made > /made/file && rm /etc/os-release && ln -s file /made/link && ln /made/file /made/hard
ENV GREETING=hello
LABEL kind=test
USER 1000:1000
WORKDIR /made
EXPOSE 80/tcp
CMD ["sh", "-c", "echo $GREETING $(id -u):$(id -g); cat file; \\
stat -c %u:%g:%a:%h /srv/data file; ls /etc/os-release || \\
 echo gone"]
"""
EXPECTED = "hello 1000:1000\nmade\n7:8:640:1\n0:0:644:2\ngone\n"


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with Docker(tmp_path_factory.mktemp("docker")) as daemon:
        yield daemon


def run(engine: sampan.Engine, image: str) -> str:
    result = engine.run(image)
    assert result.exit_code == 0, result
    return result.stdout.decode()


def save(engine: sampan.Engine, name: str, path: Path) -> bytes:
    with path.open("wb") as file:
        engine.images.save([name], file.fileno())
    return path.read_bytes()


def test_an_image_built_here_runs_unchanged_under_docker_and_comes_back(docker: Docker, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "data").write_text("x")
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.bootstrap("host", "base", ["sh", "cat", "mkdir", "rm", "ln", "ls", "stat", "id"])
    image_id = engine.build(str(context), tags=["exchange:1"])
    assert run(engine, "exchange:1") == EXPECTED
    said = docker("load", input=save(engine, "exchange:1", tmp_path / "image.tar"))
    assert "exchange:1" in said
    assert docker("image", "inspect", "--format", "{{.Id}}", "exchange:1").strip() == image_id
    assert docker("run", "--rm", "--network", "none", "exchange:1") == EXPECTED
    rows = engine.images.history("exchange:1")
    theirs = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "exchange:1").splitlines()
    assert len(theirs) == len(rows)
    docker("save", "--output", str(tmp_path / "back.tar"), "exchange:1")
    other = sampan.Engine(str(tmp_path / "other"))
    other.images.load(str(tmp_path / "back.tar"))
    assert other.images.resolve("exchange:1").id == image_id
    assert run(other, "exchange:1") == EXPECTED
    other.close()
    engine.close()


def test_an_image_built_by_docker_runs_here(docker: Docker, tmp_path: Path) -> None:
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.bootstrap("host", "theirbase", ["sh", "cat", "mkdir", "rm", "ln", "ls", "stat", "id"])
    docker("load", input=save(engine, "theirbase", tmp_path / "base.tar"))
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(DOCKERFILE.replace("FROM base", "FROM theirbase"))
    (tmp_path / "context/data").write_text("x")
    # The classic builder has no --chmod: the mode comes with the file.
    text = (tmp_path / "context/Dockerfile").read_text().replace(" --chmod=640", "")
    (tmp_path / "context/Dockerfile").write_text(text)
    (tmp_path / "context/data").chmod(0o640)
    docker("build", "--network", "none", "-t", "theirs:1", str(tmp_path / "context"))
    assert docker("run", "--rm", "--network", "none", "theirs:1") == EXPECTED
    docker("save", "--output", str(tmp_path / "theirs.tar"), "theirs:1")
    engine.images.load(str(tmp_path / "theirs.tar"))
    assert run(engine, "theirs:1") == EXPECTED
    # And so does the file system of one of its containers.
    name = docker("create", "theirs:1").strip()
    docker("export", "--output", str(tmp_path / "root.tar"), name)
    docker("rm", name)
    with (tmp_path / "root.tar").open("rb") as file:
        engine.images.import_(file.fileno(), "imported:1", ())
    assert engine.run("imported:1", ["cat", "/made/file"]).stdout == b"made\n"
    engine.close()


# ---- the same tree, file by file (what go-archive 0.3.1 to 0.3.3 had to repair is among it) ----

DIR, LINK, HARD, FIFO, CHAR, BLOCK = (
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # VFS_CAP_REVISION_2, cap_net_bind_service


def entry(name: str, data: bytes = b"", type: bytes = tarfile.REGTYPE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = type, len(data)
    info.mode, info.mtime = (0o755 if type == DIR else 0o644), 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def xattrs(**values: bytes) -> dict[str, str]:
    return {f"SCHILY.xattr.{k.replace('__', '.')}": v.decode("utf-8", "surrogateescape") for k, v in values.items()}


BOTTOM = [
    entry("usr", type=DIR),
    entry("usr/bin", type=DIR),
    entry("bin", type=LINK, linkname="usr/bin"),
    entry("lib", type=LINK, linkname="/usr/lib"),
    entry("usr/lib/real.so", b"library"),
    entry("usr/bin/tool", b"#!/bin/sh\n", mode=0o4755, uid=3, gid=4),
    entry("usr/bin/absolute", type=HARD, linkname="/usr/bin/tool"),
    entry("usr/bin/relative", type=HARD, linkname="usr/bin/tool"),
    entry("usr/bin/dotted", type=HARD, linkname="./usr/bin/tool", mode=0o4711, uid=7, gid=8, mtime=1_600_000_001),
    entry("implied/parents/of/this", b"x", uid=5),
    entry("etc/alternatives/x", type=LINK, linkname="/usr/bin/tool"),
    entry("etc/dangling", type=LINK, linkname="/nowhere"),
    entry("etc/hardlink-to-symlink", type=HARD, linkname="etc/dangling"),
    entry("./dot/slash", b"dot"),
    entry("/absolute/name", b"absolute"),
    entry("double//slash/", type=DIR),
    entry("dev/null", type=CHAR, devmajor=1, devminor=3, mode=0o666),
    entry("dev/sda", type=BLOCK, devmajor=8, devminor=0, mode=0o660, gid=6),
    entry("run/pipe", type=FIFO, mode=0o600),
    entry("sticky", type=DIR, mode=0o1777),
    entry("setgid", type=DIR, mode=0o2775, gid=50),
    entry("secret", b"0", mode=0o000, uid=1000, gid=1000),
    entry("times/old", b"x", mtime=1),
    entry("times/nanoseconds", b"x", pax_headers={"mtime": "1700000000.123456789"}),
    entry("times", type=DIR, mtime=1_600_000_000),
    entry("attributes/user", b"x", pax_headers=xattrs(user__colour=b"blue")),
    entry("attributes/capability", b"x", mode=0o755, pax_headers=xattrs(security__capability=CAPABILITY)),
    entry("big-ids", b"x", uid=2_000_000, gid=3_000_000),
    entry("n" * 200 + "/" + "m" * 200, b"long"),
    entry("with space/and\nnewline", b"x"),
    entry("\udcff\udcfe", b"not UTF-8"),
    # docker refuses a layer that names a path twice; what we do with it is in tests/tree.
    entry("kind", type=DIR, mode=0o700),
    entry("kind/inside", b"x"),
    entry("was-a-directory/x", b"x"),
    entry("opaque/old", b"x"),
    entry("opaque/sub/old", b"x"),
    entry("removed/file", b"x"),
    entry("removed/directory/x", b"x"),
    entry("emptied/a", b"x"),
    entry("empty", b""),
    entry("sparse", b"\0" * 100_000 + b"x" + b"\0" * 100_000),
]
MIDDLE = [
    entry("bin/through-link", b"below usr/bin in a merged tree"),
    entry("opaque", type=DIR),
    entry("opaque/.wh..wh..opq"),
    entry("opaque/new", b"x"),
    entry("removed/.wh.file"),
    entry("removed/.wh.directory"),
    entry("emptied/.wh.a"),
    entry(".wh.sticky"),
    entry("was-a-directory", type=LINK, linkname="kind"),
    entry("usr/bin/tool", b"replaced", mode=0o755),
    entry("kind", b"a file again"),
    entry("usr/lib", type=DIR, mode=0o711, uid=9),
]
TOP = [
    entry("removed/file", b"back"),
    entry(".wh.bin"),
    entry("sticky", type=DIR, mode=0o1777),
    entry("sticky/x", b"x"),
]


NOW = 1_750_000_000 * 10**9  # what was not told its time has a later one


def described(root: str) -> dict[str, tuple[Any, ...]]:
    """Everything that a layer says of each file; which files are one is told by the first of their names.

    Directories that no entry of a layer names, and whiteouts, have the time at which they were made: neither says it.
    """
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    names = [root]
    for directory, below, files in os.walk(root):
        below.sort()
        names += [os.path.join(directory, name) for name in sorted(below + files)]
    for full in names:
        state, name = os.lstat(full), os.path.relpath(full, root)
        content: Any = None
        if stat.S_ISREG(state.st_mode):
            content = Path(full).read_bytes()
        elif stat.S_ISLNK(state.st_mode):
            content = os.readlink(full)
        attributes = {
            key: os.getxattr(full, key, follow_symlinks=False) for key in os.listxattr(full, follow_symlinks=False)
        }
        link = first.setdefault((state.st_dev, state.st_ino), name)
        found[name] = (
            oct(state.st_mode),
            state.st_uid,
            state.st_gid,
            min(state.st_mtime_ns, NOW),
            state.st_rdev,
            content,
            attributes,
            link,
        )
    return found


def differences(ours: dict[str, tuple[Any, ...]], theirs: dict[str, tuple[Any, ...]]) -> list[tuple[str, Any, Any]]:
    return [
        (name, ours.get(name), theirs.get(name))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def test_docker_loads_what_we_save_of_zstd_layers(docker: Docker, engine: sampan.Engine, tmp_path: Path) -> None:
    made, layers = Layout(), [tar([member("a", b"1")]), tar([member("b", b"2")])]
    made.add(
        made.image([(zstandard.compress(one), "+zstd") for one in layers], config(layers)), "docker.io/library/z:1"
    )
    (tmp_path / "in.tar").write_bytes(tar_of(made.build()))
    engine.images.load(str(tmp_path / "in.tar"))
    assert "z:1" in docker("load", input=save(engine, "z:1", tmp_path / "out.tar"))
    shown = docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", "z:1")
    assert json.loads(shown) == engine.images.resolve("z:1").diff_ids


def test_layers_are_unpacked_as_docker_unpacks_them(docker: Docker, tmp_path: Path) -> None:
    layers = [tar(members) for members in (BOTTOM, MIDDLE, TOP)]
    archive = tmp_path / "odd.tar"
    archive.write_bytes(tar_of(docker_files(layers, ["odd:1"], config(layers))))
    docker("load", "--input", str(archive))
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.images.load(str(archive))
    image = engine.images.resolve("odd:1")
    ours = [described(engine.store.snapshots.path(diff_id)) for diff_id in image.diff_ids]
    theirs = [described(path) for path in docker.layers("odd:1")]
    engine.close()
    for n, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        found = differences(mine, other)
        for row in found:
            print(n, *row, sep="\n   ")
        assert not found
