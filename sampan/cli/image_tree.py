"""sampan image tree: which image stands on which."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine
    from sampan.engine.imagetrees import Node

OPTIONS = Command(
    "image tree",
    "Show which image stands on which, and what each adds; of one image, its layers and who shares them.",
    "[IMAGE]",
    (
        Option("json", "", FLAG, "Print as JSON"),
        Option("no-trunc", "", FLAG, "Do not shorten ids and commands"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Print the tree, or the layers."""
    from sampan.engine import imagetrees

    if values.args:
        _layers(imagetrees.layers(engine, values.args[0]), values)
        return 0
    roots = imagetrees.tree(engine)
    if values.json:
        output.line(output.json_text([_data(node) for node in roots]))
        return 0
    for node in roots:
        _draw(node, "", "", values.no_trunc)
    return 0


def _draw(node: Node, first: str, rest: str, whole: bool) -> None:
    own, size = output.human_size(node.own), output.human_size(node.image.size)
    added = size if not first else f"+{own} = {size}"
    shown = node.image.id if whole else node.image.short_id
    output.line(f"{first}{', '.join(node.names)}  {shown}  {added}")
    for child in node.children:
        last = child is node.children[-1]
        _draw(child, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "), whole)


def _data(node: Node) -> dict[str, Any]:
    return {
        "Id": node.image.id,
        "Names": node.names,
        "Size": node.image.size,
        "OwnSize": node.own,
        "Children": [_data(child) for child in node.children],
    }


def _layers(rows: list[dict[str, Any]], values: Values) -> None:
    if values.json:
        output.line(output.json_text(rows))
        return
    shown = [
        [
            row["DiffID"] if values.no_trunc else output.short_id(row["DiffID"]),
            output.human_size(row["Size"]),
            row["CreatedBy"] if values.no_trunc else output.ellipsis(row["CreatedBy"], 45),
            ", ".join(row["SharedWith"]),
        ]
        for row in rows
    ]
    output.write(output.table(["LAYER", "SIZE", "CREATED BY", "SHARED WITH"], shown))
