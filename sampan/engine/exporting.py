"""`export`: a container's own files as a tar, whether it runs or not."""

from __future__ import annotations

import os

from sampan.engine import alone
from sampan.runtime.rootfs import Rootfs
from sampan.transfer.export import export_tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine


def export(engine: Engine, name: str, fd: int) -> int:
    """Write the container's file system, without what is mounted in it, as a tar archive; give its size in bytes."""
    record, paths = engine.containers.get(name), engine.store.paths
    alone.restore(engine, record, "export")
    upper = os.path.relpath(os.path.join(paths.container(record.id), "upper"), paths.snapshots)
    lowers = [upper, *engine.store.snapshots.lowers(record.config["layers"])]
    size = export_tar(engine.host.facts(), Rootfs(paths.snapshots, lowers), fd)
    engine.events.container("export", record)
    return size
