"""The tree protocol in Python: entries to and from the helper (docs/internals/architecture.md, "Trees").

An Applier writes entries, a Packer reads them; between them and archives stand the sources of oci/layer.py.  What the
helper could not do is said by its report, so whoever started it gives `reason`, which waits for it and raises that.
"""

from __future__ import annotations

import _struct
import errno
import os

from sampan.errors import (
    Conflict,
    Denied,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotSupported,
    SampanError,
    Unavailable,
)
from sampan.oci import entry as kinds
from sampan.oci.entry import Entry
from sampan.oci.layer import TarReader, TarWriter, from_overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from sampan.oci.entry import Content, Source

    Reason = Callable[[], object]

    class Stream(Protocol):
        """Whatever bytes can be read from."""

        def read(self, count: int, /) -> bytes: ...


# helper/tree.h, enum tree_flags
MERGE, BEST_EFFORT_IDS, BEST_EFFORT_NODES, SYNC, ONE_FILE_SYSTEM = 1, 4, 8, 16, 32
LIST, CREATE_BASE, KEEP_TYPE, REQUESTS, NO_KERNEL = 64, 128, 256, 512, 2048
WRITEBACK, RECORDED, STRICT_SETID = 4096, 8192, 16384

# helper/tree.h, enum tree_phase
PHASES = (
    "work on",
    "read the entries of",
    "accept the entry",
    "open the destination",
    "open the parent directory of",
    "create",
    "write",
    "set the owner of",
    "set the mode of",
    "set the attributes of",
    "set the time of",
    "remove",
    "link",
    "sync",
    "read",
    "list",
    "send",
    "find",
)
RESOLVE = 17

UNLIMITED = (1 << 63) - 1
_HEAD = _struct.Struct("<BBHIIIIIqIIQII")
_CHUNK = _struct.Struct("<QI")
_PAIR = _struct.Struct("<II")
_LAST = _CHUNK.pack(0, 0)
_ABORT = 0xFFFFFFFF
_BUFFER = 1 << 18
_MOST_PARTS = 1024  # IOV_MAX of Linux
_DIRECT = 1 << 16  # from here on, sendfile() is cheaper than a copy
_DIRECT_CHUNK = 1 << 24
_SKIP_BACK = 4096  # holes smaller than this are sent as data


def failure(phase: int, number: int, path: bytes) -> SampanError:
    """Make the error for what a tree operation reported."""
    verb = PHASES[phase] if phase < len(PHASES) else PHASES[0]
    shown = path.decode("utf-8", "backslashreplace") or "/"
    message = f"cannot {verb} {shown}: {os.strerror(number)}"
    if phase == RESOLVE:
        return NotFound(message)
    if phase == 2:
        return IntegrityError(message)
    if number in (errno.EPERM, errno.EACCES, errno.EROFS):
        return Denied(message)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable(message, "free some space, for example with `sampan rm` and `sampan rmi`")
    if number in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOENT, errno.EEXIST, errno.EXDEV, errno.EBUSY):
        return Conflict(message)
    if number in (errno.ENAMETOOLONG, errno.EINVAL, errno.EMLINK, errno.E2BIG):
        return InvalidArgument(message)
    return NotSupported(message) if number == errno.ENOTSUP else Unavailable(message)


def encode_entry(entry: Entry) -> bytes:
    """Make the record of an entry as it goes on the wire; InvalidArgument for numbers that do not fit."""
    xattrs = entry.xattrs
    try:
        head = _HEAD.pack(
            ord(entry.type),
            entry.flags,
            0,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.major,
            entry.minor,
            entry.mtime_sec,
            entry.mtime_nsec,
            len(xattrs) if xattrs else 0,
            entry.size,
            len(entry.path),
            len(entry.link),
        )
    except _struct.error as exc:  # type: ignore[attr-defined]  # missing in typeshed
        raise InvalidArgument(f"cannot send {entry!r}: {exc}") from exc
    if not xattrs:
        return head + entry.path + entry.link
    parts = [head, entry.path, entry.link]
    for name in sorted(xattrs):
        parts += (_PAIR.pack(len(name), len(xattrs[name])), name, xattrs[name])
    return b"".join(parts)


