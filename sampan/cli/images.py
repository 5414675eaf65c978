"""sampan images: list images in Docker's columns."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.each import parse_filters
from sampan.cli.options import FILTER, FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "images",
    "List images.",
    "[REPOSITORY[:TAG]]",
    (
        Option("all", "a", FLAG, "Show every image (there are no hidden ones)"),
        Option("digests", "", FLAG, "Show digests"),
        Option("filter", "f", FILTER, "Only what matches KEY=VALUE (dangling, reference, label, before, since)"),
        Option("format", help="Print each with a Go template, `table TEMPLATE`, `json` or `raw`"),
        Option("no-trunc", "", FLAG, "Do not shorten ids"),
        Option("quiet", "q", FLAG, "Print ids only"),
        Option("tree", "", FLAG, refuse="it is not there yet"),
    ),
)

HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "VIRTUAL SIZE",
}
COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
RAW = ("repository", "tag", "digest", "image_id", "created_at", "virtual_size")


def run(engine: Engine, values: Values) -> int:
    """Print the list."""
    filters = parse_filters(values.filter)
    if values.args:
        filters.setdefault("reference", []).append(values.args[0])
    rows = [row(item, values.no_trunc) for item in engine.images.ls(filters, all=values.all)]
    if values.format == "raw":
        fields = [name for name in RAW if values.digests or name != "digest"]
        fields = ["image_id"] if values.quiet else fields
        output.write(output.raw(rows, fields, {"image_id": "ID"}))
        return 0
    if values.quiet and not values.format:
        output.write("".join(item["ID"] + "\n" for item in rows))
        return 0
    names = (*COLUMNS[:2], "Digest", *COLUMNS[2:]) if values.digests else COLUMNS
    output.write(output.rows(rows, [(HEADERS[name], name) for name in names], HEADERS, values.format))
    return 0


def row(item: dict[str, Any], whole: bool) -> dict[str, Any]:
    """Return the fields of one image as templates and columns show them."""
    shown = {name: item.get(name, "N/A") for name in HEADERS}
    shown["ID"] = item["ID"] if whole else output.short_id(item["ID"])
    shown["Size"] = shown["VirtualSize"] = output.human_size(item["Size"])
    shown["CreatedAt"] = output.local_time(item["Created"] / 1e9)
    return shown
