"""sampan rm: remove containers."""

from __future__ import annotations

from sampan.cli.each import each
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "rm",
    "Remove containers.",
    "CONTAINER [CONTAINER...]",
    (
        Option("force", "f", FLAG, "Kill a running container first; a missing one is no error"),
        Option("ended", "", FLAG, "Remove it unless it runs again: for the process that was its supervisor"),
        Option("volumes", "v", FLAG, "Remove its anonymous volumes too"),
        Option("quiet", "q", FLAG, "Do not print names"),
        Option("link", "l", FLAG, refuse="links between containers do not exist here"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Remove each container and print its name."""

    def remove(name: str) -> list[str]:
        try:
            engine.containers.remove(name, force=values.force, volumes=values.volumes, ended=values.ended)
        except NotFound as exc:
            if not values.force:
                raise
            _note(exc, values.quiet)
            return []
        return [] if values.quiet else [name]

    return each(values.args, remove)


def _note(exc: NotFound, quiet: bool) -> None:
    from sampan.cli import failure

    if not quiet:
        failure.complain(exc)
