"""sampan create: make a container without starting it."""

from __future__ import annotations

from sampan.cli import lines, runflags
from sampan.cli.options import Command
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "create",
    "Create a container without starting it, and print its id.",
    "IMAGE [COMMAND] [ARG...]",
    runflags.OPTIONS,
    interspersed=False,
    examples=("sampan create --name job app work; sampan start -a job",),
)


def run(engine: Engine, values: Values) -> int:
    """Create it and print its id."""
    options = runflags.run_options(values)
    if values.attach:
        raise InvalidArgument("option -a of create: whoever starts it attaches", "use sampan start -a")
    image = values.args[0]
    runflags.obtain(engine, image, values)
    written = runflags.cidfile(values.cidfile)
    try:
        container_id = engine.containers.create(image, options, name=values.name, auto_remove=values.rm)
    except BaseException:
        runflags.drop_cidfile(values.cidfile)
        raise
    if written is not None:
        written(container_id)
    lines.line(container_id)
    return 0
