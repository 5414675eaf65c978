"""Compares an unpacked layer with what its blob says, file by file, and unpacks it again.

Both sides are directories that the helper packs, so there is one reading of archives and none of its own here: the
blob is unpacked beside the store a second time, then the two are read side by side in constant memory.
"""

from __future__ import annotations

import os
from contextlib import closing

from sampan.errors import IntegrityError, SampanError
from sampan.oci import digest as digests
from sampan.oci import entry as kinds
from sampan.oci.layer import TarReader
from sampan.runtime import rootfs, tree
from sampan.transfer import codec, layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.oci.entry import Content, Entry
    from sampan.runtime.compile import Facts
    from sampan.runtime.rootfs import Rootfs
    from sampan.store.parts import Store
    from sampan.store.snapshots import Active

    Item = tuple[Entry, Content]


def unpack_again(store: Store, facts: Facts, digest: str, diff_id: str) -> tuple[Active, int]:
    """Unpack a blob into a new active snapshot, for the caller to commit or abort; IntegrityError if it is damaged.

    The number is the sum of the sizes of its files.
    """
    blob, layer = digests.sha256(bulk=True), digests.sha256(bulk=True)
    fd = store.content.open(digest)
    active = store.snapshots.prepare()

    def raw(count: int) -> bytes:
        data = os.read(fd, count)
        blob.update(data)
        return data

    try:
        peek = codec.Peek(raw)
        decode = codec.decoder(codec.detect(peek.peek(6)), peek.read, f"blob {digest}")

        def content(count: int) -> bytes:
            data = decode(count)
            layer.update(data)
            return data

        size = layers.unpack(TarReader(content), facts, active.upper)
        for rest in (content, peek.read):
            while rest(layers.STEP):
                pass
        if digests.PREFIX + blob.hexdigest() != digest or digests.PREFIX + layer.hexdigest() != diff_id:
            raise IntegrityError(f"blob {digest} is damaged: its content has another digest")
    except BaseException:
        store.snapshots.abort(active)
        raise
    finally:
        os.close(fd)
    return active, size


class Difference:
    """One file that two roots do not share: `kind` A (only in the second), D (only in the first) or C; `why`.

    `before` and `after` are its sizes in bytes, 0 where it is not.
    """

    __slots__ = ("after", "before", "kind", "path", "why")

    def __init__(self, kind: str, path: bytes, why: str, before: int = 0, after: int = 0) -> None:
        self.kind = kind
        self.path = "/" + path.decode("utf-8", "backslashreplace")
        self.why = why
        self.before = before
        self.after = after

    def __str__(self) -> str:
        return f"{self.path} {self.why}" if self.kind != CHANGED else f"{self.path}: {self.why}"


ADDED, CHANGED, DELETED = "A", "C", "D"


def differences(facts: Callable[[], Facts], wanted: Rootfs, found: Rootfs) -> Iterator[Difference]:
    """Give how `found` differs from `wanted`, by path, in constant memory.

    Times of directories and the root itself do not count: they tell when something was made, not what.
    """
    with closing(rootfs.packed(facts(), wanted)) as left, closing(rootfs.packed(facts(), found)) as right:
        one, other = _next(left), _next(right)
        while one or other:
            order = _order(one, other)
            if order < 0 and one:
                yield Difference(DELETED, one[0].path, "is missing", one[0].size)
            elif order > 0 and other:
                yield Difference(ADDED, other[0].path, "does not belong there", 0, other[0].size)
            elif one and other:
                why = _difference(one, other)
                if why:
                    yield Difference(CHANGED, one[0].path, why, one[0].size, other[0].size)
            one = _next(left) if order <= 0 else one
            other = _next(right) if order >= 0 else other


def _next(items: Iterator[Item]) -> Item | None:
    return next((item for item in items if item[0].path), None)


def _order(one: Item | None, other: Item | None) -> int:
    """Compare two places in the order of a walk that sorts each directory's names; None is behind all."""
    if one is None or other is None:
        return (one is None) - (other is None)
    left, right = one[0].path.split(b"/"), other[0].path.split(b"/")
    return (left > right) - (left < right)


def _difference(one: Item, other: Item) -> str:
    wanted, found = one[0], other[0]
    if wanted.type != found.type:
        return "it is another kind of file"
    if wanted.type == kinds.CHAR_DEVICE and not (wanted.major or wanted.minor or found.major or found.minor):
        return ""  # a whiteout: overlayfs shares one inode among them
    for what, names in _FIELDS:
        if any(getattr(wanted, name) != getattr(found, name) for name in names):
            return f"its {what} differs"
    if (wanted.xattrs or {}) != (found.xattrs or {}):
        return "its extended attributes differ"
    if wanted.type == kinds.FILE and not _same(one[1], other[1]):
        return "its content differs"
    when = (wanted.mtime_sec, wanted.mtime_nsec) == (found.mtime_sec, found.mtime_nsec)
    return "" if when or wanted.type == kinds.DIRECTORY else "its time differs"


_FIELDS = (
    ("mode", ("mode",)),
    ("owner", ("uid", "gid")),
    ("size", ("size",)),
    ("target", ("link",)),
    ("device number", ("major", "minor")),
)


class _Cursor:
    """A place in a file's pieces of data; `at` is its offset, `data` what is there, b"" at the end."""

    def __init__(self, content: Content) -> None:
        self._pieces = iter(content)
        self.at = 0
        self.data = memoryview(b"")
        self.move(0)

    def move(self, count: int) -> None:
        self.at += count
        self.data = self.data[count:]
        while not self.data:
            piece = next(self._pieces, None)
            if piece is None:
                return
            self.at, self.data = piece[0], memoryview(piece[1])


def _same(one: Content, other: Content) -> bool:
    """Compare two contents: what is a hole in one may be zeros in the other."""
    left, right = _Cursor(one), _Cursor(other)
    while left.data or right.data:
        if left.data and right.data and left.at == right.at:
            count = min(len(left.data), len(right.data))
            if left.data[:count] != right.data[:count]:
                return False
            left.move(count)
            right.move(count)
            continue
        first, second = (left, right) if left.data and (not right.data or left.at < right.at) else (right, left)
        count = min(len(first.data), second.at - first.at) if second.data else len(first.data)
        if bytes(first.data[:count]).count(0) != count:
            return False
        first.move(count)
    return True


def repack(facts: Facts, directory: str, write: Callable[[bytes], object]) -> bool:
    """Write an unpacked layer as the archive that a build would make of it; False when that cannot be done."""
    opaque = rootfs.opaque_name(facts.rootless)
    with closing(rootfs.packed(facts, rootfs.Rootfs(directory=directory))) as items:
        try:
            tree.entries_to_tar(items, write, opaque)
        except SampanError:
            return False
    return True
