"""sampan attach: show the output of a running container, and write to it."""

from __future__ import annotations

from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "attach",
    "Show the output of a running container from now on, pass input and signals on, and end with its exit code.",
    "CONTAINER",
    (
        Option("detach-keys", help="Keys that leave a container with a terminal", default="ctrl-p,ctrl-q"),
        Option("no-stdin", "", FLAG, "Do not pass standard input on"),
        Option("sig-proxy", "", FLAG, "Pass signals on to the program", default=True),
    ),
    examples=("sampan run -dit --name box debian sh; sampan attach box", "sampan attach --no-stdin web"),
)


def run(engine: Engine, values: Values) -> int:
    """Attach; return the container's exit code, or 0 when the keys left it running."""
    code: int = engine.containers.attach(
        values.args[0],
        stdin=not values.no_stdin,
        sig_proxy=values.sig_proxy,
        detach_keys=values.detach_keys,
    )
    return code
