"""The names that a shell completes: asked at every press of a key, so one query and nothing else.

A store that is not there is not made for it. Shells expand what they are given (bash's `compgen -W`: `$(…)` too), and
--root may name anybody's store: what none of our names can have is left out.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine

_MOST = 1000
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/:@")
_ENDED = "('created', 'exited')"
_QUERIES = {
    "containers": "SELECT name FROM containers",
    "running": f"SELECT name FROM containers WHERE status NOT IN {_ENDED}",
    "stopped": f"SELECT name FROM containers WHERE status IN {_ENDED}",
    "images": "SELECT name FROM image_references",
    "volumes": "SELECT name FROM volumes WHERE anonymous = 0",
}


def names(engine: Engine, kind: str) -> list[str]:
    """Return the names of a kind: containers, running, stopped, images, volumes, or everything, sorted."""
    from sampan.store.db import Database
    from sampan.store.paths import locate

    paths = locate(engine._root)
    if not os.path.exists(paths.database):
        return []
    db = Database(paths)
    kinds = ("containers", "images", "volumes") if kind == "everything" else (kind,)
    found: list[str] = []
    for one in kinds:
        rows = [row[0] for row in db.query(f"{_QUERIES[one]} ORDER BY name LIMIT {_MOST}")]
        rows = [row for row in rows if _LETTERS.issuperset(row)]
        found += [_familiar(row) for row in rows] if one == "images" else rows
    return found


def _familiar(name: str) -> str:
    from sampan.oci import reference

    return reference.parse(name).familiar()
