"""sampan exec: run a program in a running container."""

from __future__ import annotations

import os

from sampan.cli.options import FLAG, LIST, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "exec",
    "Run a program in a running container.",
    "CONTAINER COMMAND [ARG...]",
    (
        Option("detach", "d", FLAG, "Leave it running in the background"),
        Option("env", "e", LIST, "Set a variable: NAME=VALUE, or NAME to pass the caller's"),
        Option("env-file", "", LIST, "Read variables from a file"),
        Option("interactive", "i", FLAG, "Pass standard input to it"),
        Option("tty", "t", FLAG, "Give it a terminal"),
        Option("user", "u", help="User and group, by name or number: USER[:GROUP]"),
        Option("workdir", "w", help="Directory to start in"),
        Option("privileged", "", FLAG, "Give it every capability"),
        Option("detach-keys", help="Keys that leave an attached terminal", default="ctrl-p,ctrl-q"),
    ),
    interspersed=False,
)


def run(engine: Engine, values: Values) -> int:
    """Run it and return its exit code."""
    from sampan.cli.variables import environment

    if values.tty and values.interactive and not values.detach and not os.isatty(0):
        raise InvalidArgument("cannot use -t with -i: the input device is not a TTY", "leave -t out", exit_code=1)
    code: int = engine.containers.exec(
        values.args[0],
        values.args[1:],
        env=environment(values.env_file, values.env),
        workdir=values.workdir,
        user=values.user,
        tty=values.tty,
        interactive=values.interactive,
        detach=values.detach,
        privileged=values.privileged,
        detach_keys=values.detach_keys,
    )
    return code
