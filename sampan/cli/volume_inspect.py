"""sampan volume inspect: everything about volumes, as JSON or through a template."""

from __future__ import annotations

from sampan.cli import failure, output
from sampan.cli.inspect import shown
from sampan.cli.options import Command, Option
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "volume inspect",
    "Show everything about volumes, as JSON.",
    "VOLUME [VOLUME...]",
    (Option("format", "f", help="Print each with a Go template, or `json` for one line each"),),
)


def run(engine: Engine, values: Values) -> int:
    """Print what is found; what is not found is an error after that."""
    found, failed = [], []
    for name in values.args:
        try:
            found.append(engine.volumes.inspect(name))
        except SampanError as exc:
            failed.append(exc)
    output.write(shown(found, values.format))
    for error in failed:
        failure.complain(error)
    return 1 if failed else 0
