"""What the tests of a container's life share."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

Run = Callable[..., subprocess.CompletedProcess[str]]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition; it is an error when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
