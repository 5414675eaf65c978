"""Options of the fault tests, and what they share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from invariants import LAUNCHER, Store

AS_ANOTHER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]  # a user who has no range of ids


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", type=int, default=0, help="kill at so many system calls of each process, not at all")


@pytest.fixture(scope="module", params=["root", "user"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    root = Path("/tmp") / f"sampan-faults-{os.getpid()}-{request.param}"
    root.mkdir(mode=0o755)
    if request.param == "user":
        os.chown(root, 65534, 65534)
    found = Store(root, AS_ANOTHER if request.param == "user" else [])
    try:
        if request.param == "user" and found.execute([str(LAUNCHER), "version"]).returncode != 0:
            pytest.skip("another user cannot read this source tree")
        found.succeeds("bootstrap", "-t", "base", "host", "sh", "sleep", "true")
        yield found
    finally:
        # What a failed test left running would go on after its store.
        left = found.command("ps", "-aq").stdout.split()
        if left:
            found.command("rm", "-f", *left)
        shutil.rmtree(root)
