"""How tests wait: they ask again and again, for so long that no busy machine makes them fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found], seconds: float = 60.0) -> Found:
    """Wait for a condition and give what it gave; it is an error when it does not come."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def flocks(directory: str) -> tuple[int, int]:
    """Count who has a lock of flock(2) on a directory, and who waits for one (proc(5): /proc/locks)."""
    inode = str(os.stat(directory).st_ino)
    lines = [line.split()[1:] for line in Path("/proc/locks").read_text().splitlines()]
    waiting = [line[0] == "->" for line in lines if "FLOCK" in line and line[-3].rpartition(":")[2] == inode]
    return waiting.count(False), waiting.count(True)
