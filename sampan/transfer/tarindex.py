"""Where the members of an archive file lie: the tar headers of a `save` archive, read without its contents.

Only what such archives hold matters: regular files, directories, and the links that old versions of Docker wrote for
repeated layers.  Nothing is ever created under a member's name, names are only looked up; one that points outside of
the archive still shows that the archive is not what it says, and is refused.
"""

from __future__ import annotations

import os

from sampan.errors import IntegrityError
from sampan.oci import tarheader as tar
from sampan.oci.tarheader import BLOCK, broken

# A saved image has a few members per layer; extended headers hold a path, or a few short records.
_MAX_MEMBERS = 65536
_MAX_EXTENDED = 1 << 16
_MAX_NAMES = 16 << 20  # bytes, of all names and targets together
_FILES = (b"0", b"\0", b"7")
_KEYS = (b"path", b"linkpath", b"size")
IMPORT_HINT = "to make an image from an archive of a file system use `sampan import`"


def normalise(name: bytes, base: str = "") -> str:
    """Give a member's name without "./" and doubled slashes; `base` is the directory that a link's target starts from.

    Raises IntegrityError for a name that leaves the archive.
    """
    parts: list[str] = base.split("/") if base else []
    text = os.fsdecode(name)
    if text.startswith("/"):
        raise broken("a member has an absolute name", name[:200])
    for part in text.split("/"):
        if part == "..":
            # Only a link's target, relative to its directory, may climb; and not out of the archive.
            if not base or not parts:
                raise broken("a member's name leaves it", name[:200])
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def check_first(block: bytes) -> None:
    """Refuse what is no tar at all, in words that do not blame a header it never had."""
    try:
        whole = len(block) == BLOCK
        if whole and block.strip(b"\0"):
            tar.check_sum(block, tar.LAYOUT.unpack(block)[6])
    except IntegrityError:
        whole = False
    if not whole:
        raise broken("it is no tar archive")


class Index:
    """The members of a tar in a seekable descriptor: `files` by name as (offset, size), `links` by name as name."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.files: dict[str, tuple[int, int]] = {}
        self.links: dict[str, str] = {}
        self._end = os.fstat(fd).st_size
        self._at = 0
        self._long: dict[bytes, bytes] = {}
        self._names = count = 0
        check_first(os.pread(fd, BLOCK, 0))
        while self._next():
            count += 1
            if count > _MAX_MEMBERS:
                raise broken(f"it has more than {_MAX_MEMBERS} members")

    def _take(self, count: int) -> bytes:
        data = os.pread(self.fd, count, self._at)
        self._at += count + -count % BLOCK
        if len(data) < count:
            raise broken("it is truncated")
        return data

    def _next(self) -> bool:
        if self._at >= self._end and self._at:
            return False  # GNU tar too accepts an archive without the two closing blocks
        block = self._take(BLOCK)
        if not block.strip(b"\0"):
            return False
        fields = tar.LAYOUT.unpack(block)
        tar.check_sum(block, fields[6])
        size = tar.bounded(tar.number(fields[4]), tar.MAX_SIZE, "the size", fields[0].rstrip(b"\0"))
        if fields[7] in b"xgLK":
            self._extended(fields[7], size)
        else:
            self._member(fields, size)
            self._long = {}
        return True

    def _extended(self, kind: bytes, size: int) -> None:
        if size > _MAX_EXTENDED:
            raise broken(f"an extended header has {size} bytes")
        data = self._take(size)
        if kind == b"x":
            self._long.update((key, value) for key, value in tar.records(data) if key in _KEYS)
        elif kind != b"g":  # nothing that a global header may say matters here
            self._long[b"path" if kind == b"L" else b"linkpath"] = data.split(b"\0", 1)[0]

    def _member(self, fields: tuple[bytes, ...], size: int) -> None:
        name = normalise(self._long.get(b"path") or _name(fields))
        if b"size" in self._long:
            size = tar.bounded(tar.decimal(self._long[b"size"], "a size"), tar.MAX_SIZE, "the size", os.fsencode(name))
        kind = fields[7]
        if kind in (b"1", b"2"):
            target = self._long.get(b"linkpath") or fields[8].split(b"\0", 1)[0]
            self._add(name, len(target))
            self.links[name] = normalise(target, os.path.dirname(name) if kind == b"2" else "")
        elif kind in _FILES:
            if self._at + size > self._end:
                raise broken("it is truncated", os.fsencode(name[:200]))
            self._add(name)
            self.files[name] = (self._at, size)
            self._at += size + -size % BLOCK
        elif kind != b"5":
            fault = broken(f"type {kind!r}, which no saved image has,", os.fsencode(name[:200]))
            raise IntegrityError(fault.message, IMPORT_HINT)

    def _add(self, name: str, more: int = 0) -> None:
        self._names += len(name) + more
        if self._names > _MAX_NAMES:
            raise broken(f"the names of its members have more than {_MAX_NAMES} bytes")
        # Which of two members counts differs between tools: what one has checked, another would load.
        if name in self.files or name in self.links:
            raise broken("it holds twice the member", os.fsencode(name[:200]))


def _name(fields: tuple[bytes, ...]) -> bytes:
    name, prefix = fields[0].split(b"\0", 1)[0], fields[14].split(b"\0", 1)[0]
    # Only POSIX's format has a prefix: GNU's keeps times in its place.
    return prefix + b"/" + name if prefix and fields[9] == b"ustar\x0000" else name
