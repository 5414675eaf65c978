"""Parts of files that never pass through Python, whatever they are sent to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import IntegrityError, Unavailable
from sampan.transfer import output

DATA = os.urandom(3 << 20) * 7  # more than one step


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "source").write_bytes(DATA + b"more")
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR])
@pytest.mark.parametrize("directory", ["", "/dev/shm"])
def test_a_file_gets_all_of_it_where_it_stands(tmp_path: Path, source: int, flags: int, directory: str) -> None:
    path = Path(directory or tmp_path) / f"sampan-output-{os.getpid()}"
    path.write_bytes(b"before")
    try:
        fd = os.open(path, flags)
        os.lseek(fd, 0, os.SEEK_END)
        output.send(fd, source, len(DATA), "it")
        output.write_all(fd, b"after")
        os.close(fd)
        assert path.read_bytes() == b"before" + DATA + b"after"
    finally:
        path.unlink()


def test_a_pipe_gets_all_of_it(source: int) -> None:
    read, write = os.pipe()
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.extend(iter(lambda: os.read(read, 1 << 16), b"")))
    reader.start()
    output.send(write, source, len(DATA), "it")
    os.close(write)
    reader.join()
    os.close(read)
    assert b"".join(parts) == DATA


def test_a_character_device_gets_all_of_it(source: int) -> None:
    fd = os.open("/dev/null", os.O_WRONLY)
    output.send(fd, source, len(DATA), "it")
    os.close(fd)


def test_a_source_that_became_shorter_is_an_error(tmp_path: Path, source: int) -> None:
    with open(tmp_path / "out", "wb") as file, pytest.raises(IntegrityError, match="it became shorter"):
        output.send(file.fileno(), source, len(DATA) + 5, "it")


def test_a_reader_that_is_gone_and_a_full_device_are_told(source: int) -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(Unavailable, match="Broken pipe"):
        output.send(write, source, len(DATA), "it")
    os.close(write)
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(Unavailable, match="No space"):
        output.send(fd, source, len(DATA), "it")
    os.close(fd)
