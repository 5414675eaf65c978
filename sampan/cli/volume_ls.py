"""sampan volume ls: list volumes in Docker's columns."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.each import parse_filters
from sampan.cli.options import FILTER, FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "volume ls",
    "List volumes.",
    "",
    (
        Option("filter", "f", FILTER, "Show those only that match KEY=VALUE (dangling, driver, label, name)"),
        Option("format", help="Print each with a Go template, `table TEMPLATE`, `json` or `raw`"),
        Option("quiet", "q", FLAG, "Print names only"),
    ),
)

HEADERS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
}


def run(engine: Engine, values: Values) -> int:
    """Print the list."""
    found = engine.volumes.ls(parse_filters(values.filter))
    if values.format == "raw":
        output.write(output.raw(found, ("name",) if values.quiet else ("name", "driver")))
        return 0
    if values.quiet and not values.format:
        output.write("".join(item["Name"] + "\n" for item in found))
        return 0
    for item in found:
        labels = item.pop("LabelMap")
        item["Label"] = lambda name, labels=labels: labels.get(name, "")
    columns = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")]
    heads = {**HEADERS, "Label": lambda name: name.rpartition(".")[2]}
    output.write(output.rows(found, columns, heads, values.format))
    return 0
