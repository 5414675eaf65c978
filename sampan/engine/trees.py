"""Removes directories, also those whose files belong to an ordinary user's mapped ids or are 0000."""

from __future__ import annotations

import os

from sampan.errors import SampanError
from sampan.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine


def remove_tree(engine: Engine, path: str) -> None:
    """Remove `path` and everything below; what only the user namespace's root may remove is removed there."""
    try:
        files.remove_tree(path)
    except PermissionError:
        if not engine.host.rootless:
            raise
        try:
            _remove_mapped(engine, path)
        except (SampanError, FileNotFoundError):
            if os.path.lexists(path):
                raise
        files.remove_tree(path)


def _remove_mapped(engine: Engine, path: str) -> None:
    """Empty the directory as root of the user namespace: an apply of whiteouts below it."""
    from sampan.oci.entry import Entry
    from sampan.runtime import rootfs
    from sampan.runtime.tree import MERGE, Applier

    names = os.listdir(path)
    write, child = rootfs.open_apply(engine.host.facts(), rootfs.Rootfs(directory=path), flags=MERGE)
    applier = Applier(write)
    for name in names:
        applier.entry(Entry("W", os.fsencode(name)))
    applier.end()
    os.close(write)
    child.wait()
