"""What Go prints for values that JSON does not tell apart: structures are `{a b}` where maps are `map[a:1 b:2]`.

`inspect -f '{{.Mounts}}'` is in many scripts. Those structures that people print whole are known by their fields
(moby, api/types/container: their order is that of the Go types). Durations are numbers in JSON, `30s` in a template.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIME = "0001-01-01T00:00:00Z"

# Fields in their order, with their zeros, after those by which a structure is known.
_MOUNT = (
    *(("Type", ""), ("Name", ""), ("Source", ""), ("Destination", ""), ("Driver", "")),
    *(("Mode", ""), ("RW", False), ("Propagation", "")),
)
_STATE = (
    *(("Status", ""), ("Running", False), ("Paused", False), ("Restarting", False), ("OOMKilled", False)),
    *(("Dead", False), ("Pid", 0), ("ExitCode", 0), ("Error", ""), ("StartedAt", _TIME), ("FinishedAt", _TIME)),
    ("Health", None),
)
_KNOWN: tuple[tuple[frozenset[str], tuple[tuple[str, Any], ...]], ...] = (
    (frozenset(("Type", "Source", "Destination", "RW")), _MOUNT),
    (frozenset(("Name", "MaximumRetryCount")), (("Name", ""), ("MaximumRetryCount", 0))),
    (frozenset(("Type", "Config")), (("Type", ""), ("Config", None))),
    (frozenset(("Status", "Running", "Pid", "ExitCode")), _STATE),
    (
        frozenset(("PathOnHost", "PathInContainer")),
        (("PathOnHost", ""), ("PathInContainer", ""), ("CgroupPermissions", "")),
    ),
    (frozenset(("Status", "FailingStreak", "Log")), (("Status", ""), ("FailingStreak", 0), ("Log", None))),
)

DURATIONS = ("Interval", "Timeout", "StartPeriod", "StartInterval")


def fields(value: dict[str, Any]) -> tuple[tuple[str, Any], ...] | None:
    """Return the fields of the structure that this is, in order and with their zeros; None for a map."""
    for needed, found in _KNOWN:
        if needed <= value.keys() <= {name for name, _ in found}:
            return found
    return None


def duration(nanoseconds: int) -> str:
    """Write a duration as Go does."""
    from sampan.oci import health

    return health.duration(nanoseconds) if nanoseconds else "0s"
