"""Layers on their way out: compressed once, described exactly, and the work of a dropped upload ends."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from waiting import until

import sampan
from sampan.errors import IntegrityError, InvalidArgument
from sampan.oci import image
from sampan.transfer import compress, encode
from sampan.transfer.ahead import Ahead, Behind

DATA = b"".join(b"%d\n" % number for number in range(1_000_000))
BIG = 3 << 20


def layer_of(engine: sampan.Engine, data: bytes, media_type: str = image.OCI_LAYER) -> dict[str, Any]:
    return image.descriptor(media_type, engine.store.content.add(data), len(data))


def sent(upload: compress.Upload, step: int = 1 << 16) -> bytes:
    parts = []
    while part := upload.read(step):
        assert len(part) <= step
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("name, unpack", [("gzip", gzip.decompress), ("zstd", None)])
def test_a_plain_layer_is_compressed_and_described(
    engine: sampan.Engine, name: str, unpack: Callable[[bytes], bytes] | None
) -> None:
    layer = layer_of(engine, DATA)
    assert compress.known(engine.store, layer, name) is None
    with compress.open_layer(engine.store, layer, name) as upload:
        assert (upload.digest, upload.size) == ("", -1)
        with pytest.raises(InvalidArgument):
            upload.descriptor()
        data = sent(upload)
        found = upload.descriptor()
    assert (unpack or (lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)))(data) == DATA
    assert found["digest"] == "sha256:" + hashlib.sha256(data).hexdigest() and found["size"] == len(data)
    assert found["mediaType"] == image.OCI_LAYER + "+" + name
    assert compress.known(engine.store, layer, name) == found
    with compress.open_layer(engine.store, layer, name) as upload:
        assert sent(upload, 1000) == data  # the same bytes again


def test_a_compressed_layer_goes_as_it_is(engine: sampan.Engine) -> None:
    packed = gzip.compress(DATA)
    layer = {**layer_of(engine, packed, image.OCI_LAYER_GZIP), "annotations": {"a": "b"}}
    assert compress.known(engine.store, layer) == layer
    with compress.open_layer(engine.store, layer) as upload:
        assert upload.size == len(packed)
        assert sent(upload) == packed and upload.descriptor() == layer
    plain = layer_of(engine, DATA)
    with compress.open_layer(engine.store, plain, "") as upload:
        assert sent(upload) == DATA and upload.descriptor() == plain


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_a_damaged_blob_is_never_sent_for_whole(engine: sampan.Engine, spoil: Callable[[bytes], bytes]) -> None:
    layer = layer_of(engine, DATA)
    path = engine.store.content.path(layer["digest"])
    with open(path, "wb") as file:
        file.write(spoil(DATA))
    with compress.open_layer(engine.store, layer) as upload, pytest.raises(IntegrityError, match="damaged"):
        sent(upload)
    assert compress.known(engine.store, layer) is None


@pytest.mark.parametrize("damaged", [False, True])
def test_a_layer_that_was_sent_before_is_verified_too(engine: sampan.Engine, damaged: bool) -> None:
    layer = layer_of(engine, DATA)
    with compress.open_layer(engine.store, layer) as upload:
        first = sent(upload)
    if damaged:
        with open(engine.store.content.path(layer["digest"]), "r+b") as file:
            file.write(b"x")
        with compress.open_layer(engine.store, layer) as upload, pytest.raises(IntegrityError, match="damaged"):
            sent(upload)
        return
    another = {"digest": "sha256:" + "0" * 64, "size": 1}  # as an older compressor left it
    engine.store.buildcache.put(f"gzip of {layer['digest']}", another)
    with compress.open_layer(engine.store, layer) as upload:
        assert sent(upload) == first
    assert compress.known(engine.store, layer) == upload.descriptor()


LARGE = bytes(range(256)) * 6000


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: data + b"x"])
@pytest.mark.parametrize("summed", [True, False])
def test_a_large_blob_is_verified_by_its_check_sum_or_its_digest(
    engine: sampan.Engine, spoil: Callable[[bytes], bytes], summed: bool
) -> None:
    layer = layer_of(engine, LARGE)
    path = engine.store.content.path(layer["digest"])
    if summed and "user.sampan.crc32" not in os.listxattr(path):
        pytest.skip("needs a file system with user.* attributes")
    if not summed and os.listxattr(path):
        os.removexattr(path, "user.sampan.crc32")
    with compress.open_layer(engine.store, layer) as upload:
        assert isinstance(upload, compress.Compressed) and (upload._plain is None) == summed  # hashed or not
        first = sent(upload)
    assert gzip.decompress(first) == LARGE
    engine.store.buildcache.prune()
    with open(path, "wb") as file:
        file.write(spoil(LARGE))
    with compress.open_layer(engine.store, layer) as upload, pytest.raises(IntegrityError, match="damaged"):
        sent(upload)
    assert compress.known(engine.store, layer) is None


def test_a_wrong_check_sum_does_not_make_a_whole_blob_a_damaged_one(engine: sampan.Engine) -> None:
    layer = layer_of(engine, LARGE)
    for value in (b"00000001", b"nonsense"):
        try:
            os.setxattr(engine.store.content.path(layer["digest"]), "user.sampan.crc32", value)
        except OSError as exc:
            pytest.skip(f"needs a file system with user.* attributes: {exc}")
        engine.store.buildcache.prune()
        with compress.open_layer(engine.store, layer) as upload:
            assert gzip.decompress(sent(upload)) == LARGE


def test_a_plain_upload_of_a_cut_blob_fails(engine: sampan.Engine) -> None:
    layer = layer_of(engine, DATA)
    os.truncate(engine.store.content.path(layer["digest"]), 5)
    with pytest.raises(IntegrityError, match="damaged"):
        compress.open_layer(engine.store, layer, "")


def test_an_upload_that_is_dropped_ends_its_threads(engine: sampan.Engine) -> None:
    layer = layer_of(engine, os.urandom(BIG) * 8)
    before = threading.active_count()
    upload = compress.open_layer(engine.store, layer)
    assert upload.read(10)
    upload.close()
    upload.close()
    until(lambda: threading.active_count() <= before)


def packed(data: bytes, threads: int, pace: int) -> bytes:
    """Compress data that comes in pieces of at most `pace` bytes."""
    source, out = io.BytesIO(data), []
    with encode.Gzip(lambda buffer: source.readinto(buffer[:pace]), threads) as stream:
        while piece := stream.read(10_000):
            out.append(piece)
    return b"".join(out)


def test_without_igzip_zlib_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert gzip.decompress(packed(DATA, 2, BIG)) == DATA


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="lzma"):
        encode.begin("lzma", io.BytesIO().readinto)


@pytest.mark.parametrize("size", [0, 1, encode.BLOCK - 1, encode.BLOCK, encode.BLOCK + 1, 3 * encode.BLOCK + 7])
def test_gzip_is_the_same_for_any_number_of_threads_and_any_pace_of_its_source(size: int) -> None:
    data = (DATA + os.urandom(encode.BLOCK))[-size:] if size else b""
    made = set[bytes]()
    for threads, pace in ((1, BIG), (2, BIG), (3, 4096), (8, 65521)):
        made.add(packed(data, threads, pace))
    assert len(made) == 1
    out = made.pop()
    assert gzip.decompress(out) == data
    assert subprocess.run(["gzip", "-dc"], input=out, stdout=subprocess.PIPE, check=True).stdout == data


def test_what_a_source_raises_is_raised_by_the_read_that_comes_to_it() -> None:
    source = io.BytesIO(os.urandom(2 * encode.BLOCK))

    def fails(buffer: memoryview) -> int:
        if size := source.readinto(buffer):
            return size
        raise OSError(5, "a bad sector")

    got = 0
    with encode.Gzip(fails, 3) as stream, pytest.raises(OSError, match="bad sector"):
        while data := stream.read(BIG):
            got += len(data)
    assert got > 2 * encode.BLOCK


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressing_does_not_run_away_from_its_reader(compression: str) -> None:
    noise, taken = os.urandom(encode.BLOCK), [0]

    def source(buffer: memoryview) -> int:
        taken[0] += 1
        buffer[:] = noise
        return len(buffer) if taken[0] < 1000 else 0

    with encode.begin(compression, source) as stream:
        assert stream.read(1)
        before = -1
        while before != taken[0]:
            before = taken[0]
            time.sleep(0.3)
        assert taken[0] < 100  # of a mebibyte each
        while stream.read(BIG):
            pass
    assert taken[0] >= 1000


# -- reading ahead --


def test_ahead_gives_the_stream_and_does_its_work_once() -> None:
    seen: list[bytes] = []
    with Ahead(io.BytesIO(DATA).read, seen.append, step=1000) as ahead:
        assert b"".join(iter(lambda: ahead.read(77), b"")) == DATA
        assert ahead.read(1) == b""
    assert b"".join(seen) == DATA


def test_ahead_hands_on_what_its_source_raised_after_what_came_before() -> None:
    pieces = iter([b"one", b"two"])

    def source(count: int) -> bytes:
        piece = next(pieces, None)
        if piece is None:
            raise IntegrityError("broken")
        return piece

    with Ahead(source) as ahead:
        assert ahead.read(10) + ahead.read(10) == b"onetwo"
        for _ in range(2):
            with pytest.raises(IntegrityError, match="broken"):
                ahead.read(1)


def test_ahead_does_not_run_away_from_its_reader() -> None:
    count = 0

    def source(step: int) -> bytes:
        nonlocal count
        count += 1
        return b"x"

    with Ahead(source) as ahead:
        for _ in range(20):
            time.sleep(0.001)
            ahead.read(1)
        assert count <= 20 + 5


def test_a_closed_ahead_does_nothing_with_what_a_blocked_read_still_brings() -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    ahead = Ahead(lambda count: os.read(read, count), seen.append)
    ahead.close()  # does not wait for the read
    os.write(write, b"late")
    ahead._thread.join(60)
    assert not ahead._thread.is_alive() and seen == []
    os.close(read)
    os.close(write)


def test_a_process_ends_with_a_stage_that_is_blocked() -> None:
    code = (
        "import os; from sampan.transfer.ahead import Ahead, Behind; r, w = os.pipe(); Ahead(lambda n: os.read(r, n))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


# -- writing behind --


def test_behind_does_all_of_it_in_order_before_its_block_ends() -> None:
    seen: list[bytes] = []
    with Behind(seen.append) as behind:
        for number in range(1000):
            behind.write(b"%d" % number)
    assert seen == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("pieces", [1, 1000])
def test_behind_raises_what_went_wrong_and_does_no_more(pieces: int) -> None:
    seen: list[bytes] = []

    def each(data: bytes) -> None:
        seen.append(data)
        raise IntegrityError("full")

    with pytest.raises(IntegrityError, match="full"), Behind(each) as behind:
        for _ in range(pieces):
            behind.write(b"x")
    assert seen == [b"x"]


def test_behind_drops_what_waits_when_its_block_fails() -> None:
    seen: list[bytes] = []
    gate = threading.Event()

    def each(data: bytes) -> None:
        gate.wait(60)
        seen.append(data)

    class Opening(Behind):
        """Opens the gate when nothing is left that waits."""

        def open(self) -> None:
            until(lambda: self._ended)
            gate.set()

    def fail() -> None:
        with Opening(each) as behind:
            for _ in range(5):
                behind.write(b"x")
            threading.Thread(target=behind.open).start()
            raise KeyError("why")

    with pytest.raises(KeyError):
        fail()
    assert len(seen) <= 1
