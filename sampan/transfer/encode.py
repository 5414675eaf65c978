"""Compress a stream, on several threads and always to the same bytes, whatever their number.

    with encode.begin("gzip", source) as packed:      `source(buffer)` fills it, and says how far
        while piece := packed.read(1 << 20): …

gzip is made of blocks of a mebibyte that know nothing of each other, in one member (RFC 1952); that costs 0.1 %.
`source` is called by these threads, never by two at once. Memory is bounded: a few blocks for each thread.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, NotSupported
from sampan.transfer.ahead import Ahead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Protocol

    ReadInto = Callable[[memoryview], int]  # 0: the end

    class Packed(Protocol):
        """A stream that is compressed while it is read; a context manager."""

        def read(self, count: int, /) -> bytes: ...
        def close(self) -> None: ...
        def __enter__(self) -> Packed: ...
        def __exit__(
            self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
        ) -> None: ...


BLOCK = 1 << 20
AHEAD = 2  # blocks for each thread that wait for the reader
MOST = 4  # threads: igzip then takes more than SHA-256, which is not divided, gives
_FULL_FLUSH = 3  # Z_FULL_FLUSH: the block ends at a byte, and the next one needs nothing of it
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"  # no name, no time; fastest; unknown system
_LAST = b"\x03\0"  # an empty block that says it is the last (RFC 1951, 3.2.6)


def begin(compression: str, source: ReadInto) -> Packed:
    """Compress what `source` gives with "gzip" or "zstd"; raise InvalidArgument, NotSupported."""
    threads = min(len(os.sched_getaffinity(0)), MOST)
    if compression == "gzip":
        return Gzip(source, threads)
    if compression == "zstd":
        return _zstd(source, threads)
    raise InvalidArgument(f"cannot compress with {compression!r}", "use gzip or zstd")


class Gzip:
    """A gzip stream of what `source` gives, each block by the next free thread; a context manager."""

    def __init__(self, source: ReadInto, threads: int) -> None:
        import threading

        self._source = source
        self._zlib, self._level = _zlib()
        self._crc = self._size = 0
        self._turn = threading.Lock()  # whose holder reads from the source
        self._changed = threading.Condition()
        self._taken = self._given = 0  # numbers of blocks
        self._made: dict[int, bytes | BaseException] = {}  # b"": the end; what failed: for the read that comes to it
        self._window = threads * AHEAD
        self._over = False  # no more blocks are taken
        self._held = _HEADER
        self._ended = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def taken(self) -> tuple[int, int]:
        """How much was compressed so far, in bytes, and its CRC-32, which gzip needs anyway."""
        return self._size, self._crc

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        if not self._held and not self._ended:
            self._held = self._next()
        data, self._held = self._held[:count], self._held[count:]
        return data

    def close(self) -> None:
        """Stop the threads, at any point."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Gzip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> bytes:
        """Give the next block, or what ends the stream: the check sum and the size (RFC 1952, 2.3.1)."""
        with self._changed:
            while self._given not in self._made:
                self._changed.wait()
            made = self._made[self._given]
            if isinstance(made, BaseException):
                raise made
            del self._made[self._given]
            self._given += 1
            self._changed.notify_all()
        self._ended = not made
        return made or _LAST + self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")

    def _work(self) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while self._has_room():
            with self._turn:
                number, data = self._taken, self._take(buffer)
                self._taken += 1
            made = data if isinstance(data, BaseException) else self._deflated(data)
            with self._changed:
                self._made[number] = made
                self._changed.notify_all()

    def _deflated(self, data: memoryview) -> bytes | BaseException:
        """Compress one block; nothing stays nothing."""
        try:
            made = self._zlib.compressobj(self._level, self._zlib.DEFLATED, -15)
            out: bytes = made.compress(data) + made.flush(_FULL_FLUSH) if data else b""
            return out
        except Exception as exc:  # no memory: for whoever reads
            return exc

    def _has_room(self) -> bool:
        with self._changed:
            while self._taken - self._given >= self._window and not self._over:
                self._changed.wait()
            return not self._over

    def _take(self, buffer: memoryview) -> memoryview | BaseException:
        """Read one whole block, so that its borders do not depend on how the source gives it."""
        size = 0
        try:
            while size < BLOCK and (more := self._source(buffer[size:])):
                size += more
        except BaseException as exc:  # handed on to whoever reads
            self._over = True
            return exc
        self._over = self._over or not size
        self._crc = self._zlib.crc32(buffer[:size], self._crc)
        self._size += size
        return buffer[:size]


def _zlib() -> tuple[Any, int]:
    """Choose a library and its level: igzip's level 1 is as small as zlib's default and 20 times as fast."""
    try:
        from isal import isal_zlib

        return isal_zlib, 1
    except ImportError:  # no wheel for this host
        import zlib

        return zlib, 6


def _zstd(source: ReadInto, threads: int) -> Ahead:
    """Compress with zstd's level 3; its result is the same for any number of threads but none."""
    try:
        import zstandard
    except ImportError as exc:
        raise NotSupported(
            "cannot compress with zstd: the zstandard library is not installed", "pip install zstandard"
        ) from exc
    encoder = zstandard.ZstdCompressor(level=3, write_checksum=True, threads=threads).compressobj()
    buffer = memoryview(bytearray(BLOCK))
    ended = False

    def read(count: int) -> bytes:
        nonlocal ended
        while not ended:
            size = source(buffer)
            ended = not size
            if out := encoder.compress(buffer[:size]) if size else encoder.flush():
                return out
        return b""

    return Ahead(read, step=BLOCK)
