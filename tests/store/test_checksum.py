"""Large uncompressed blobs keep the CRC-32 that they had when their digest was verified."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from pathlib import Path

import pytest
from storekit import Store

MIB = 1 << 20
LARGE = os.urandom(MIB + 1)


@pytest.fixture(autouse=True)
def attributes(tmp_path: Path) -> None:
    """Skip where the file system keeps no attributes of users."""
    try:
        os.setxattr(tmp_path, "user.sampan.test", b"1")
    except OSError as exc:
        pytest.skip(f"needs a file system with user.* attributes: {exc}")


def checksum(store: Store, digest: str) -> int:
    fd = store.content.open(digest)
    try:
        return store.content.checksum(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("step", [1000, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_it_is_that_of_all_bytes_however_they_come(store: Store, step: int) -> None:
    data = LARGE * 2
    with store.content.ingest() as ingest:
        for at in range(0, len(data), step):
            ingest.write(memoryview(data[at : at + step]))
        digest, _ = ingest.commit()
    assert checksum(store, digest) == zlib.crc32(data)


@pytest.mark.parametrize(
    "data",
    [b"small", LARGE[:-2], gzip.compress(LARGE, 0), b"\x28\xb5\x2f\xfd" + LARGE],
    ids=["5", "1M", "gzip", "zstd"],
)
def test_what_is_small_or_compressed_has_none(store: Store, data: bytes) -> None:
    assert checksum(store, store.content.add(data)) == -1


@pytest.mark.parametrize("holes", ["first", "last", "between"])
def test_holes_are_zeros_in_it_or_there_is_none(store: Store, holes: str) -> None:
    zeros = bytes(2 * MIB)
    data = {"first": zeros + LARGE, "last": LARGE + zeros, "between": LARGE + zeros + LARGE}[holes]
    with store.content.ingest() as ingest:
        for at in range(0, len(data), 1 << 16):
            ingest.write(data[at : at + (1 << 16)])
        digest, _ = ingest.commit()
    assert checksum(store, digest) in (-1, zlib.crc32(data)) and store.content.verify(digest)
    assert (checksum(store, digest) == -1) == (holes == "first")


def test_without_its_library_there_is_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert checksum(store, store.content.add(LARGE)) == -1
