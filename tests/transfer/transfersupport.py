"""Small trees, layers and archives, made with the standard library so that they do not depend on what they test."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sampan

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(
    name: str, data: bytes = b"", type: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size, info.mtime = type, link, mode, len(data), 1_700_000_000
    return info, data


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    return tar(member(name, data) for name, data in files.items())


BASE = tar(
    [
        member("etc", type=tarfile.DIRTYPE, mode=0o755),
        member("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
        member("etc/old", b"old"),
        member("bin", type=tarfile.SYMTYPE, link="usr/bin"),
        member("usr/bin/tool", b"#!/bin/sh\n" * 1000, mode=0o4755),
        member("usr/bin/same", type=tarfile.LNKTYPE, link="usr/bin/tool", mode=0o4755),
    ]
)
TOP = tar([member("etc/.wh.old"), member("etc/new", b"new"), member("srv/x/.wh..wh..opq")])


def config(layers: Iterable[bytes], **extra: Any) -> bytes:
    ids = [digest(layer) for layer in layers]
    steps: list[dict[str, Any]] = [
        {"created": "2024-01-02T03:04:05Z", "created_by": f"step {n}"} for n in range(len(ids))
    ]
    steps.append({"created": "2024-01-02T03:04:06Z", "created_by": "CMD", "empty_layer": True})
    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": "2024-01-02T03:04:06Z",
        "config": {"Cmd": ["/bin/tool"], "Labels": {"kind": "test"}},
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": steps,
    }
    return json.dumps(document | extra).encode()


def docker_files(
    layers: list[bytes], tags: list[str], configuration: bytes | None = None, **entry: Any
) -> dict[str, bytes]:
    """The members of a `docker save` archive."""
    data = configuration if configuration is not None else config(layers)
    names = [f"{n}/layer.tar" for n in range(len(layers))]
    listed = {"Config": "config.json", "RepoTags": tags, "Layers": names} | entry
    return {
        **dict(zip(names, layers, strict=True)),
        "config.json": data,
        "manifest.json": json.dumps([listed]).encode(),
    }


class Layout:
    """An OCI image layout in memory; `files` may be spoilt before it is written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.entries: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str, **extra: Any) -> dict[str, Any]:
        self.files["blobs/sha256/" + digest(data)[7:]] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **extra}

    def document(self, value: Any, media_type: str, **extra: Any) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), media_type, **extra)

    def image(
        self, layers: list[tuple[bytes, str]], configuration: bytes, spoil: Any = None, **extra: Any
    ) -> dict[str, Any]:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(configuration, CONFIG),
            "layers": [self.blob(data, LAYER + suffix) for data, suffix in layers],
        }
        if spoil:
            spoil(manifest)
        return self.document(manifest, MANIFEST, **extra)

    def add(self, descriptor: dict[str, Any], name: str = "") -> None:
        if name:
            descriptor = descriptor | {"annotations": {"io.containerd.image.name": name}}
        self.entries.append(descriptor)

    def build(self) -> dict[str, bytes]:
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries}).encode()
        return {"index.json": index} | self.files


def simple_layout(name: str = "docker.io/library/app:1", spoil: Any = None, suffix: str = "") -> Layout:
    layout = Layout()
    pack = gzip.compress if suffix == "+gzip" else bytes
    layers = [(pack(BASE), suffix), (pack(TOP), suffix)]
    layout.add(layout.image(layers, config([BASE, TOP]), spoil), name)
    return layout


def write_tree(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def listing(root: str) -> dict[str, tuple[Any, ...]]:
    """What can be seen of a tree: types, modes, owners, times of files, contents, links."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            content: Any = b""
            if stat.S_ISREG(st.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            mtime = st.st_mtime_ns if stat.S_ISREG(st.st_mode) else 0  # of directories and whiteouts none is promised
            found[os.path.relpath(path, root)] = (st.st_mode, st.st_uid, st.st_gid, mtime, st.st_rdev, content)
    return found


def trees(engine: sampan.Engine, name: str) -> list[dict[str, tuple[Any, ...]]]:
    image = engine.images.resolve(name)
    return [listing(engine.store.snapshots.path(diff_id)) for diff_id in image.diff_ids]


def nothing_left(engine: sampan.Engine) -> bool:
    """No image, no name, nothing half-made."""
    paths = engine.store.paths
    return (
        engine.images.ls() == []
        and os.listdir(paths.ingest) == []
        and os.listdir(paths.active) == []
        and engine.store.db.query("SELECT * FROM leases") == []
    )
