"""What the tests of a container's life share."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import sampan

Run = Callable[..., subprocess.CompletedProcess[str]]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition; it is an error when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def heard(engine: sampan.Engine, name: str) -> None:
    """Wait for the first output of a container: a script says something once its traps are set."""
    log = engine.store.paths.container(engine.containers.get(name).id) + "/log"
    until(lambda: os.path.exists(log) and os.path.getsize(log))
