"""What the tests of a container's life share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from waiting import until

import sampan

Run = Callable[..., subprocess.CompletedProcess[str]]


def heard(engine: sampan.Engine, name: str) -> None:
    """Wait for the first output of a container: a script says something once its traps are set."""
    log = engine.store.paths.container(engine.containers.get(name).id) + "/log"
    until(lambda: os.path.exists(log) and os.path.getsize(log))


def holds(pid: int, name: str) -> bool:
    """Say whether a process has a file open whose path ends so."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(name):
                return True
        except FileNotFoundError:
            continue
    return False
