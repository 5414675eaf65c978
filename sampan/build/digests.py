"""Digests of the context's files: computed when a file is new or changed, else remembered by its stat.

The store keeps what earlier builds computed (store/buildcache.py says when a stat is good enough to believe).
"""

from __future__ import annotations

from sampan.build.context import changed
from sampan.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.build.context import Context, File, Reader
    from sampan.store.buildcache import BuildCache, ContextCache

_BULK = 1 << 20


class Digests:
    """Give the digests of one context's files; `directory` is "" for a context that is not kept.

    Without `believe` all files are read, and what earlier builds remembered is replaced.
    """

    def __init__(self, cache: BuildCache, directory: str, believe: bool = True) -> None:
        self._cache = cache
        self._believe = believe
        self._directory = directory
        self._known: ContextCache | None = None
        self.before: Callable[[], object] = lambda: None  # called when a file has to be read: that may take long

    def of(self, context: Context, file: File) -> str:
        """Give the digest of a file's content, and note it in the file."""
        file.digest = self._of(context, file)
        return file.digest

    def _of(self, context: Context, file: File) -> str:
        if not self._directory:
            return self._read(context, file)
        if self._known is None:
            self._known = self._cache.context(self._directory)
        found = self._known.get(file.path, file.stat) if self._believe else None
        if found is None:
            found = self._read(context, file)
            self._known.put(file.path, file.stat, found)
        return found

    def _read(self, context: Context, file: File) -> str:
        self.before()
        return _read(context, file)

    def checked(self, reader: Reader) -> Checked:
        """Read a file again, which is to be what its digest says."""
        return Checked(reader, self._forget)

    def _forget(self, path: str) -> None:
        if self._known is not None:
            self._known.forget(path)

    def save(self) -> None:
        """Keep what was computed for the next build."""
        if self._known is not None:
            self._known.save()


class Checked:
    """Read a file to its end, and see there whether its content is what its digest says.

    A stat does not tell: what is written through a mapping does not change it on tmpfs at all, elsewhere only now and
    then (mmap(2), NOTES). Without this, whoever changes a file between its two readings puts another content under its
    key, for every later build.
    """

    def __init__(self, reader: Reader, forget: Callable[[str], None]) -> None:
        self._reader = reader
        self._forget = forget
        self._running = digests.sha256(bulk=reader.file.stat.st_size > _BULK)

    def read(self, count: int = _BULK) -> bytes:
        """Give up to `count` bytes; none means the end."""
        data = self._reader.read(count)
        self._running.update(data)
        return data

    def end(self) -> None:
        """Read what is left; Conflict when the content is another one."""
        while self.read():
            pass
        self._reader.check()
        file = self._reader.file
        if digests.PREFIX + self._running.hexdigest() != file.digest:
            self._forget(file.path)
            raise changed(file.path)


def _read(context: Context, file: File) -> str:
    running = digests.sha256(bulk=file.stat.st_size > _BULK)
    with context.opened(file) as reader:
        for piece in reader.chunks():
            running.update(piece)
    return digests.PREFIX + running.hexdigest()
