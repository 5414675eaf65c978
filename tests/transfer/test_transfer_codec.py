"""Compressed streams: bounded steps, several members, padding, and every way to end early."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
from collections.abc import Callable

import pytest
import zstandard

from sampan.errors import IntegrityError, NotSupported
from sampan.transfer import codec

DATA = b"".join(b"%d\n" % number for number in range(100_000))
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def decoded(data: bytes, step: int = 1 << 16) -> bytes:
    source = codec.Peek(io.BytesIO(data).read)
    read = codec.decoder(codec.detect(source.peek(6)), source.read, "the test")
    parts = []
    while part := read(step):
        assert len(part) <= step
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("name", PACKERS)
def test_decodes_and_names_what_it_decodes(name: str) -> None:
    packed = PACKERS[name](DATA)
    assert codec.detect(packed[:6]) == name
    assert decoded(packed) == DATA
    assert decoded(packed, 100) == DATA


@pytest.mark.parametrize("name", PACKERS)
def test_several_members_are_one_stream(name: str) -> None:
    assert decoded(PACKERS[name](DATA) + PACKERS[name](b"more")) == DATA + b"more"


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
def test_zero_padding_is_ignored_and_anything_else_is_not(name: str) -> None:
    packed = PACKERS[name](DATA)
    assert decoded(packed + bytes(5000)) == DATA
    with pytest.raises(IntegrityError, match=name):
        decoded(packed + b"garbage")


@pytest.mark.parametrize("name", PACKERS)
def test_a_cut_stream_is_an_error(name: str) -> None:
    packed = PACKERS[name](DATA)
    for end in (7, len(packed) // 2, len(packed) - 1):
        with pytest.raises(IntegrityError, match="early|damaged"):
            decoded(packed[:end])


SKIPPED = b"\x50\x2a\x4d\x18" + (3000).to_bytes(4, "little") + bytes(range(250)) * 12
FRAMES = {
    "raw": (b"", os.urandom(3000)),
    "rle": (b"", bytes(300_000)),
    "compressed": (b"", DATA[:3000]),
    "the mark itself": (b"", codec._MARK * 3),
    "nothing": (b"", b""),
    "a second frame": (zstandard.ZstdCompressor().compress(DATA[:999]), DATA[:999]),
    "a skipped frame": (SKIPPED, b"more"),
}


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("kind", FRAMES)
def test_zstd_that_is_cut_anywhere_is_an_error(kind: str, checksum: bool) -> None:
    before, data = FRAMES[kind]
    packed = zstandard.ZstdCompressor(write_checksum=checksum).compress(data)
    for step in (1, 63, 64, 65, 1 << 16):
        assert decoded(before + packed, step).endswith(data)
    for end in range(4, len(before + packed)):
        if end != len(before):
            with pytest.raises(IntegrityError, match="zstd"):
                decoded((before + packed)[:end])


def test_plain_bytes_pass() -> None:
    assert decoded(DATA) == DATA and decoded(b"") == b"" and decoded(b"\x1f") == b"\x1f"


def test_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = compressor.compress(DATA) + compressor.flush()
    with pytest.raises(IntegrityError, match="zstd"):
        decoded(packed)


def test_without_the_library_zstd_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(NotSupported, match="zstandard"):
        decoded(PACKERS["zstd"](DATA))


def test_zstd_chunked_is_read_like_any_zstd() -> None:
    """Frames of single files, then skippable frames with a table and a footer (containers/storage, zstd:chunked)."""
    frames = [zstandard.ZstdCompressor().compress(part) for part in (DATA[:1000], DATA[1000:50_000], DATA[50_000:])]

    def skippable(data: bytes) -> bytes:
        return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data

    packed = b"".join(frames) + skippable(os.urandom(5000)) + skippable(b"GNUlInUx" + bytes(56))
    assert decoded(packed) == DATA
    assert decoded(skippable(b"first") + packed) == DATA


@pytest.mark.parametrize("fast", [True, False])
def test_a_wrong_gzip_checksum_is_an_error_with_and_without_igzip(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    if not fast:
        monkeypatch.setitem(sys.modules, "isal", None)
    packed = bytearray(gzip.compress(DATA))
    assert decoded(bytes(packed)) == DATA
    for place in (-8, -4):
        spoilt = packed[:]
        spoilt[place] ^= 1
        with pytest.raises(IntegrityError, match="gzip"):
            decoded(bytes(spoilt))
