"""Reads tar archives as entries: ustar, pax, GNU and old formats, as a stream, in bounded memory.

Nothing is trusted: see tarheader.py.  Names are raw bytes.  Extended attributes that a tree may carry are kept, others
counted.  What Docker accepts is accepted: an archive may end without its end mark, and what follows the mark is read to
the end, so that a digest over the stream covers all of it.
"""

from __future__ import annotations

from sampan.errors import IntegrityError
from sampan.oci import entry as kinds
from sampan.oci import tarheader as tar
from sampan.oci.entry import Entry
from sampan.oci.tarheader import BLOCK, broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.oci.entry import Content

    Read = Callable[[int], bytes]
    Extents = list[tuple[int, int]]

READ_SIZE = 1 << 20
_MAX_EXTENSIONS = 4 * tar.MAX_EXTENDED
_ZERO = bytes(BLOCK)
_TYPES = {b"0": "F", b"\0": "F", b"7": "F", b"S": "F", b"1": "H", b"2": "L", b"3": "C", b"4": "B", b"5": "D", b"6": "P"}
_TYPES[b"D"] = "D"  # GNU's incremental dumps: the directory, then a listing that is skipped
_XATTR = b"SCHILY.xattr."
# The other keys of a global header would say the same name, size or attributes for every file.
_GLOBAL_KEYS = (b"mtime", b"uid", b"gid")


