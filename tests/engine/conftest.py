"""A store of its own with a base image made from this host's programs: no registry, no download."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from copysupport import ENDED, RUNNING, SETUP, options, ready

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


# ---- of the tests of cp ----


@pytest.fixture(params=[RUNNING, ENDED])
def box(engine: sampan.Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    made = engine.containers.run(options("sh", "-c", SETUP), image="base", detach=True)
    name = str(made)
    ready(engine, name)
    if request.param == ENDED:
        engine.containers.kill(name)
        engine.containers.wait(name)
    yield name
    engine.containers.remove(name, force=True)


@pytest.fixture
def running(engine: sampan.Engine) -> Iterator[str]:
    name = str(engine.containers.run(options("sh", "-c", SETUP), image="base", detach=True))
    ready(engine, name)
    yield name
    engine.containers.remove(name, force=True)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> pathlib.Path:
    top = tmp_path / "host"
    for name, text in (("f", "hf"), ("d/x", "hx"), ("d/sub/y", "hy"), ("e/f", "old")):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "dir").symlink_to("d")
    (top / "file").symlink_to("f")
    (top / "dangling").symlink_to("nowhere")
    return top
