"""Erases an empty store: when its records name nothing any more, nothing of it stays below the root.

Rules: only what the store makes goes; where anything else lies in its directories (somebody chose a home directory, or
/run), they are not the store's alone, and all stays. Every process that uses a store holds its root (Paths.hold, a
shared lock); who erases takes that lock alone, so no process is left with a database whose file is gone. Where another
one uses the store, it stays as it is.
"""

from __future__ import annotations

import fcntl
import os

from sampan.errors import Unavailable
from sampan.store import dbmaking, files
from sampan.store.db import Database
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OURS = ("oci", "ingest", "snapshots", "containers", "volumes", "cache", "events", "run", ".reserve")
_OURS_OF_RUN = ("containers", "attach", "rootfs")
_TABLES = ("images", "containers", "volumes", "build_cache", "snapshots", "leases", "manifest_lists")


def erase_if_empty(
    db: Database, paths: Paths, held: int, *, remove_tree: Callable[[str], None] = files.remove_tree
) -> bool:
    """Remove everything below the root if no record is left and nobody else holds it; `held` is our Paths.hold.

    Tells whether that was so; then the database is closed, and the next use of the store makes it anew.
    """
    try:
        with Only(paths, held):
            return _erase(db, paths, held, remove_tree)
    except Unavailable:
        return False


class Only:
    """Hold a store alone within a `with` block; Unavailable while another process uses it. `held` is our own hold."""

    def __init__(self, paths: Paths, held: int) -> None:
        self._paths = paths
        self._held = held

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._held, fcntl.LOCK_SH)  # a conversion that fails has let go of the old lock
            raise Unavailable(
                f"cannot have the store {self._paths.root} alone: another process uses it", "end it, then try again"
            ) from None

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._held, fcntl.LOCK_SH)


def _erase(db: Database, paths: Paths, held: int, remove_tree: Callable[[str], None]) -> bool:
    try:
        if any(db.one(f"SELECT 1 FROM {table}") for table in _TABLES):
            return False
        present = {paths.run: files.names(paths.run), paths.root: files.names(paths.root)}
        if files.names(paths.containers) or any(not name.startswith(".") for name in files.names(paths.volumes)):
            return False  # files that no record tells of: a damaged database's, say (salvage.py)
        if not all(_is_ours(paths, directory, name) for directory, names in present.items() for name in names):
            return False
        db.close()
        dbmaking.forget_unfinished(paths)  # which would take the place of one that is missing
        files.unlink(paths.database)  # before its log: what is in the file alone is an older state
        os.fsync(held)
        for directory in present:
            for name in files.names(directory):
                if _is_ours(paths, directory, name):
                    remove_tree(f"{directory}/{name}")
        os.fsync(held)
    except OSError as exc:
        raise files.failure(f"erase the empty store {paths.root}", exc) from exc
    return True


def _is_ours(paths: Paths, directory: str, name: str) -> bool:
    if directory == paths.run:
        return name in _OURS_OF_RUN
    return name.startswith(os.path.basename(paths.database)) or (
        name in _OURS and (name != "run" or paths.run == f"{paths.root}/run")
    )
