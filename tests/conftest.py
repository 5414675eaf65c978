"""What the tests of every directory may use."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

ENOUGH = 30.0

# On a busy machine one example may take long.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Take a default that a shell took away: what it starts with & ignores SIGINT, and so do all commands below."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
