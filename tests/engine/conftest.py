"""A store of its own with a base image made from this host's programs: no registry, no download."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

import sampan

PROGRAMS = [
    "sh",
    "cat",
    "ls",
    "id",
    "sleep",
    "env",
    "mkdir",
    "rm",
    "touch",
    "chmod",
    "ln",
    "stat",
    "head",
    "true",
    "false",
    "dd",
    "setsid",
]


@pytest.fixture(scope="session")
def engine() -> Iterator[sampan.Engine]:
    with tempfile.TemporaryDirectory(prefix="sampan-test-") as root:
        os.chmod(root, 0o711)
        engine = sampan.Engine(root)
        engine.bootstrap("host", "base", PROGRAMS)
        yield engine
        for row in engine.containers.ls(all=True):
            engine.containers.remove(row["ID"], force=True)
        engine.close()
