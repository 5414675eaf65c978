"""What the tests of every directory may use."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

import sampan
from sampan.errors import SampanError
from sampan.oci.options import RunOptions

ENOUGH = 30.0

# On a busy machine one example may take long. All runs try the same examples, so that none fails by chance;
# `pytest --hypothesis-profile search` tries others each time.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("patient", parent=settings.get_profile("search"), derandomize=True)
settings.load_profile("patient")


def pytest_configure() -> None:
    """Take a default that a shell took away: what it starts with & ignores SIGINT, and so do all commands below."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill = _kill_one  # type: ignore[assignment]


_kill = os.kill


def _kill_one(pid: int, number: int) -> None:
    """Signal one process. A container that has ended has the pid 0, which to kill(2) means the tests themselves."""
    assert pid > 0, f"kill({pid}, {number}) would signal many"
    _kill(pid, number)


@pytest.fixture(scope="session", autouse=True)
def nothing_left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the temporary directories when all tests have passed, and what earlier ones have left.

    pytest keeps those of three runs, gigabytes, and cannot remove what belongs to ids of a user's range (garbage-*).
    """
    yield
    if request.session.testsfailed:
        return
    base = tmp_path_factory.getbasetemp()
    before = base.parent.glob("garbage-*") if base.parent.name.startswith("pytest-of-") else []
    with tempfile.TemporaryDirectory() as own, sampan.Engine(own) as engine:
        for path in [*before, *base.iterdir()]:
            remove_left(engine, path)


def remove_left(engine: sampan.Engine, path: Path) -> None:
    """Remove a directory through the user's namespace where that is needed; it is no test's failure if that fails."""
    try:
        path.unlink() if path.is_symlink() else engine.remove_tree(str(path))
    except (OSError, SampanError) as error:
        warnings.warn(f"{path} is left: {error}", stacklevel=1)


@pytest.fixture
def soon() -> Iterator[None]:
    """Fail a test that needs 30 s of processor time: what should take one second has got out of hand.

    Other work on the machine does not count, unlike with a clock (setitimer(2), ITIMER_PROF).
    """

    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"took more than {ENOUGH:.0f} s of processor time")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, ENOUGH)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[[], sampan.Engine]]:
    """Make empty stores."""
    made: list[sampan.Engine] = []

    def make() -> sampan.Engine:
        made.append(sampan.Engine(str(tmp_path / f"store{len(made)}")))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(make_engine: Callable[[], sampan.Engine]) -> sampan.Engine:
    """An empty store; directories whose tests run containers have one with a base image instead, for all of them."""
    return make_engine()


def commit_changed(engine: sampan.Engine, name: str, script: str, image: str = "base") -> None:
    """Make an image of what a script does to another one, to what a container has its own of too (/etc/hostname)."""
    words = ["sh", "-c", f"umount /etc/hostname || exit; {script}"]
    made = engine.containers.create(image, RunOptions(command=words, cap_add=["SYS_ADMIN"]))
    assert engine.containers.start(made, attach=True) == 0
    engine.containers.commit(made, name)
    engine.containers.remove(made)


@pytest.fixture(scope="session")
def commit() -> Callable[..., None]:
    return commit_changed


@contextlib.contextmanager
def store_with_base(programs: list[str]) -> Iterator[sampan.Engine]:
    """A store with the image `base`, of programs of this host: no registry, no download."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-") as root:
        os.chmod(root, 0o711)
        engine = sampan.Engine(os.path.join(root, "store"))
        engine.bootstrap("host", "base", [*programs, "umount"])
        yield engine
        for row in engine.containers.ls(all=True):
            engine.containers.remove(row["ID"], force=True)
        engine.close()


@pytest.fixture(scope="session")
def with_base() -> Callable[[list[str]], contextlib.AbstractContextManager[sampan.Engine]]:
    return store_with_base
