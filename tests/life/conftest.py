"""A store of its own, commands on it, and containers of it: real ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from lifesupport import Run

import sampan
from sampan.runtime import cgroup

PROGRAMS = ["sh", "cat", "sleep", "true", "false", "dd", "head", "yes", "kill", "mkdir", "seq", "ls", "rm"]


@pytest.fixture(scope="session")
def engine(with_base: Callable[[list[str]], AbstractContextManager[sampan.Engine]]) -> Iterator[sampan.Engine]:
    with with_base(PROGRAMS) as engine:
        yield engine


@pytest.fixture(scope="module")
def memory() -> None:
    """Skip where memory cannot be limited."""
    layout = cgroup.detect()
    if "memory" not in layout.v1 and (not layout.v2_base or "memory" not in layout.v2_controllers()):
        pytest.skip("needs the memory controller: this user may not limit memory")


@pytest.fixture
def sampan_run(engine: sampan.Engine) -> Run:
    """Run a command of sampan on the store; its text output is kept."""

    def run(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL, **settings}
        return subprocess.run(engine.command(list(words)), **options)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture
def started(engine: sampan.Engine, sampan_run: Run) -> Iterator[Callable[..., str]]:
    """Start detached containers; they are removed after the test."""
    names: list[str] = []

    def start(script: str, *options: str) -> str:
        done = sampan_run("run", "-d", *options, "base", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        names.append(done.stdout.strip())
        return names[-1]

    yield start
    for name in names:
        sampan_run("rm", "-f", name)
