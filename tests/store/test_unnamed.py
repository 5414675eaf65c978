"""Files that get their name when they are whole: whatever ends the process that writes one, nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storekit import ROOT

from sampan.store import owner, unnamed

DEAD = f"{owner.boot_id()}.{owner.this_process().split('.')[1]}.4194303.1"  # above any pid that a host gives by default
ELSEWHERE = "0" * 32 + ".1.2.3"  # another boot, or another host


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("before", ["", "old"])
def test_a_file_appears_whole_and_alone(directory: int, tmp_path: Path, named: bool, before: str) -> None:
    if before:
        (tmp_path / "a").write_text(before)
    with unnamed.Unnamed(directory, 0o640, named=named) as file:
        os.write(file.fd, b"new")
        assert sum(name.startswith(unnamed.PREFIX) for name in os.listdir(tmp_path)) == named
        file.publish("a")
    assert (tmp_path / "a").read_text() == "new" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("named", [False, True])
def test_what_is_not_published_is_gone(directory: int, tmp_path: Path, named: bool) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(IsADirectoryError), unnamed.Unnamed(directory, named=named) as file:
        file.publish("there")
    assert os.listdir(tmp_path) == ["there"]
    with unnamed.Unnamed(directory, named=named) as file:
        os.write(file.fd, b"x")
        file.forget()
        assert os.listdir(tmp_path) == ["there"] and os.pread(file.fd, 9, 0) == b"x"


@pytest.mark.parametrize("named", [False, True])
def test_a_killed_process_leaves_what_the_next_one_sweeps(directory: int, tmp_path: Path, named: bool) -> None:
    code = (
        "import os, signal, sys\nsys.path.insert(0, sys.argv[1])\nfrom sampan.store import unnamed\n"
        f"file = unnamed.Unnamed(os.open(sys.argv[2], os.O_RDONLY), named={named})\n"
        "os.write(file.fd, b'half')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT), str(tmp_path)], check=False)
    assert done.returncode == -9
    assert len(os.listdir(tmp_path)) == named
    unnamed.sweep(directory)
    assert os.listdir(tmp_path) == []


def test_sweeping_takes_nothing_that_may_be_in_use(directory: int, tmp_path: Path) -> None:
    mine, dead, other, old = (
        f"{unnamed.PREFIX}{holder}.{n}" for n, holder in enumerate((owner.this_process(), DEAD, ELSEWHERE, ELSEWHERE))
    )
    for name in (mine, dead, other, old, unnamed.PREFIX + "0123456789abcdef", ".sampan", "a"):
        (tmp_path / name).touch()
    os.utime(tmp_path / old, times=(0, time.time() - 100_000))
    unnamed.sweep(directory)
    assert set(os.listdir(tmp_path)) == {mine, other, unnamed.PREFIX + "0123456789abcdef", ".sampan", "a"}
