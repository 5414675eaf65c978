"""sampan ps: list containers in Docker's columns."""

from __future__ import annotations

import sys

from sampan.cli import output
from sampan.cli.each import parse_filters
from sampan.cli.options import FILTER, FLAG, INT, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine
    from sampan.engine.listing import Row

OPTIONS = Command(
    "ps",
    "List containers: the running ones, or with -a all of them.",
    "",
    (
        Option("all", "a", FLAG, "Show stopped containers too"),
        Option("filter", "f", FILTER, "Show those only that match KEY=VALUE, such as status=exited or label=x"),
        Option("format", help="Print each with a Go template, `table TEMPLATE`, `json` or `raw`"),
        Option("last", "n", INT, "Show the last N containers, running or not", default=-1),
        Option("latest", "l", FLAG, "Show the last container, running or not"),
        Option("no-trunc", "", FLAG, "Do not shorten ids, commands and mounts"),
        Option("quiet", "q", FLAG, "Print ids only"),
        Option("size", "s", FLAG, "Show what each has written, and that together with its image"),
    ),
    examples=(
        "sampan ps -a -f status=exited -f ancestor=app",
        "sampan ps --format 'table {{.Names}}\\t{{.Status}}\\t{{.Label \"tier\"}}'",
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
RAW = ("container_id", "image", "command", "created_at", "state", "status", "names", "labels", "ports")
_COMMAND_WIDTH, _MOUNT_WIDTH = 20, 15


def run(engine: Engine, values: Values) -> int:
    """Print the list."""
    limit = 1 if values.latest else max(0, values.last)
    size = values.size or ".Size" in values.format
    size = size and not values.quiet
    filters = parse_filters(values.filter)
    found = engine.containers.ls(all=values.all, filters=filters, limit=limit, **({"size": True} if size else {}))
    if values.format == "raw":
        fields = RAW[:1] if values.quiet else (*RAW, "size") if values.size else RAW
        output.write(output.raw([row(item, values.no_trunc) for item in found], fields, {"container_id": "ID"}))
        return 0
    if values.quiet:
        if values.format:
            sys.stderr.write("sampan: warning: --format is not used: --quiet prints ids\n")
        ids = (item["ID"] if values.no_trunc else output.short_id(item["ID"]) for item in found)
        output.write("".join(text + "\n" for text in ids))
        return 0
    rows = [row(item, values.no_trunc) for item in found]
    names = (*COLUMNS, "Size") if values.size else COLUMNS
    columns = [(HEADERS[name], name) for name in names]
    output.write(output.rows(rows, columns, {**HEADERS, "Label": _label_heading}, values.format))
    return 0


def row(item: Row, whole: bool) -> dict[str, Any]:
    """Return the fields of one container as templates and columns show them."""
    shown: dict[str, Any] = {name: item.get(name, "") for name in HEADERS}
    shown["CreatedAt"] = output.local_time(item["Created"] / 1e9)
    shown["ID"] = item["ID"] if whole else output.short_id(item["ID"])
    command = str(shown["Command"])
    shown["Command"] = _quoted(command if whole else output.ellipsis(command, _COMMAND_WIDTH))
    mounts = [text if whole else output.ellipsis(text, _MOUNT_WIDTH) for text in item.get("MountList", ())]
    shown["Mounts"] = ",".join(mounts)
    shown["Size"] = "0B"
    if "SizeRw" in item:
        shown["Size"] = output.human_size(item["SizeRw"])
        shown["Size"] += f" (virtual {output.human_size(item['SizeRootFs'])})"
    labels = item.get("LabelMap") or {}
    shown["Label"] = lambda name: labels.get(name, "")
    return shown


def _quoted(text: str) -> str:
    """Quote as Go's strconv.Quote, which is what Docker prints."""
    out = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return f'"{out}"'


def _label_heading(name: str) -> str:
    return name.rpartition(".")[2]
