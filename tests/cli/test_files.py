"""Files that commands write for the caller: whole or not at all, and nothing beside them, whatever ends the command."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from sampan.cli.files import Output
from sampan.errors import Unavailable


def write(path: str, data: bytes) -> None:
    with Output(path, "a test") as fd:
        os.write(fd, data)


def test_a_file_is_replaced_whole(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("a", "./a", str(tmp_path / "a")):
        write(path, path.encode())
        assert (tmp_path / "a").read_bytes() == path.encode() and os.listdir() == ["a"]


def test_a_failure_leaves_what_was_there(tmp_path: pathlib.Path) -> None:
    write(f"{tmp_path}/a", b"old")
    with pytest.raises(ZeroDivisionError), Output(f"{tmp_path}/a", "a test") as fd:
        os.write(fd, b"new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]
    with pytest.raises(Unavailable, match="cannot write a test to .*: Is a directory"):
        write(str(tmp_path), b"")


def test_a_killed_command_leaves_nothing(tmp_path: pathlib.Path) -> None:
    code = (
        "import os, signal, sys\nfrom sampan.cli.files import Output\n"
        "with Output(sys.argv[1], 'a test') as fd:\n    os.write(fd, b'x')\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, f"{tmp_path}/a"], check=False)
    assert done.returncode == -signal.SIGTERM
    assert os.listdir(tmp_path) == []