def decode_entry(take: Callable[[int], bytes]) -> Entry:
    """Read one record with `take(count)`."""
    type, flags, _, mode, uid, gid, major, minor, sec, nsec, count, size, path, link = _HEAD.unpack(take(_HEAD.size))
    entry = Entry(chr(type), take(path), mode, uid, gid, sec, nsec, size, take(link), None, major, minor, flags)
    if count:
        xattrs = {}
        for _ in range(count):
            name_length, value_length = _PAIR.unpack(take(_PAIR.size))
            name = take(name_length)
            xattrs[name] = take(value_length)
        entry.xattrs = xattrs
    return entry


def _widen(fd: int) -> None:
    """Give a pipe room for more than 64 KiB: fewer switches between the two processes."""
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        return  # not a pipe, or this user's pipes already use what the kernel allows: only slower


class Applier:
    """Write entries to the helper; `end` them, close the descriptor, then wait for the helper."""

    def __init__(self, write_fd: int, reason: Reason | None = None) -> None:
        self.entries = 0
        self._fd = write_fd
        self._reason = reason
        self._out: list[bytes | memoryview] = []  # written together, when there is enough
        self._held = 0
        _widen(write_fd)

    def entry(self, entry: Entry, content: Content = ()) -> None:
        """Send one entry, a regular file with its content."""
        self.entries += 1
        self._put(encode_entry(entry))
        if entry.type == kinds.FILE:
            for offset, data in content:
                self._chunk(offset, data)
            self._put(_LAST)

    def file(self, entry: Entry, fd: int) -> None:
        """Send a regular file with what `fd` holds; its size is taken from there."""
        st = os.fstat(fd)
        entry.size = st.st_size
        self.entries += 1
        self._put(encode_entry(entry))
        for start, end in _data_ranges(fd, st):
            self._range(fd, start, end - start)
        self._put(_LAST)

    def feed(self, source: Source, reader: TarReader | None = None, fd: int = -1) -> None:
        """Send all entries of a source; large files go past Python when `reader` reads `fd` by os.read alone."""
        for entry, content in source:
            if fd < 0 or entry.size < _DIRECT or reader is None or entry.type != kinds.FILE:
                self.entry(entry, content)
                continue
            self.entries += 1
            self._put(encode_entry(entry))
            for offset, data in content:
                self._chunk(offset, data)
                rest = reader.unbuffered()
                if rest >= _DIRECT:
                    self._range(fd, offset + len(data), rest, at_position=True)
                    reader.consumed(rest)
            self._put(_LAST)

    def end(self) -> None:
        """Send the end mark: without it the helper takes the stream for broken."""
        self._put(encode_entry(Entry(kinds.END, b"")))
        self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        parts, self._out, self._held = self._out, [], 0
        for at in range(0, len(parts), _MOST_PARTS):
            self._write_parts(parts[at : at + _MOST_PARTS])

    def _put(self, data: bytes | memoryview) -> None:
        self._out.append(data)
        self._held += len(data)
        if self._held >= _BUFFER:
            self.flush()

    def _chunk(self, offset: int, data: bytes | memoryview) -> None:
        if not data:
            return
        self._put(_CHUNK.pack(offset, len(data)))
        self._put(data)

    def _range(self, fd: int, offset: int, count: int, at_position: bool = False) -> None:
        """Send part of a file; `at_position`: it is what `fd` stands at, not what is at the offset."""
        while count:
            part = min(count, _DIRECT_CHUNK)
            if part < _DIRECT and not at_position:
                data = os.pread(fd, part, offset)
                part = len(data)
                self._chunk(offset, data)
            else:
                self._put(_CHUNK.pack(offset, part))
                self.flush()
                self._sendfile(fd, None if at_position else offset, part)
            if not part:
                raise Unavailable("cannot send a file: it became shorter while it was read")
            offset += part
            count -= part

    def _sendfile(self, fd: int, offset: int | None, count: int) -> None:
        while count:
            try:
                sent = os.sendfile(self._fd, fd, offset, count)
            except BrokenPipeError as exc:
                raise self._stopped() from exc
            if not sent:
                raise Unavailable("cannot send a file: it became shorter while it was read")
            count -= sent
            if offset is not None:
                offset += sent

    def _write_parts(self, parts: list[bytes | memoryview]) -> None:
        """Write without joining; a pipe takes all at once unless a signal comes."""
        total = sum(map(len, parts))
        try:
            sent = os.writev(self._fd, parts)
            if sent < total:
                rest = memoryview(b"".join(parts))[sent:]
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
        except BrokenPipeError as exc:
            raise self._stopped() from exc

    def _stopped(self) -> SampanError:
        if self._reason:
            self._reason()
        return Unavailable("cannot write files: the helper stopped reading")


