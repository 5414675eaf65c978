"""sampan top: the processes of a container."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "top",
    "Show the processes of a container, numbered as on the host.",
    "CONTAINER [PS_OPTION...]",
    interspersed=False,
    examples=("sampan top app", "sampan top app aux", "sampan top app -o pid,user,rss,args"),
)
_LEAST, _GAP = 20, 3  # the columns of `docker top`


def run(engine: Engine, values: Values) -> int:
    """Print the table."""
    found = engine.containers.top(values.args[0], values.args[1:])
    lines = [found["Titles"], *([output.printable(cell) for cell in row] for row in found["Processes"])]
    count = len(found["Titles"]) - 1
    widths = [max(_LEAST, *(len(row[place]) + _GAP for row in lines)) for place in range(count)]
    for row in lines:
        padded = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        output.write("".join([*padded, *row[count:]]).rstrip() + "\n")
    return 0
