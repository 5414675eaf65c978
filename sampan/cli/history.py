"""sampan history: how an image was made."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "history",
    "Show how an image was made, the last step first.",
    "IMAGE",
    (
        Option("format", help="Print each step with a Go template, `table TEMPLATE` or `json`"),
        Option("human", "H", FLAG, "Print sizes and dates for people", default=True),
        Option("no-trunc", "", FLAG, "Do not shorten ids and instructions"),
        Option("quiet", "q", FLAG, "Print ids only"),
        Option("platform", refuse="a store holds one platform per name: there is nothing to choose"),
    ),
)

HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_WIDTH = 45


def run(engine: Engine, values: Values) -> int:
    """Print the steps."""
    rows = [row(item, values.no_trunc, values.human) for item in engine.images.history(values.args[0])]
    if values.quiet and not values.format:
        output.write("".join(item["ID"] + "\n" for item in rows))
        return 0
    columns = ("ID", "CreatedSince" if values.human else "CreatedAt", "CreatedBy", "Size", "Comment")
    output.write(output.rows(rows, [(HEADERS[name], name) for name in columns], HEADERS, values.format))
    return 0


def row(item: dict[str, Any], whole: bool, human: bool) -> dict[str, Any]:
    """Return the fields of one step as templates and columns show them."""
    shown = {name: item[name] for name in HEADERS}
    command = " ".join(str(item["CreatedBy"]).split())
    shown["ID"] = item["ID"] if whole else output.short_id(item["ID"])
    shown["CreatedBy"] = command if whole else output.ellipsis(command, _WIDTH)
    shown["Size"] = output.human_size(item["Size"]) if human else str(item["Size"])
    return shown
