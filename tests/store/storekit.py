"""Every part of a store, small images made of nothing but bytes, and processes that come to an end."""

from __future__ import annotations

import gc as garbage
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sampan.oci import digest, image
from sampan.store import gc
from sampan.store.buildcache import BuildCache
from sampan.store.containers import Containers, Record
from sampan.store.content import Content
from sampan.store.db import Database
from sampan.store.images import Image, Images
from sampan.store.leases import Lease, Leases
from sampan.store.paths import Paths
from sampan.store.snapshots import Snapshots
from sampan.store.volumes import Volumes

ROOT = Path(__file__).parents[2]
Spawn = Callable[..., "subprocess.Popen[str]"]


class Store:
    """Every part of one store."""

    def __init__(self, root: str) -> None:
        self.paths = Paths(root)
        self.db = Database(self.paths)
        self.content = Content(self.paths)
        self.snapshots = Snapshots(self.db, self.paths)
        self.images = Images(self.db, self.paths)
        self.containers = Containers(self.db, self.paths)
        self.volumes = Volumes(self.db, self.paths)
        self.cache = BuildCache(self.db, self.paths)
        self.leases = Leases(self.db)

    def snapshot(self, layer: bytes, **words: Any) -> str:
        """Commit a snapshot that holds one file, named after its layer; return the diff_id."""
        active = self.snapshots.prepare()
        Path(active.upper, "file").write_bytes(layer)
        self.snapshots.commit(active, digest.of(layer), size=len(layer), **words)
        return digest.of(layer)

    def image(self, *layers: bytes, tag: str = "", unpack: bool = True, **config: Any) -> Image:
        """Store an image with these layers, under a lease."""
        with self.leases.take("image") as lease:
            return self._image(lease, layers, tag, unpack, config)

    def _image(self, lease: Lease, layers: tuple[bytes, ...], tag: str, unpack: bool, config: dict[str, Any]) -> Image:
        diff_ids = [self.content.add(layer, lease=lease) for layer in layers]
        if unpack:
            for layer in layers:
                self.snapshot(layer, lease=lease)
        document = {"architecture": "amd64", "os": "linux", "config": config}
        data = image.build_config({**document, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        parts = [
            image.descriptor(image.OCI_LAYER, one, len(layer)) for one, layer in zip(diff_ids, layers, strict=True)
        ]
        manifest = image.build_manifest(
            image.descriptor(image.OCI_CONFIG, self.content.add(data, lease=lease), len(data)), parts
        )
        found = self.images.put(self.content.add(manifest, lease=lease))
        if tag:
            self.images.tag(tag, found.manifest_digest)
            found = self.images.resolve(tag)
        return found

    def container(self, name: str = "", **fields: Any) -> Record:
        """Insert a container."""
        return self.containers.insert(Record(os.urandom(32).hex(), name=name, **fields))

    def collect(self) -> gc.Collected:
        """Run the collector."""
        return gc.collect(self.db, self.content, self.paths)


class Interrupted(Database):
    """A database of which another process makes something, right after the first question that begins so."""

    def __init__(self, paths: Paths, question: str, work: Callable[[], object]) -> None:
        super().__init__(paths)
        self._question, self._works = question, [work]

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        answer = super().query(sql, args)
        if self._works and sql.startswith(self._question):
            self._works.pop()()
        return answer


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a process that must succeed; return its output."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def descriptors() -> int:
    """Count the open descriptors, without those that garbage of earlier tests still holds."""
    garbage.collect()
    return len(os.listdir("/proc/self/fd"))


def killed(process: subprocess.Popen[str], after: str = "", delay: float = 0.0) -> None:
    """Kill a process, after it has printed a line and some seconds have passed."""
    if after:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip() == after, process.communicate()[1]
    time.sleep(delay)
    process.kill()
    process.communicate()
