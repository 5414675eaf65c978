"""sampan logs: show what a container printed."""

from __future__ import annotations

import time

from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "logs",
    "Show what a container printed: its output on ours, its errors on ours.",
    "CONTAINER",
    (
        Option("follow", "f", FLAG, "Go on until the container ends"),
        Option("since", help="Show what is newer: a time, or how long ago (10m)"),
        Option("until", help="Show what is older: a time, or how long ago (10m)"),
        Option("tail", "n", help="Show the last N lines only", default="all"),
        Option("timestamps", "t", FLAG, "Show the time of each line"),
        Option("details", "", FLAG, "Put the extra attributes and a space before each line; there are none of them"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Write the log to standard output and standard error."""
    from sampan.cli.moments import exact

    now = time.time()
    tail = "all" if values.tail.startswith("-") else values.tail
    engine.containers.logs(
        values.args[0],
        follow=values.follow,
        tail=tail,
        since=exact(values.since, now) if values.since else None,
        until=exact(values.until, now) if values.until else None,
        timestamps=values.timestamps,
        details=values.details,
    )
    return 0
