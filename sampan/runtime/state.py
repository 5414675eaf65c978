"""The life of a container: which action is legal in which state, as a table. Pure.

    created ──start──► running ◄──unpause── paused
                        │  ▲ └───pause───────▲
                       die │
                        ▼  restart policy
                      exited / restarting          any but running ──remove──► removing ──► (gone) or dead

An action that is absent from a state's row is refused. An action that maps a state to itself changes nothing: `start`
of a running container and `stop` of one that is not running succeed, as with Docker. A container whose removal failed
is dead, and can only be removed again.
"""

from __future__ import annotations

from sampan.errors import Conflict, InvalidArgument

CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
RESTARTING = "restarting"
EXITED = "exited"
REMOVING = "removing"
DEAD = "dead"

# state -> action -> next state
TRANSITIONS: dict[str, dict[str, str]] = {
    CREATED: {"start": RUNNING, "restart": RUNNING, "stop": CREATED, "rename": CREATED, "update": CREATED,
              "wait": CREATED, "remove": REMOVING},
    RUNNING: {"start": RUNNING, "restart": RUNNING, "stop": EXITED, "kill": RUNNING, "die": EXITED, "pause": PAUSED,
              "exec": RUNNING, "attach": RUNNING, "rename": RUNNING, "update": RUNNING, "wait": RUNNING,
              "backoff": RESTARTING},
    PAUSED: {"unpause": RUNNING, "stop": EXITED, "restart": RUNNING, "kill": PAUSED, "die": EXITED,
             "rename": PAUSED, "update": PAUSED, "wait": PAUSED},
    RESTARTING: {"start": RUNNING, "restart": RUNNING, "stop": EXITED, "kill": EXITED, "die": EXITED,
                 "rename": RESTARTING, "update": RESTARTING, "wait": RESTARTING},
    EXITED: {"start": RUNNING, "restart": RUNNING, "stop": EXITED, "rename": EXITED, "update": EXITED,
             "wait": EXITED, "remove": REMOVING},
    REMOVING: {"wait": REMOVING, "fail": DEAD},
    DEAD: {"wait": DEAD, "stop": DEAD, "remove": REMOVING},
}  # fmt: skip

_VERBS = {"exec": "execute in", "attach": "attach to"}
_ACTIONS = frozenset([action for row in TRANSITIONS.values() for action in row])

# Why an action needs another state: what the message ends with, and what helps. "" stands for every other state.
_REASONS: dict[str, dict[str, tuple[str, str]]] = {
    "exec": {PAUSED: ("it is paused", "unpause it first")},
    "attach": {
        PAUSED: ("it is paused", "unpause it first"),
        RESTARTING: ("it is restarting", "wait until it runs"),
        "": ("it is not running", "start it first, or with `sampan start -a`"),
    },
    "start": {PAUSED: ("it is paused", "unpause it instead")},
    "pause": {PAUSED: ("it is already paused", "")},
    "unpause": {"": ("it is not paused", "")},
    "remove": {
        "": ("it is {status}", "stop it first, or force the removal with -f"),
        REMOVING: ("its removal is already in progress", ""),
    },
}


def allowed(status: str, action: str) -> bool:
    """Say whether an action is legal in a state."""
    return action in TRANSITIONS.get(status, {})


def require(status: str, action: str, name: str = "") -> str:
    """Return the state that an action leads to; Conflict if it is not legal, `name` being the container's."""
    if action not in _ACTIONS:
        raise InvalidArgument(f"unknown action {action!r} on a container")
    following = TRANSITIONS.get(status, {}).get(action)
    if following is not None:
        return following
    reason, hint = _reason(status, action)
    what = f"container {name}" if name else "the container"
    raise Conflict(f"cannot {_VERBS.get(action, action)} {what}: {reason}", hint)


def _reason(status: str, action: str) -> tuple[str, str]:
    if status == DEAD:
        return "it is dead: its removal failed", "remove it again"
    if status == REMOVING and action != "remove":
        return "it is being removed", ""
    reasons = _REASONS.get(action, {})
    reason, hint = reasons.get(status) or reasons.get("") or ("it is not running", "")
    return reason.format(status=status), hint
