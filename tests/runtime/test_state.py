"""The table of states is complete, and what it refuses says why."""

from __future__ import annotations

import pytest

from sampan.errors import Conflict, InvalidArgument
from sampan.runtime import state


def test_every_transition_leads_to_a_known_state() -> None:
    assert {following for row in state.TRANSITIONS.values() for following in row.values()} <= set(state.TRANSITIONS)


def test_every_state_can_be_reached_and_left() -> None:
    seen, todo = {state.CREATED}, [state.CREATED]
    while todo:
        for following in state.TRANSITIONS[todo.pop()].values():
            if following not in seen:
                seen.add(following)
                todo.append(following)
    assert seen == set(state.TRANSITIONS)
    assert all(set(row.values()) - {name} for name, row in state.TRANSITIONS.items())


@pytest.mark.parametrize(
    ("status", "action", "words"),
    [
        ("running", "remove", "cannot remove container web: it is running"),
        ("paused", "exec", "it is paused"),
        ("running", "unpause", "it is not paused"),
        ("paused", "pause", "already paused"),
        ("exited", "exec", "it is not running"),
        ("exited", "kill", "it is not running"),
        ("created", "pause", "it is not running"),
        ("removing", "start", "it is being removed"),
        ("removing", "remove", "already in progress"),
        ("dead", "start", "it is dead"),
    ],
)
def test_illegal_action_says_why(status: str, action: str, words: str) -> None:
    assert not state.allowed(status, action)
    with pytest.raises(Conflict, match=words):
        state.require(status, action, "web")


def test_legal_action_gives_the_next_state() -> None:
    assert state.require("created", "start") == "running"
    assert state.require("paused", "unpause") == "running"
    assert state.require("exited", "remove") == "removing"
    assert state.require("running", "start") == "running"


def test_every_pair_is_decided() -> None:
    actions = {action for row in state.TRANSITIONS.values() for action in row}
    for status in state.TRANSITIONS:
        for action in actions:
            if not state.allowed(status, action):
                with pytest.raises(Conflict):
                    state.require(status, action)


def test_unknown_action_is_an_error_of_the_caller() -> None:
    with pytest.raises(InvalidArgument):
        state.require("running", "fly")
