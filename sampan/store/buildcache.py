"""The build cache: the result of each step by its key, and the digests of a context's files by their stat.

    cache.get(key) -> result | None         result is any JSON value
    cache.put(key, result, [diff_id, …])    these layers stay for as long as the entry does
    files = cache.context("/home/me/app")   files.get(path, stat) -> digest | None; files.put(…); files.save()

Rules: losing the cache loses time only, so nothing here is made durable, and what looks wrong counts as absent.
"""

from __future__ import annotations

import os
import time
import zlib
from _struct import Struct

from sampan.oci import digest as digests
from sampan.oci import jsontext
from sampan.store import files
from sampan.store.db import Database
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Entry = tuple[int, int, int, int, int, bytes]

_NANOSECONDS = 1_000_000_000
_TOUCH_AFTER = 3600 * _NANOSECONDS  # the time of last use need not be finer: a hit stays a read
_RACY = 2 * _NANOSECONDS  # the coarsest time stamps of a file system in use (FAT)
_MAX_OLD = 200_000
_MAGIC = b"sampan context 1\n"
_COUNTS = Struct("<qQ")  # when hashing began, number of entries
_ENTRY = Struct("<qqqqq32s")  # size, mtime, ctime, inode, mode, digest


class BuildCache:
    """The build cache of one store."""

    def __init__(self, db: Database, paths: Paths) -> None:
        self._db = db
        self._paths = paths

    def get(self, key: str) -> Any:
        """Return what was put under a key, or None."""
        row = self._db.one("SELECT result, used FROM build_cache WHERE key = ?", (key,))
        if row is None:
            return None
        now = time.time_ns()
        if abs(now - row[1]) > _TOUCH_AFTER:
            with self._db.transaction(durable=False):
                self._db.execute("UPDATE build_cache SET used = ? WHERE key = ?", (now, key))
        return jsontext.loads(row[0])

    def put(self, key: str, result: Any, diff_ids: Iterable[str] = ()) -> None:
        """Keep the result of a step, with the layers that it needs."""
        now = time.time_ns()
        held = jsontext.dumps([digests.validate(diff_id) for diff_id in diff_ids])
        with self._db.transaction(durable=False):
            self._db.execute(
                "INSERT OR REPLACE INTO build_cache (key, result, diff_ids, created, used) VALUES (?, ?, ?, ?, ?)",
                (key, jsontext.dumps(result), held, now, now),
            )

    def ls(self) -> list[tuple[str, Any, int, int]]:
        """Return (key, result, created, last used) of every entry, the longest unused first; times in unix ns."""
        rows = self._db.query("SELECT key, result, created, used FROM build_cache ORDER BY used, rowid")
        return [(key, jsontext.loads(result), created, used) for key, result, created, used in rows]

    def remove(self, key: str) -> None:
        """Forget one entry; a missing one is fine."""
        with self._db.transaction(durable=False, frees=True):
            self._db.execute("DELETE FROM build_cache WHERE key = ?", (key,))

    def prune(self, *, unused_for: float = 0) -> int:
        """Forget the entries that nobody used for that many seconds (0: all); return how many."""
        before = time.time_ns() - int(unused_for * _NANOSECONDS)
        with self._db.transaction(durable=False, frees=True):
            if unused_for:
                return self._db.execute("DELETE FROM build_cache WHERE used < ?", (before,))
            count = self._db.execute("DELETE FROM build_cache")
        for name in os.listdir(self._paths.cache):
            if name.startswith("context-"):
                files.unlink(f"{self._paths.cache}/{name}")
        return count

    def context(self, directory: str) -> ContextCache:
        """Return the file digests that earlier builds of a context directory left."""
        real = os.path.realpath(directory)
        state = os.stat(real)
        key = digests.sha256_hex(f"{state.st_dev}:{state.st_ino}:{real}".encode("utf-8", "surrogateescape"))[:32]
        return ContextCache(self._paths.context_cache(key))


class ContextCache:
    """Digests of one context's files, good for as long as a file's stat is the same.

    A file that changes twice within one tick of the file system's clock, before and after the hashing, keeps its stat.
    So an entry counts only if the file was at rest when hashing began: unchanged for two seconds by then ("racy git").
    """

    __slots__ = ("_path", "_began", "_old", "_new", "_changed")

    def __init__(self, path: str) -> None:
        self._path = path
        self._began = time.time_ns()
        self._old = _load(path)
        self._new: dict[str, Entry] = {}
        self._changed = False

    def get(self, path: str, state: os.stat_result) -> str | None:
        """Return the digest that `path` had with this very stat, or None."""
        entry = self._old.get(path)
        if entry is None or entry[:5] != _signature(state):
            return None
        self._new[path] = entry
        return digests.PREFIX + entry[5].hex()

    def put(self, path: str, state: os.stat_result, digest: str) -> None:
        """Remember the digest of a file; `state` was taken before it was read."""
        signature = _signature(state)
        if max(map(abs, signature)) < 1 << 63 and "\0" not in path:
            self._new[path] = (*signature, bytes.fromhex(digests.hex_of(digest)))
            self._changed = True

    def forget(self, path: str) -> None:
        """Forget the digest of a file that turned out to be wrong."""
        self._old.pop(path, None)
        self._new.pop(path, None)
        self._changed = True

    def save(self) -> None:
        """Write the digests down, in one go; raise Unavailable when the disk is full."""
        if not self._changed:
            return
        kept = self._new if len(self._old) > _MAX_OLD else {**self._old, **self._new}
        try:
            files.replace(self._path, _dump(self._began, kept), durable=False)
        except OSError as exc:
            raise files.failure(f"write {self._path}", exc) from exc
        self._changed = False


def _signature(state: os.stat_result) -> tuple[int, int, int, int, int]:
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_mode


def _dump(began: int, entries: dict[str, Entry]) -> bytes:
    """Return header, table and names; the header's checksum tells a file that a power cut tore."""
    names = "\0".join(entries).encode("utf-8", "surrogateescape")
    body = b"".join(_ENTRY.pack(*entry) for entry in entries.values()) + names
    rest = _COUNTS.pack(began, len(entries)) + body
    return _MAGIC + zlib.crc32(rest).to_bytes(4, "little") + rest


def _load(path: str) -> dict[str, Entry]:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError:
        return {}
    rest = data[len(_MAGIC) + 4 :]
    if not data.startswith(_MAGIC) or zlib.crc32(rest).to_bytes(4, "little") != data[len(_MAGIC) :][:4]:
        return {}
    began, count = _COUNTS.unpack_from(rest)
    if not count:
        return {}
    split = _COUNTS.size + count * _ENTRY.size
    names = rest[split:].decode("utf-8", "surrogateescape").split("\0")
    at_rest = began - _RACY
    table = _ENTRY.iter_unpack(rest[_COUNTS.size : split])
    return {name: entry for name, entry in zip(names, table, strict=True) if entry[1] < at_rest > entry[2]}
