"""sampan commit: make an image of what a container has become."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, LIST, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "commit",
    "Make an image of what a container has become.",
    "CONTAINER [REPOSITORY[:TAG]]",
    (
        Option("author", "a", help="Who made it: NAME <address>"),
        Option("change", "c", LIST, "Apply a Dockerfile instruction to its configuration (CMD, ENV, USER, …)"),
        Option("message", "m", help="Comment for its history"),
        Option("pause", "p", FLAG, "Let the container stand still meanwhile", default=True),
    ),
    examples=("sampan commit --change 'CMD [\"serve\"]' -m 'with data' app app:seeded",),
)


def run(engine: Engine, values: Values) -> int:
    """Commit it and print the new image's id."""
    name, reference = values.args[0], values.args[1] if len(values.args) > 1 else ""
    image_id = engine.containers.commit(
        name,
        reference,
        author=values.author,
        message=values.message,
        changes=values.change,
        pause=values.pause,
    )
    output.line(image_id)
    return 0
