"""Names that people give (containers, volumes), and names for containers that nobody named."""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | {"_", ".", "-"}
_MAX = 128

_ADJECTIVES = (
    ("amber", "ample", "brisk", "bright", "calm", "candid", "clear", "coral", "crisp", "deft", "early", "easy", "fair")
    + ("fleet", "fond", "free", "fresh", "gentle", "glad", "golden", "hardy", "hazel", "honest", "humble", "ivory")
    + ("jolly", "keen", "kind", "light", "lively", "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble")
    + ("noble", "olive", "patient", "plain", "polite", "proud", "pure", "quick", "quiet", "ready", "rosy", "rustic")
    + ("sage", "serene", "silver", "sleek", "smooth", "snug", "sober", "spry", "steady", "still", "sturdy", "sunny")
    + ("swift", "tender", "tidy", "topaz", "trim", "trusty", "velvet", "vivid", "warm", "wise", "witty", "zesty")
)
_NOUNS = (
    ("anchor", "barge", "bay", "beacon", "bow", "breeze", "brook", "buoy", "canal", "canoe", "cape", "clipper", "coast")
    + ("compass", "coracle", "cove", "crane", "current", "cutter", "delta", "dhow", "dock", "dory", "egret", "ferry")
    + ("fjord", "ford", "galley", "gull", "harbor", "haven", "helm", "heron", "inlet", "island", "junk", "kayak")
    + ("keel", "ketch", "lagoon", "lantern", "lock", "marsh", "mast", "mooring", "oar", "otter", "paddle", "pelican")
    + ("pier", "pilot", "punt", "quay", "raft", "reed", "reef", "rigging", "river", "rudder", "sail", "schooner")
    + ("shoal", "skiff", "sloop", "spray", "strait", "tern", "tide", "tiller", "wake", "wharf", "wherry", "yawl")
)


def check(name: str, what: str) -> str:
    """Return a valid name of a `what`, else raise InvalidArgument: Docker's [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 128."""
    if not name or name[0] not in _FIRST or not _REST.issuperset(name) or len(name) > _MAX:
        raise InvalidArgument(
            f"invalid {what} name {name[:200]!r}",
            "a name begins with a letter or digit, has letters, digits, '_', '.' and '-', and at most 128 of them",
        )
    return name


def meant(text: str, known: list[str], listed_by: str) -> str:
    """Return a hint with the name that a mistyped one was meant to be, else with the command that lists all."""
    from sampan.nearest import did_you_mean

    return did_you_mean(text, known) or f"`sampan {listed_by}` lists what there is"


def pick(attempt: int = 0) -> str:
    """Return a random name, `adjective_noun`; later attempts end in digits."""
    chosen = int.from_bytes(os.urandom(8), "little")
    chosen, adjective = divmod(chosen, len(_ADJECTIVES))
    chosen, noun = divmod(chosen, len(_NOUNS))
    suffix = str(chosen % 10 ** min(attempt, 9)) if attempt else ""
    return f"{_ADJECTIVES[adjective]}_{_NOUNS[noun]}{suffix}"
