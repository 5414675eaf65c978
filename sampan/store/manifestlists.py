"""Indexes that are being put together (`manifest create`): a name, and the descriptors that it will list.

They are lists of words about manifests in registries, not content: nothing of them is in the layout before a push.
"""

from __future__ import annotations

import time

from sampan.errors import NotFound
from sampan.oci import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.store.db import Database


class ManifestLists:
    """The lists of one store, by full reference."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, name: str) -> list[dict[str, Any]]:
        """Return the entries of a list; raise NotFound."""
        row = self._db.one("SELECT entries FROM manifest_lists WHERE name = ?", (name,))
        if row is None:
            raise NotFound(f"no such manifest list: {name}", "make it with `sampan manifest create`")
        entries: list[dict[str, Any]] = jsontext.loads(row[0])
        return entries

    def has(self, name: str) -> bool:
        """Tell whether there is a list of this name."""
        return self._db.one("SELECT 1 FROM manifest_lists WHERE name = ?", (name,)) is not None

    def put(self, name: str, entries: list[dict[str, Any]]) -> None:
        """Keep a list in place of what had its name."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO manifest_lists VALUES (?, ?, ?)",
                (name, jsontext.dumps(entries), time.time_ns()),
            )

    def remove(self, name: str) -> None:
        """Forget a list; raise NotFound."""
        with self._db.transaction(frees=True):
            if not self._db.execute("DELETE FROM manifest_lists WHERE name = ?", (name,)):
                raise NotFound(f"no such manifest list: {name}")
