"""sampan stats: what containers use, once or as a table that goes on."""

from __future__ import annotations

import sys

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "stats",
    "Show what containers use of the host; `--` is what nothing here counts.",
    "[CONTAINER...]",
    (
        Option("all", "a", FLAG, "Show those that do not run too"),
        Option("format", help="Print each with a Go template, `table TEMPLATE` or `json`"),
        Option("no-stream", "", FLAG, "Show it once"),
        Option("no-trunc", "", FLAG, "Do not shorten ids"),
    ),
    examples=("sampan stats --no-stream", "sampan stats --format '{{.Name}} {{.CPUPerc}}' app"),
)

HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_UNKNOWN = "--"
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


def run(engine: Engine, values: Values) -> int:
    """Print rounds of the table, on a terminal in one place, until interrupted or with --no-stream once."""
    live = sys.stdout.isatty() and not values.no_stream
    if live:
        output.write("\x1b[2J")
    for rows in engine.containers.stats(values.args, all=values.all):
        items = [shown(found, values.no_trunc, values.args) for found in rows]
        text = output.rows(items, [(HEADERS[name], name) for name in COLUMNS], HEADERS, values.format)
        output.write(_HOME + text.replace("\n", _END_OF_LINE + "\n") + _REST if live else text)
        output.flush()
        if values.no_stream:
            break
    return 0


def shown(found: dict[str, Any], whole: bool, asked: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of one container as columns and templates show them."""
    container_id = found["ID"] if whole else output.short_id(found["ID"])
    return {
        "BlockIO": _pair(found["IO"]),
        "CPUPerc": _percent(found["CPU"]),
        "Container": next(
            (word for word in asked if word == found["Name"] or found["ID"].startswith(word)), container_id
        ),
        "ID": container_id,
        "MemPerc": _percent(found["Share"]),
        "MemUsage": f"{_memory(found['Memory'])} / {_memory(found['Limit'])}",
        "Name": found["Name"],
        "NetIO": _pair(found["Network"]),
        "PIDs": _UNKNOWN if found["PIDs"] is None else str(found["PIDs"]),
    }


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.2f}%"


def _memory(value: int | None) -> str:
    return _UNKNOWN if value is None else output.human_bytes(value)


def _pair(value: tuple[int, int] | None) -> str:
    return _UNKNOWN if value is None else f"{output.human_size(value[0])} / {output.human_size(value[1])}"
