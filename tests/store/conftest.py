"""A store in a directory of its own, and other processes on the same directory."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from storekit import ROOT, Spawn, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "store"))
    yield made
    made.db.close()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start Python processes that have `store`, opened on the same directory, and wait for a line from each."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *args: str, prefix: tuple[str, ...] = (), root: str = "") -> subprocess.Popen[str]:
        script = "import os, sys, time\nsys.path[:0] = [sys.argv[1], sys.argv[2]]\nfrom storekit import Store\n"
        script += "store = Store(sys.argv[3])\n" + textwrap.dedent(code)
        words = [sys.executable, "-c", script, str(ROOT), str(ROOT / "tests/store"), root or str(tmp_path / "store")]
        process = subprocess.Popen([*prefix, *words, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
