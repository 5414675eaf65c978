"""Options of the fault tests, and what they share."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invariants import LAUNCHER, Store

NOBODY = (65534, 65534)  # a user who has no range of ids


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "in `make test-faults`, kill at so many system calls of each process; 0: at every one"
    parser.addoption("--sample", type=int, default=12, help=text)


def mapped() -> tuple[int, int] | None:
    """Find a user who has a range of ids (subuid(5))."""
    for line in Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else []:
        try:
            user = pwd.getpwnam(line.partition(":")[0])
        except KeyError:
            continue
        if user.pw_uid and shutil.which("newuidmap"):
            return user.pw_uid, user.pw_gid
    return None


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens: the whole suite takes most of an hour, and may be broken off before its end."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when}):\n{report.longreprtext}", file=sys.__stderr__, flush=True)


@pytest.fixture(scope="module", params=["root", "user"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    ids = {"root": (0, 0), "user": NOBODY, "mapped": mapped()}[request.param]
    if ids is None:
        pytest.skip("needs newuidmap and a user with a range in /etc/subuid")
    root = Path("/tmp") / f"sampan-faults-{os.getpid()}-{request.param}"
    root.mkdir(mode=0o755)
    os.chown(root, *ids)
    found = Store(root, *ids)
    try:
        if ids[0] and found.execute([str(LAUNCHER), "version"]).returncode != 0:
            pytest.skip("another user cannot read this source tree")
        found.succeeds("bootstrap", "-t", "base", "host", "sh", "sleep", "true")
        yield found
    finally:
        # What a failed test left running would go on after its store.
        left = found.command("ps", "-aq").stdout.split()
        if left:
            found.command("rm", "-f", *left)
        found.close()
        shutil.rmtree(root)
