"""One engine, one program of attacks and one image that holds it, for all tests here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from attackkit import HERE, PROGRAMS, Image, command

import sampan


@pytest.fixture(scope="session")
def engine(with_base: Callable[[list[str]], AbstractContextManager[sampan.Engine]]) -> Iterator[sampan.Engine]:
    with with_base(PROGRAMS) as engine:
        yield engine


@pytest.fixture(scope="session")
def attack() -> Iterator[str]:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler on this host")
    with tempfile.TemporaryDirectory() as place:
        program = os.path.join(place, "attack")
        words = ["cc", "-O1", "-static", "-Wall", "-Werror", os.path.join(HERE, "attack.c"), "-o", program]
        subprocess.run(words, check=True)
        yield program


@pytest.fixture(scope="session")
def image(engine: sampan.Engine, attack: str) -> str:
    made = Image(attack).add("etc/passwd", b"root:x:0:0::/:\napp:x:1000:1000::/:\n")
    made.add("etc/group", b"root:x:0:\napp:x:1000:\nextra:x:2000:app\nother:x:3000:\n")
    return made.load(engine, "attack", ("ENV PATH=/",))


@pytest.fixture
def container(engine: sampan.Engine, image: str) -> Iterator[str]:
    result = command(engine, "run", "-d", image, "/attack", "sleep", "600")
    assert result.returncode == 0, result.stderr
    name = result.stdout.decode().strip()
    yield name
    command(engine, "rm", "-f", name)


@pytest.fixture
def many_ids(engine: sampan.Engine) -> None:
    """Skip what needs other ids than the caller's own."""
    if engine.host.counts()[0] < 65536:
        pytest.skip("this user has no range in /etc/subuid")
