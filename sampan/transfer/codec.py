"""Compression of a stream, told by its first bytes: plain, gzip, zstd, and for imports bzip2 and xz.

Memory is bounded whatever the stream says: at most one step of output is held, and windows above 128 MiB are refused.
What follows a complete stream must be another member or zero padding; a stream that stops early is an error.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Read = Callable[[int], bytes]

STEP = 1 << 18
# zstd --long=27 is the most that decoders accept unasked (zstd(1)); xz -9 wants 65 MiB.
_WINDOW = 1 << 27
# 64 times one byte, as an RLE block of a frame (RFC 8878, 3.1.1): what is cut in a block of any kind does not turn
# these ten bytes into those.
_MARK = b"\xa5" * 64
_FRAME = b"\x28\xb5\x2f\xfd\x20\x40\x03\x02\x00\xa5"
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)


def detect(head: bytes) -> str:
    """Name the compression of a stream that starts with `head` (6 bytes suffice): "" for none."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # RFC 8878, 3.1.2: skippable frames, which may come first, have magic 0x184D2A50 to 0x184D2A5F.
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"
    return ""


class Peek:
    """Read from a stream whose first bytes can be looked at beforehand."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._held = b""

    def peek(self, count: int) -> bytes:
        """Give the next `count` bytes, fewer at the end, without taking them."""
        while len(self._held) < count:
            part = self._read(STEP)
            if not part:
                break
            self._held += part
        return self._held[:count]

    def held(self) -> bytes:
        """Give what was read ahead: after it the stream itself goes on."""
        out, self._held = self._held, b""
        return out

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        if not self._held:
            return self._read(count)
        out, self._held = self._held[:count], self._held[count:]
        return out


class Members:
    """Decode gzip, bzip2 or xz: one member after another."""

    def __init__(self, name: str, source: Read, what: str) -> None:
        self.name = name
        self.source = source
        self.what = what
        self._new, self._failures = _factory(name)
        self._decoder: Any = None
        self._rest = b""
        self._count = 0

    def read(self, count: int) -> bytes:
        """Give up to `count` decoded bytes; none means the end."""
        while True:
            if self._decoder is None and not self._begin():
                return b""
            out = self._step(count)
            if self._decoder.eof:
                self._rest = self._decoder.unused_data
                self._decoder = None
            if out:
                return out

    def _begin(self) -> bool:
        """Start the next member; False when nothing but padding is left."""
        if self._count:
            # gzip(1), "Tape padding": zeros after the last member are ignored.
            self._rest = self._rest.lstrip(b"\0")
            while not self._rest:
                part = self.source(STEP)
                if not part:
                    return False
                self._rest = part.lstrip(b"\0")
        self._decoder = self._new()
        self._count += 1
        return True

    def _step(self, count: int) -> bytes:
        data, self._rest = self._rest, b""
        if not data and getattr(self._decoder, "needs_input", True):
            data = self.source(STEP)
            if not data:
                raise IntegrityError(f"cannot read {self.what}: its {self.name} stream ends early")
        try:
            out: bytes = self._decoder.decompress(data, count)
        except self._failures as exc:
            raise IntegrityError(f"cannot read {self.what}: damaged {self.name} stream ({exc})") from exc
        if not self._decoder.eof:
            self._rest = getattr(self._decoder, "unconsumed_tail", b"")
        return out


def _factory(name: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    if name == "gzip":
        return _gunzip()
    if name == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, EOFError)
    import lzma

    return lambda: lzma.LZMADecompressor(memlimit=_WINDOW), (lzma.LZMAError, EOFError)


def _gunzip() -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """Choose igzip, twice as fast as zlib, where it is there; both compare the checksum at the end (RFC 1952)."""
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this host
        import zlib

        return lambda: zlib.decompressobj(31), (zlib.error,)
    failure: Any = isal_zlib.IsalError  # typed as an instance there
    return lambda: isal_zlib.decompressobj(31), (failure,)


class Zstd:
    """Decode zstd frames with the `zstandard` library.

    It does not say when the last frame is cut.  So a frame of our own follows the stream: its content comes out at the
    end unless the last frame took it for its own.
    """

    def __init__(self, source: Read, what: str) -> None:
        try:
            import zstandard
        except ImportError as exc:
            raise NotSupported(
                f"cannot read {what}: it is compressed with zstd, and the zstandard library is not installed",
                "pip install zstandard",
            ) from exc
        self.what = what
        self.failure: type[Exception] = zstandard.ZstdError
        self._held = b""  # what may end with the mark
        self._ready = b""
        self._ended = False
        file: Any = _File(_followed(source, _FRAME))
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._frames: Any = decompressor.stream_reader(file, read_size=STEP, read_across_frames=True)

    def read(self, count: int) -> bytes:
        """Give up to `count` decoded bytes; none means the end."""
        while not self._ready and not self._ended:
            piece = self._next(max(count, len(_MARK)))
            if len(piece) >= len(_MARK):
                self._ready, self._held = self._held, piece
            elif piece:
                self._held += piece
            else:
                self._ended = True
                self._ready = self._unmarked()
        out, self._ready = self._ready[:count], self._ready[count:]
        return out

    def _unmarked(self) -> bytes:
        if not self._held.endswith(_MARK):
            raise IntegrityError(f"cannot read {self.what}: its zstd stream ends early")
        return self._held[: -len(_MARK)]

    def _next(self, count: int) -> bytes:
        try:
            out: bytes = self._frames.read(count)
        except self.failure as exc:
            raise IntegrityError(f"cannot read {self.what}: damaged zstd stream ({exc})") from exc
        return out


def _followed(source: Read, last: bytes) -> Read:
    """Give what `source` gives, and `last` together with its last piece.

    By itself it would be taken for a frame: zstd looks for a whole one where a piece begins, also within a header.
    """
    pieces: list[bytes] = []

    def read(count: int) -> bytes:
        if not pieces:
            pieces.append(source(count))
        piece = pieces.pop()
        if not piece:
            return b""
        pieces.append(source(count))
        return piece if pieces[0] else piece + last

    return read


class _File:
    """Look like a file to the library, which only reads."""

    def __init__(self, read: Read) -> None:
        self.read = read


def decoder(name: str, source: Read, what: str) -> Read:
    """Give a function that reads the decoded stream; `what` names it in errors."""
    if not name:
        return source
    if name == "zstd":
        return Zstd(source, what).read
    return Members(name, source, what).read
