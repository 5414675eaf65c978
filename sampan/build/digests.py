"""Digests of the context's files: computed when a file is new or changed, else remembered by its stat.

The store keeps what earlier builds computed (store/buildcache.py says when a stat is good enough to believe).
"""

from __future__ import annotations

from sampan.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.build.context import Context, File
    from sampan.store.buildcache import BuildCache, ContextCache

_BULK = 1 << 20


class Digests:
    """Give the digests of one context's files; `directory` is "" for a context that is not kept."""

    def __init__(self, cache: BuildCache, directory: str) -> None:
        self._cache = cache
        self._directory = directory
        self._known: ContextCache | None = None

    def of(self, context: Context, file: File) -> str:
        """Give the digest of a file's content."""
        if not self._directory:
            return _read(context, file)
        if self._known is None:
            self._known = self._cache.context(self._directory)
        found = self._known.get(file.path, file.stat)
        if found is None:
            found = _read(context, file)
            self._known.put(file.path, file.stat, found)
        return found

    def save(self) -> None:
        """Keep what was computed for the next build."""
        if self._known is not None:
            self._known.save()


def _read(context: Context, file: File) -> str:
    running = digests.sha256(bulk=file.stat.st_size > _BULK)
    with context.opened(file) as reader:
        for piece in reader.chunks():
            running.update(piece)
    return digests.PREFIX + running.hexdigest()
