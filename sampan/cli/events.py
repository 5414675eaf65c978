"""sampan events: what happens in the store, as it happens."""

from __future__ import annotations

import time

from sampan.cli import output
from sampan.cli.each import parse_filters
from sampan.cli.moments import exact
from sampan.cli.options import FILTER, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "events",
    "Show what happens to containers, images and volumes, until Ctrl-C; with --since what happened too (for a day).",
    "",
    (
        Option("filter", "f", FILTER, "Show those only that match KEY=VALUE (type, event, container, image, label …)"),
        Option("format", help="Print each with a Go template, or `json`"),
        Option("since", help="Show events since this time too: 10m, 2026-01-31T10:00:00, or seconds since 1970"),
        Option("until", help="Stop at this time"),
    ),
    examples=("sampan events --since 1h --until 0s", "sampan events -f container=web -f event=die --format json"),
)


def run(engine: Engine, values: Values) -> int:
    """Print events as they come."""
    now = time.time()
    since = exact(values.since, now) if values.since else None
    until = exact(values.until, now) if values.until else None
    show = _shower(values.format)
    for event in engine.events(since, until, parse_filters(values.filter), follow=True):
        output.write(show(event) + "\n")
        output.flush()
    return 0


def _shower(format: str) -> Any:
    if not format:
        return line
    if format == "json":
        return output.json_text
    from sampan.cli import template

    parsed = template.parse(format.replace("\\t", "\t").replace("\\n", "\n"), template.UNREADABLE)

    def show(event: dict[str, Any]) -> str:
        try:
            return output.printable(parsed.render(event), keep="\n\t")
        except InvalidArgument as exc:  # a field that there is not: as Docker, and here alone
            exc.exit_code = template.UNREADABLE
            raise

    return show


def line(event: dict[str, Any]) -> str:
    """Return one event as Docker prints it: time, type, action, id, and attributes in the order of their names."""
    seconds, nanos = divmod(event["timeNano"], 1_000_000_000)
    zone = time.strftime("%z", time.localtime(seconds))
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{nanos:09d}"
    words = f"{stamp}{zone} {event['Type']} {event['Action']} {event['Actor']['ID']}"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
    return output.printable(f"{words} ({attributes})" if attributes else words)
