"""What came of a blob before: once it is a blob of the store it is never touched any more."""

from __future__ import annotations

import errno
import os

import pytest
from storekit import Store

from sampan.errors import IntegrityError
from sampan.oci import digest
from sampan.store import files
from sampan.store.partials import open_partial

DATA = b"some content" * 1000
DIGEST = digest.of(DATA)


def test_what_was_committed_is_compared_and_not_written_again(store: Store) -> None:
    store.paths.make()
    with open_partial(store.paths, DIGEST) as partial:
        assert partial is not None
        partial.write(DATA)
        partial.commit(DIGEST, len(DATA))
        for other in (b"x" * len(DATA), DATA + b"more", DATA[:5]):
            partial.discard()
            assert store.content.read(DIGEST) == DATA
            partial.write(other)
            with pytest.raises(IntegrityError):
                partial.commit(DIGEST, len(DATA))
            assert store.content.verify(DIGEST)
        partial.discard()
        assert partial.read(1 << 20, 0) == DATA
        partial.write(DATA)
        assert partial.commit(DIGEST, len(DATA)) == (DIGEST, len(DATA))
    assert store.content.read(DIGEST) == DATA and os.listdir(store.paths.ingest) == []


def test_a_disk_that_fails_behind_the_rename_costs_no_blob(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.paths.make()

    def failing(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with open_partial(store.paths, DIGEST) as partial:
        assert partial is not None
        partial.write(DATA)
        with monkeypatch.context() as patch:
            patch.setattr(files, "sync_directory", failing)
            with pytest.raises(IntegrityError, match="the disk may be failing|Input/output error"):
                partial.commit(DIGEST, len(DATA))
        partial.discard()  # as for every content that is not what was promised
        assert store.content.read(DIGEST) == DATA


def test_one_who_drips_is_not_waited_for(store: Store) -> None:
    """A peer that promises a blob which others want too, and gives a byte now and then."""
    store.paths.make()
    heard: list[int] = []
    with open_partial(store.paths, DIGEST) as dripping:
        assert dripping is not None

        def drip(size: int) -> None:
            heard.append(size)
            dripping.write(DATA[:1])

        with open_partial(store.paths, DIGEST, None, drip, 0.5) as partial:
            assert partial is None
    assert heard == sorted(heard) and len(heard) > 1
