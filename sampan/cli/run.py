"""sampan run: start a program in a new container."""

from __future__ import annotations

import os

from sampan.cli import runflags
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine
    from sampan.oci.options import RunOptions

EXIT_OURS = 125  # Docker's: the program's own codes are below

OPTIONS = Command(
    "run",
    "Start a program in a new container; its exit code becomes ours.",
    "IMAGE [COMMAND] [ARG...]",
    (
        Option("detach", "d", FLAG, "Leave it running in the background, and print its id"),
        Option("detach-keys", help="Keys that leave an attached terminal", default="ctrl-p,ctrl-q"),
        Option("explain", "", FLAG, "Print what would be done, step by step, and do nothing"),
        Option("sig-proxy", "", FLAG, "Pass signals on to the program", default=True),
        *runflags.OPTIONS,
    ),
    interspersed=False,
    examples=("sampan run --rm -it debian sh", "sampan run -d --name web --network host -m 256m app"),
)


def run(engine: Engine, values: Values) -> int:
    """Run it; return its exit code, or 0 when it is detached."""
    options = runflags.run_options(values)
    image = values.args[0]
    runflags.obtain(engine, image, values)
    if values.explain:
        return _explain(engine, image, options)
    if values.tty and values.interactive and not values.detach and not os.isatty(0):
        raise InvalidArgument("cannot use -t with -i: the input device is not a TTY", "leave -t out", exit_code=1)
    if values.attach:
        _attach(values, options)
    on_create = runflags.cidfile(values.cidfile)
    try:
        result = engine.containers.run(
            options,
            image=image,
            name=values.name,
            auto_remove=values.rm,
            detach=values.detach,
            detach_keys=values.detach_keys,
            sig_proxy=values.sig_proxy,
            on_create=on_create,
        )
    except BaseException:
        runflags.drop_cidfile(values.cidfile)
        raise
    if isinstance(result, int):
        return result
    from sampan.cli import lines

    lines.line(result)
    return 0


def _attach(values: Values, options: RunOptions) -> None:
    """Leave out the standard streams that -a does not name."""
    asked = {word.lower() for word in values.attach}
    if not asked <= {"stdin", "stdout", "stderr"}:
        raise InvalidArgument("option -a of run takes stdin, stdout and stderr")
    if values.detach:
        raise InvalidArgument("cannot use -a with -d: a detached container has no streams of ours", "leave one out")
    options.interactive = options.interactive and "stdin" in asked
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        if name not in asked:
            os.dup2(null, fd)
    os.close(null)


def _explain(engine: Engine, image: str, options: RunOptions) -> int:
    from sampan.cli import lines

    for text in engine.containers.explain(image, options):
        lines.line(text)
    return 0
