"""Writes entries as a tar archive that GNU tar, Go's archive/tar and Docker read, the same bytes for the same entries.

A header is plain ustar when everything fits; what does not (long names, large numbers, nanoseconds, attributes) goes
into a pax extended header before it, keys sorted.  Sparse files are written in full: not every reader knows the sparse
formats, and apply makes holes of zeros again.  POSIX.1-2008 pax; `SCHILY.xattr.` is what GNU tar and star use.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.oci import tarheader as tar
from sampan.oci.entry import MAX_PATH, Entry
from sampan.oci.tarheader import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.oci.entry import Content

FLUSH_SIZE = 1 << 18
_FLAGS = {"F": b"0", "H": b"1", "L": b"2", "C": b"3", "B": b"4", "D": b"5", "P": b"6"}
_BLANK_SUM = b" " * 8
_MAGIC = b"ustar\00000"
_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_ZEROS = bytes(FLUSH_SIZE)


class TarWriter:
    """Give the archive to `write` piece by piece; `size` is how long it is so far."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.size = 0
        self._write = write
        self._parts: list[bytes | memoryview] = []  # joined once, when there is enough
        self._held = 0

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Write one entry with its content; holes and what a file lacks at its end become zeros."""
        self._put(header(entry))
        if entry.type != "F":
            return
        at = 0
        for offset, data in content:
            self._zeros(offset - at)
            self._put(data)
            at = offset + len(data)
        if at > entry.size:
            raise InvalidArgument(f"cannot write {entry.path!r} to the archive: it has more data than its size")
        self._zeros(entry.size - at + -entry.size % BLOCK)

    def add_sent(self, entry: Entry, send: Callable[[], object]) -> None:
        """Write one regular file whose `entry.size` bytes `send` gives to the output by itself."""
        self._put(header(entry))
        self._flush()
        send()
        self.size += entry.size
        self._zeros(-entry.size % BLOCK)

    def close(self) -> int:
        """Write the end mark, and return the archive's size."""
        self._put(bytes(2 * BLOCK))
        self._flush()
        return self.size

    def _put(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self._held += len(data)
        self._parts.append(data)
        if self._held >= FLUSH_SIZE:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            self._write(data)

    def _zeros(self, count: int) -> None:
        while count > 0:
            part = min(count, FLUSH_SIZE)
            self._put(_ZEROS if part == FLUSH_SIZE else _ZEROS[:part])
            count -= part


def header(entry: Entry) -> bytes:
    """Return the header blocks of an entry."""
    name = entry.path + b"/" if entry.type == "D" else entry.path
    if len(entry.path) > MAX_PATH or len(entry.link) >= MAX_PATH:
        shown = entry.path[:60].decode("utf-8", "backslashreplace")
        raise InvalidArgument(f"cannot write {shown!r}… to an archive: its path is longer than {MAX_PATH} bytes")
    pax: dict[bytes, bytes] = {}
    prefix, short = _split(name)
    if not short:
        pax[b"path"] = name
        short = name[:100]
    if len(entry.link) > 100:
        pax[b"linkpath"] = entry.link
    size = _fit(entry.size if entry.type == "F" else 0, _OCTAL_11, b"size", pax)
    uid = _fit(entry.uid, _OCTAL_7, b"uid", pax)
    gid = _fit(entry.gid, _OCTAL_7, b"gid", pax)
    seconds = entry.mtime_sec
    if entry.mtime_nsec or not 0 <= seconds <= _OCTAL_11:
        pax[b"mtime"] = _time(seconds, entry.mtime_nsec)
        seconds = max(0, min(seconds, _OCTAL_11))
    for key, value in (entry.xattrs or {}).items():
        pax[b"SCHILY.xattr." + key] = value
    main = _block(entry, short, prefix, size, uid, gid, seconds)
    return _extended(name, pax) + main if pax else main


def _fit(value: int, most: int, key: bytes, pax: dict[bytes, bytes]) -> int:
    if value <= most:
        return value
    pax[key] = b"%d" % value
    return 0


def _time(seconds: int, nanoseconds: int) -> bytes:
    sign = b""
    if seconds < 0:
        sign = b"-"
        seconds, nanoseconds = (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
    text = b"%s%d" % (sign, seconds)
    return text + (b".%09d" % nanoseconds).rstrip(b"0") if nanoseconds else text


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Divide a name into ustar's prefix and name; an empty name when it does not fit."""
    if len(name) <= 100:
        return b"", name
    # the last component must be in the name, and the slash between both is not stored
    cut = name.find(b"/", len(name) - 101, len(name) - 1)
    if cut <= 0 or cut > 155:
        return b"", b""
    return name[:cut], name[cut + 1 :]


def _sealed(block: bytes) -> bytes:
    return b"%s%06o\0 %s" % (block[:148], sum(block), block[156:])


def _block(entry: Entry, name: bytes, prefix: bytes, size: int, uid: int, gid: int, seconds: int) -> bytes:
    device = entry.type in "BC"
    return _sealed(
        tar.LAYOUT.pack(
            name,
            b"%07o" % entry.mode,
            b"%07o" % uid,
            b"%07o" % gid,
            b"%011o" % size,
            b"%011o" % seconds,
            _BLANK_SUM,
            _FLAGS[entry.type],
            entry.link[:100],
            _MAGIC,
            b"",
            b"",
            b"%07o" % entry.major if device else b"",
            b"%07o" % entry.minor if device else b"",
            prefix,
        )
    )


def _extended(name: bytes, pax: dict[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, pax[key]) for key in sorted(pax))
    last = name.rstrip(b"/").rpartition(b"/")[2]
    block = tar.LAYOUT.pack(
        b"PaxHeaders.0/" + last[:80],
        b"0000644",
        b"0000000",
        b"0000000",
        b"%011o" % len(data),
        b"00000000000",
        _BLANK_SUM,
        b"x",
        b"",
        _MAGIC,
        b"",
        b"",
        b"",
        b"",
        b"",
    )
    return _sealed(block) + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """Make "length key=value\\n", where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
