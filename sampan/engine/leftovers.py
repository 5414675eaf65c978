"""What killed processes left of containers: directories of which no record tells, with their groups and sockets.

`ps` looks for them each time (one listing of a directory), so that nothing stays for long whatever was killed. It gives
them PATIENCE: where thousands are left, each `ps` takes some, and `system prune` all.
"""

from __future__ import annotations

import os
import time

from sampan.errors import SampanError
from sampan.runtime import cgroup
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine

PATIENCE = 0.2  # seconds of one `ps`
_HEX = frozenset("0123456789abcdef")


def collect(engine: Engine, *, seconds: float = 60, patience: float = float("inf")) -> None:
    """Remove what no record tells of, one at least, and as many as `patience` (in seconds) allows; what cannot be
    removed is warned of.

    What is younger than `seconds` is left alone: somebody may be starting or removing it. What an interrupted removal
    has renamed stays until the record is gone too: that tells it from a directory which a power cut took.
    """
    store = engine.store
    names = [name for name in os.listdir(store.paths.containers) if _identity(name)]
    if not names:
        return
    known = {row[0] for row in store.db.query("SELECT id FROM containers")}
    end = time.monotonic() + patience
    for name in names:
        if _identity(name) not in known and _collect(engine, name, seconds) and time.monotonic() > end:
            return


def _identity(name: str) -> str:
    found = name.removeprefix(files.GONE)
    return found if len(found) == 64 and _HEX.issuperset(found) else ""


def _collect(engine: Engine, name: str, seconds: float) -> bool:
    """Remove one unless it is too young; tell whether it was tried."""
    from sampan.store import gc

    path = f"{engine.store.paths.containers}/{name}"
    if gc.is_starting(path, seconds):
        return False
    container_id = _identity(name)
    try:
        placement = cgroup.named(container_id)
        if placement.directories():
            cgroup.kill(placement)
            cgroup.remove(placement)
        socket = engine.containers.socket(container_id)
        if socket and not name.startswith(files.GONE):
            files.unlink(socket)
        engine.remove_tree(path)
    except (SampanError, OSError) as error:
        engine.warn([f"cannot remove what is left of container {container_id[:12]}: {error}"])
    return True


def forget_salvaged(engine: Engine) -> None:
    """Remove what `system check --repair` kept of a damaged database: the file, and the files of containers whose
    records were lost; those of one that still has processes stay.
    """
    from sampan.store import dbmaking, salvage

    paths = engine.store.paths
    base = os.path.basename(paths.database)
    for name in os.listdir(paths.root):
        if name.startswith((base + dbmaking.KEPT, base + dbmaking.MAKING, base + dbmaking.READY)):
            files.unlink(f"{paths.root}/{name}")
    for name in os.listdir(paths.containers):
        if name.startswith(salvage.LOST) and not cgroup.named(name.removeprefix(salvage.LOST)).directories():
            engine.remove_tree(f"{paths.containers}/{name}")
