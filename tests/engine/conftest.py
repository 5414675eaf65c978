"""A store of its own with a base image made from this host's programs: no registry, no download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

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
def engine(with_base: Callable[[list[str]], AbstractContextManager[sampan.Engine]]) -> Iterator[sampan.Engine]:
    with with_base(PROGRAMS) as engine:
        yield engine
