"""sampan pull: get images from a registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

PROGRESS = Option(
    "progress",
    help="How to show what happens",
    default="auto",
    choices=("auto", "plain", "tty", "rawjson", "json", "quiet", "none"),
)

OPTIONS = Command(
    "pull",
    "Get images from a registry; what is here already is not fetched again.",
    "NAME[:TAG|@DIGEST] [NAME...]",
    (
        Option("all-tags", "a", FLAG, "Pull all tags of the repository"),
        Option("platform", help="Platform of the image, when it is there for several"),
        Option("quiet", "q", FLAG, "Print the image's name only"),
        PROGRESS,
        Option("disable-content-trust", "", FLAG, "Accepted: there is no content trust", default=True),
    ),
    examples=("sampan pull debian:bookworm", "sampan pull --platform linux/arm64 registry.example/team/app@sha256:…"),
)


def run(engine: Engine, values: Values) -> int:
    """Pull each; print its digest and name."""
    from sampan.cli import transfers

    for name in values.args:
        with transfers.display("quiet" if values.quiet else values.progress) as show:
            found = engine.images.pull(name, platform=values.platform, all_tags=values.all_tags, listen=show)
        for one in found:
            if not values.quiet:
                output.line(f"Digest: {one.digest}")
                state = "Downloaded newer image for" if one.new else "Image is up to date for"
                output.line(f"Status: {state} {one.reference.familiar()}")
            output.line(str(one.reference))
    return 0
