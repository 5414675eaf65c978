"""sampan ps: list containers in Docker's columns."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.each import parse_filters
from sampan.cli.options import FLAG, INT, LIST, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "ps",
    "List containers: the running ones, or with -a all of them.",
    "",
    (
        Option("all", "a", FLAG, "Show stopped containers too"),
        Option("filter", "f", LIST, "Show those only that match KEY=VALUE (id, name, status, label, ancestor, exited)"),
        Option("format", help="Print each with a Go template, `table TEMPLATE` or `json`"),
        Option("last", "n", INT, "Show the last N containers, running or not", default=-1),
        Option("latest", "l", FLAG, "Show the last container, running or not"),
        Option("no-trunc", "", FLAG, "Do not shorten ids and commands"),
        Option("quiet", "q", FLAG, "Print ids only"),
        Option("size", "s", FLAG, "Show sizes"),
    ),
)

HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
}
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_COMMAND_WIDTH = 20


def run(engine: Engine, values: Values) -> int:
    """Print the list."""
    limit = 1 if values.latest else max(0, values.last)
    found = engine.containers.ls(all=values.all, filters=parse_filters(values.filter), limit=limit)
    rows = [row(item, values.no_trunc) for item in found]
    if values.quiet and not values.format:
        output.write("".join(item["ID"] + "\n" for item in rows))
        return 0
    names = (*COLUMNS, "Size") if values.size else COLUMNS
    columns = [(HEADERS[name], name) for name in names]
    output.write(output.rows(rows, columns, {**HEADERS, "Label": _label_heading}, values.format))
    return 0


def row(item: dict[str, Any], whole: bool) -> dict[str, Any]:
    """Return the fields of one container as templates and columns show them."""
    shown = {name: item.get(name, "") for name in HEADERS}
    command = str(shown["Command"]).removeprefix('"').removesuffix('"')
    shown["CreatedAt"] = output.local_time(item["Created"] / 1e9)
    shown["ID"] = item["ID"] if whole else output.short_id(item["ID"])
    shown["Command"] = '"' + (command if whole else output.ellipsis(command, _COMMAND_WIDTH)) + '"'
    labels = dict(pair.partition("=")[::2] for pair in str(shown["Labels"]).split(","))
    shown["Label"] = lambda name: labels.get(name, "")
    return shown


def _label_heading(name: str) -> str:
    return name.rpartition(".")[2]