class TarReader:
    """Iterate over (Entry, content) of the archive that `read(count)` gives; `max_size` limits the sum of files.

    Of what follows the end mark about `trailing` bytes are read; -1 is all.  What has no entry and more than `padding`
    bytes after its mark is no archive, but a disk that was wiped, or a bomb of zeros; -1 takes it for one.
    """

    def __init__(self, read: Read, *, max_size: int = 0, trailing: int = -1, padding: int = -1) -> None:
        self.complete = False  # the end mark was seen
        self.unpacked_size = 0
        self._read = read
        self._max_size = max_size
        self._trailing = trailing
        self._padding_limit = padding
        self._buffer = b""
        self._view = memoryview(b"")  # of the buffer: contents are not copied
        self._at = 0
        self._left = 0  # bytes of the current file's data still to come
        self._padding = 0
        self._extended = 0  # bytes of the headers that say something of the next file
        self._contiguous = False
        self._directory = self._inside = b""
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[tuple[Entry, Content]]:
        pax: dict[bytes, bytes] = {}
        is_empty = True
        while True:
            if self._left or self._padding:
                self._skip(self._left + self._padding)
                self._left = self._padding = 0
            block = self._block()
            if not block or block == _ZERO:
                self._finish(block, is_empty)
                return
            fields = tar.LAYOUT.unpack(block)
            tar.check_sum(block, fields[6])
            if fields[7] in b"xXgLKV":
                self._extension(fields, pax)
                continue
            yield self._entry(block, fields, {**self._global, **pax} if self._global else pax)
            pax = {}
            is_empty = False
            self._extended = 0

    def unbuffered(self) -> int:
        """Say how much of the current file is still in the source, which stands right at it; 0 when that is not so."""
        return self._left if self._contiguous and self._at == len(self._buffer) else 0

    def consumed(self, count: int) -> None:
        """Note that the caller took `count` of the unbuffered bytes out of the source."""
        self._left -= count

    # -- the stream --

    def _fill(self, count: int) -> bool:
        """Have at least `count` bytes in the buffer; False when the source ends before."""
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < count:
            part = self._read(READ_SIZE)
            if not part:
                break
            parts.append(part)
            have += len(part)
        self._buffer = b"".join(parts)
        self._view = memoryview(self._buffer)
        self._at = 0
        return have >= count

    def _take(self, count: int) -> bytes:
        if len(self._buffer) - self._at < count and not self._fill(count):
            raise broken("it ends in the middle")
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def _block(self) -> bytes:
        if self._at == len(self._buffer) and not self._fill(1):
            return b""
        return self._take(BLOCK)

    def _skip(self, count: int) -> None:
        while count:
            have = len(self._buffer) - self._at
            if not have and not self._fill(1):
                raise broken("it ends in the middle")
            part = min(count, len(self._buffer) - self._at)
            self._at += part
            count -= part

    def _finish(self, block: bytes, is_empty: bool) -> None:
        if block:
            second = self._block()
            if second and second != _ZERO:
                raise broken("a header is empty")
            self.complete = bool(second)
        passed = len(self._buffer) - self._at
        self._buffer, self._at = b"", 0
        while data := self._read(READ_SIZE):
            passed += len(data)
            if is_empty and 0 <= self._padding_limit < passed:
                raise IntegrityError(
                    "cannot read the archive: it is no tar archive, but begins with the end of one",
                    "an archive of no files ends there: look at where this one comes from",
                )
            if 0 <= self._trailing < passed:
                return

    # -- headers --

    def _extension(self, fields: tuple[bytes, ...], pax: dict[bytes, bytes]) -> None:
        """Take a header that says something about the next one."""
        size = tar.bounded(
            tar.number(fields[4]), tar.MAX_EXTENDED, "the size of an extended header", fields[0].rstrip(b"\0")
        )
        self._extended += size + BLOCK
        if self._extended > _MAX_EXTENSIONS:  # each may be in bounds, and none of them the last
            raise broken("there are too many extended headers before a file")
        data = self._take(size + -size % BLOCK)[:size]
        if fields[7] == b"L":
            pax[b"path"] = data.split(b"\0", 1)[0]
        elif fields[7] == b"K":
            pax[b"linkpath"] = data.split(b"\0", 1)[0]
        elif fields[7] == b"g":
            self._global.update((key, value) for key, value in tar.records(data) if key in _GLOBAL_KEYS)
        elif fields[7] != b"V":
            self._records(data, pax)

    def _records(self, data: bytes, pax: dict[bytes, bytes]) -> None:
        sparse = []
        for key, value in tar.records(data):
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):  # format 0.0 repeats them in order
                sparse.append(value)
            elif value or key.startswith(_XATTR):
                pax[key] = value
            else:  # an empty value takes an earlier one back
                pax.pop(key, None)
        if sparse:
            pax[b"GNU.sparse.map"] = b",".join(sparse)

    def _entry(self, block: bytes, fields: tuple[bytes, ...], pax: dict[bytes, bytes]) -> tuple[Entry, Content]:
        raw = self._name(fields, pax)
        path = self._path(raw)
        type = _TYPES.get(fields[7], "")
        if not type:
            raise broken(f"unknown type {fields[7]!r}", path)
        if type == "F" and raw[-1:] == b"/" and fields[7] in b"0\0":  # how archives before POSIX wrote directories
            type = "D"
        if not path and type != "D":
            raise broken("a file has the name of the root", raw)
        entry = Entry(type, path, tar.number(fields[1]) & 0o7777)
        self._owner(entry, fields, pax)
        self._link(entry, fields, pax)
        if pax:
            entry.xattrs = self._xattrs(entry, pax)
        size = tar.decimal(pax[b"size"], "a size") if b"size" in pax else tar.number(fields[4])
        if type == "F":
            return entry, self._open(entry, block, fields, pax, tar.bounded(size, tar.MAX_SIZE, "the size", path))
        if fields[7] == b"D":
            self._left = tar.bounded(size, tar.MAX_SIZE, "the size", path)
            self._padding = -size % BLOCK
        return entry, ()

    def _path(self, raw: bytes) -> bytes:
        """Clean a name; the directory that the last one was in is known already."""
        directory, slash, name = raw.rpartition(b"/")
        if not name or name == b"." or name == b".." or len(raw) > kinds.MAX_PATH:
            return tar.clean_path(raw)
        if directory + slash != self._directory:
            cleaned = tar.clean_path(directory + slash)
            self._directory, self._inside = directory + slash, cleaned + b"/" if cleaned else b""
        if len(name) > 255 or b"\0" in name:
            return tar.clean_path(raw)
        return self._inside + name

    def _name(self, fields: tuple[bytes, ...], pax: dict[bytes, bytes]) -> bytes:
        name = pax.get(b"GNU.sparse.name") or pax.get(b"path")
        if name:
            return name
        name = fields[0].split(b"\0", 1)[0]
        prefix = fields[14]
        # GNU's own format ("ustar  \0") keeps times in the place of the prefix.
        if fields[9] == b"ustar\00000" and prefix[0]:
            return prefix.split(b"\0", 1)[0] + b"/" + name
        return name

    def _owner(self, entry: Entry, fields: tuple[bytes, ...], pax: dict[bytes, bytes]) -> None:
        entry.uid = tar.decimal(pax[b"uid"], "an owner") if b"uid" in pax else tar.number(fields[2])
        entry.gid = tar.decimal(pax[b"gid"], "a group") if b"gid" in pax else tar.number(fields[3])
        if not 0 <= entry.uid <= tar.MAX_ID or not 0 <= entry.gid <= tar.MAX_ID:
            raise broken(f"the owner {entry.uid}:{entry.gid} is out of range", entry.path)
        if b"mtime" in pax:
            entry.mtime_sec, entry.mtime_nsec = tar.time_of(pax[b"mtime"])
        else:
            entry.mtime_sec = tar.check_seconds(tar.number(fields[5]))
        if entry.type in "BC":
            entry.major = tar.bounded(tar.number(fields[12]), 0xFFF, "the major device number", entry.path)
            entry.minor = tar.bounded(tar.number(fields[13]), 0xFFFFF, "the minor device number", entry.path)

    def _link(self, entry: Entry, fields: tuple[bytes, ...], pax: dict[bytes, bytes]) -> None:
        if entry.type not in "LH":
            return
        link = pax.get(b"linkpath") or fields[8].split(b"\0", 1)[0]
        if entry.type == "H":
            entry.link = tar.clean_path(link, "a hard link's target")
        else:
            entry.link = link
        if not entry.link or len(entry.link) >= kinds.MAX_PATH or b"\0" in entry.link:
            raise broken("a link has no target that could exist", entry.path)

    def _xattrs(self, entry: Entry, pax: dict[bytes, bytes]) -> dict[bytes, bytes] | None:
        found = {}
        for key, value in pax.items():
            if not key.startswith(_XATTR):
                continue
            name = key[len(_XATTR) :]
            if entry.type not in "FD" or not kinds.xattr_accepted(name):
                continue
            if len(name) > kinds.MAX_XATTR_NAME or len(value) > kinds.MAX_XATTR_VALUE or b"\0" in name:
                raise broken("an extended attribute is too large", entry.path)
            found[name] = value
        return found or None

    # -- contents --

    def _open(
        self, entry: Entry, block: bytes, fields: tuple[bytes, ...], pax: dict[bytes, bytes], size: int
    ) -> Content:
        self._left, self._padding = size, -size % BLOCK
        entry.size = size
        extents = self._sparse(entry, block, fields, pax)
        self.unpacked_size += entry.size
        if self._max_size and self.unpacked_size > self._max_size:
            raise broken(f"its files are larger than the limit of {self._max_size} bytes", entry.path)
        self._contiguous = extents is None
        if extents is None and size <= len(self._buffer) - self._at:
            self._left = 0
            self._at += size
            return ((0, self._view[self._at - size : self._at]),) if size else ()
        return self._pieces([(0, size)] if extents is None else extents)

    def _pieces(self, extents: Extents) -> Iterator[tuple[int, memoryview]]:
        for start, length in extents:
            offset = start
            while offset < start + length and self._left:
                if self._at == len(self._buffer) and not self._fill(1):
                    raise broken("it ends in the middle")
                part = self._view[self._at : self._at + start + length - offset]
                self._at += len(part)
                self._left -= len(part)
                yield offset, part
                # What the caller consumed by itself was the rest of a contiguous file.
                offset += len(part)

    def _sparse(self, entry: Entry, block: bytes, fields: tuple[bytes, ...], pax: dict[bytes, bytes]) -> Extents | None:
        """Find the map of a sparse file, in any of GNU's four formats; None when the file is not sparse."""
        if fields[7] == b"S":
            extents = self._old_map(block)
            size = tar.number(block[483:495])
        elif pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            extents = self._map_in_data(entry.path)
            size = tar.decimal(pax.get(b"GNU.sparse.realsize", b""), "a sparse file's size")
        elif b"GNU.sparse.map" in pax or b"GNU.sparse.size" in pax:
            text = pax.get(b"GNU.sparse.map", b"")
            extents = tar.pairs(text.split(b",") if text else [])
            size = tar.decimal(pax.get(b"GNU.sparse.size", b""), "a sparse file's size")
        else:
            return None
        entry.size = tar.bounded(size, tar.MAX_SIZE, "the size", entry.path)
        return tar.check_extents(extents, size, self._left, entry.path)

    def _old_map(self, block: bytes) -> Extents:
        extents = tar.sparse_entries(block, 386, 4)
        more = block[482]
        while more:
            block = self._take(BLOCK)
            extents += tar.sparse_entries(block, 0, 21)
            more = block[504]
            if len(extents) > tar.MAX_EXTENDED // 24:
                raise broken("a sparse file's map is too long")
        return extents

    def _map_in_data(self, path: bytes) -> Extents:
        """Read format 1.0's map, whole blocks of decimal lines before the data."""
        parts: list[bytes] = []
        lines, wanted = 0, 1
        while lines < wanted:
            if len(parts) * BLOCK >= tar.MAX_EXTENDED or self._left < BLOCK:
                raise broken("a sparse file's map is wrong", path)
            parts.append(self._take(BLOCK))
            self._left -= BLOCK
            lines += parts[-1].count(b"\n")
            if wanted == 1 and lines:
                wanted += 2 * tar.decimal(b"".join(parts).split(b"\n", 1)[0], "a sparse file's map")
        return tar.pairs(b"".join(parts).split(b"\n")[1:wanted])
