"""sampan start: start created or stopped containers."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import InvalidArgument, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "start",
    "Start created or stopped containers.",
    "CONTAINER [CONTAINER...]",
    (
        Option("again", "", FLAG, "Start it as its restart policy asks: for the process that waits to do that"),
        Option("attach", "a", FLAG, "Show its output, pass signals on, and end with its exit code"),
        Option("interactive", "i", FLAG, "Pass standard input to it (implies --attach)"),
        Option("detach-keys", help="Keys that leave an attached terminal", default="ctrl-p,ctrl-q"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Start each container and print its name, or attach to the only one."""
    if values.again:
        return each(values.args, lambda name: [name] if engine.containers.again(name) else [])
    if not values.attach and not values.interactive:
        return each(values.args, lambda name: _start(engine, name))
    if len(values.args) > 1:
        raise InvalidArgument("only one container can be attached to at a time", "start the others without -a and -i")
    try:
        code = engine.containers.start(
            values.args[0], attach=True, interactive=values.interactive, detach_keys=values.detach_keys
        )
    except SampanError as error:
        error.exit_code = 1  # as Docker's: 126 and 127 would be the program's own
        raise
    return code or 0


def _start(engine: Engine, name: str) -> None:
    engine.containers.start(name)
