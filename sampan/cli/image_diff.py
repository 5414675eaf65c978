"""sampan image diff: how the files of two images differ."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "image diff",
    "List the files that were added (A), changed (C) and deleted (D) from one image to another, contents compared.",
    "IMAGE IMAGE",
    (
        Option("json", "", FLAG, "Print one JSON object a line"),
        Option("quiet", "q", FLAG, "Print paths only"),
    ),
    examples=("sampan image diff debian:12.1 debian:12.2",),
)


def run(engine: Engine, values: Values) -> int:
    """Print the differences as they are found, then what they come to; the exit code is that of success."""
    from sampan.engine import imagetrees

    count, change = 0, 0
    for one in imagetrees.diff(engine, *values.args):
        count += 1
        change += one.after - one.before
        if values.json:
            what = {"Kind": one.kind, "Path": one.path, "Before": one.before, "After": one.after}
            output.line(output.json_text({**what, "Why": one.why if one.kind == "C" else ""}))
        elif values.quiet:
            output.line(one.path)
        else:
            output.line(f"{one.kind} {one.path}" + (f"  ({one.why})" if one.kind == "C" else ""))
    if not (values.json or values.quiet):
        output.line(f"{count} differences, {'-' if change < 0 else '+'}{output.human_size(abs(change))}")
    return 0
