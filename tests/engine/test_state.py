"""Actions that a container's state does not permit say why."""

from __future__ import annotations

import itertools

import pytest

from sampan.engine import state
from sampan.errors import Conflict

STATES = (state.CREATED, state.RUNNING, state.PAUSED, state.RESTARTING, state.EXITED)
LEGAL = {
    *(("running", action) for action in ("attach", "exec", "kill", "pause", "start")),
    *(("paused", action) for action in ("kill", "unpause")),
    *(("restarting", action) for action in ("kill", "start")),
    *((status, "start") for status in ("created", "exited")),
}


@pytest.mark.parametrize(
    ("status", "action", "words"),
    [
        ("paused", "start", "cannot start container web: it is paused"),
        ("paused", "exec", "cannot execute in container web: it is paused"),
        ("running", "unpause", "it is not paused"),
        ("paused", "pause", "already paused"),
        ("restarting", "attach", "cannot attach to container web: it is restarting"),
        ("exited", "exec", "it is not running"),
        ("exited", "kill", "it is not running"),
        ("created", "pause", "it is not running"),
    ],
)
def test_illegal_action_says_why(status: str, action: str, words: str) -> None:
    with pytest.raises(Conflict, match=words):
        state.require(status, action, "web")


def test_every_pair_is_decided() -> None:
    for status, action in itertools.product(STATES, {action for _, action in LEGAL}):
        if (status, action) in LEGAL:
            state.require(status, action, "web")
        else:
            with pytest.raises(Conflict):
                state.require(status, action, "web")
