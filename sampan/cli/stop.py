"""sampan stop: ask containers to end, and end them when they do not."""

from __future__ import annotations

from sampan.cli.each import side_by_side
from sampan.cli.options import FLAG, INT, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "stop",
    "Stop running containers: the stop signal first, SIGKILL when the time is over.",
    "CONTAINER [CONTAINER...]",
    (
        Option("timeout", "t", INT, "Seconds to wait before SIGKILL; -1 waits forever", aliases=("time",)),
        Option("signal", "s", help="Signal to send first"),
        Option(
            "full-wait", "", FLAG, "Wait Docker's ten seconds even where the first process can never get the signal"
        ),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Stop the containers side by side and print their names."""

    def stop(name: str) -> None:
        engine.containers.stop(name, values.timeout, values.signal or None, full_wait=values.full_wait)

    return side_by_side(values.args, stop)