def _data_ranges(fd: int, st: os.stat_result) -> Iterator[tuple[int, int]]:
    """Find where a file has data: all of it, or what lies between holes that are worth keeping."""
    size = st.st_size
    if st.st_blocks * 512 >= size:
        if size:
            yield 0, size
        return
    at = 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        hole = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        if data < size:
            yield (at if data - at < _SKIP_BACK else data), hole
        at = hole


class Packer:
    """Read entries from the helper; with `request_fd` ask for paths, one answer after another."""

    def __init__(self, read_fd: int, request_fd: int = -1, reason: Reason | None = None) -> None:
        self._fd = read_fd
        self._requests = request_fd
        self._reason = reason
        self._buffer = b""
        self._at = 0
        self._in_data = False
        _widen(read_fd)

    def request(self, path: bytes, *, follow: bool = False, contents: bool = True, depth: int = UNLIMITED) -> None:
        """Ask for a path, answered by the next iteration; `depth` 0 is it alone, 1 also what is directly inside."""
        flags = (kinds.FOLLOW if follow else 0) | (0 if contents else kinds.LIST)
        data = encode_entry(Entry(kinds.REQUEST, path, size=depth, flags=flags))
        try:
            while data:
                data = data[os.write(self._requests, data) :]
        except BrokenPipeError as exc:
            raise self._ended() from exc

    def ask(
        self, path: bytes, *, follow: bool = False, contents: bool = True, depth: int = UNLIMITED
    ) -> Iterator[tuple[Entry, Content]]:
        """Ask for a path (see `request`) and give the answer, the entries named below it: b"" is the path itself."""
        self.request(path, follow=follow, contents=contents, depth=depth)
        for entry, content in self:
            entry.path = below(path, entry.path)
            entry.link = below(path, entry.link) if entry.type == kinds.HARD_LINK else entry.link
            yield entry, content

    def __iter__(self) -> Iterator[tuple[Entry, Content]]:
        while True:
            for _ in self._pieces():
                pass
            entry = decode_entry(self._take)
            if entry.type == kinds.END:
                if entry.mode:
                    raise failure(entry.major, entry.mode, entry.path)
                return
            self._in_data = entry.type == kinds.FILE and not entry.flags & kinds.NO_DATA
            yield entry, self._pieces() if self._in_data else ()

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        while self._in_data:
            offset, length = _CHUNK.unpack(self._take(_CHUNK.size))
            if length == _ABORT:
                self._in_data = False
                entry = decode_entry(self._take)
                raise failure(entry.major, entry.mode, entry.path)
            if not length:
                self._in_data = False
                return
            yield offset, self._take(length)

    def _take(self, count: int) -> bytes:
        at = self._at
        if len(self._buffer) - at < count:
            self._fill(count)
            at = 0
        self._at = at + count
        return self._buffer[at : at + count]

    def _fill(self, count: int) -> None:
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < count:
            part = os.read(self._fd, _BUFFER)
            if not part:
                raise self._ended()
            parts.append(part)
            have += len(part)
        self._buffer = b"".join(parts)
        self._at = 0

    def _ended(self) -> SampanError:
        if self._reason:
            self._reason()
        return Unavailable("cannot read files: the helper ended in the middle")


def below(path: bytes, inner: bytes) -> bytes:
    """Name a path below another one, which it begins with."""
    return inner[len(path) :].lstrip(b"/") if path else inner


def entries_to_tar(source: Source, write: Callable[[bytes], object], opaque_name: str = "") -> int:
    """Write a source as an archive without the root itself, and return its size; with `opaque_name` make whiteouts."""
    tar = TarWriter(write)
    for entry, content in from_overlay(source, opaque_name) if opaque_name else source:
        if entry.path:
            tar.add(entry, content)
    return tar.close()
