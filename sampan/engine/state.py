"""The states of a container, and what an action says that its state does not permit. Pure.

    created ──start──► running ◄──pause, unpause──► paused
                          │
                          ├─ends──► exited ──start──► running
                          └─ends──► restarting      until its restart policy starts it again, or a stop calls that off

What changes nothing succeeds, as with Docker: `start` of a running container, `stop` of one that does not run.
"""

from __future__ import annotations

from sampan.errors import Conflict

CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
RESTARTING = "restarting"
EXITED = "exited"

# Which states an action needs.
_NEEDS = {
    "attach": (RUNNING,),
    "exec": (RUNNING,),
    "kill": (RUNNING, PAUSED, RESTARTING),
    "pause": (RUNNING,),
    "start": (CREATED, RUNNING, RESTARTING, EXITED),
    "unpause": (PAUSED,),
}
_VERBS = {"exec": "execute in", "attach": "attach to"}

# What the message ends with, and what helps. "" stands for every other state.
_REASONS: dict[str, dict[str, tuple[str, str]]] = {
    "attach": {
        PAUSED: ("it is paused", "unpause it first"),
        RESTARTING: ("it is restarting", "wait until it runs"),
        "": ("it is not running", "start it first, or with `sampan start -a`"),
    },
    "exec": {PAUSED: ("it is paused", "unpause it first"), "": ("it is not running", "start it first")},
    "kill": {"": ("it is not running", "")},
    "pause": {PAUSED: ("it is already paused", ""), "": ("it is not running", "")},
    "start": {PAUSED: ("it is paused", "unpause it instead")},
    "unpause": {"": ("it is not paused", "")},
}


def require(status: str, action: str, name: str) -> None:
    """Raise Conflict when an action is not possible in a state; `name` is the container's."""
    if status in _NEEDS[action]:
        return
    reasons = _REASONS[action]
    reason, hint = reasons.get(status) or reasons[""]
    raise Conflict(f"cannot {_VERBS.get(action, action)} container {name}: {reason}", hint)
