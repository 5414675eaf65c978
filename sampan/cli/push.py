"""sampan push: send images to a registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option
from sampan.cli.pull import PROGRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "push",
    "Send images to a registry; what it has already is not sent again.",
    "NAME[:TAG] [NAME...]",
    (
        Option("all-tags", "a", FLAG, "Push all tags of the repository that are here"),
        Option("compression", help="How plain layers are compressed (auto: gzip, but none for what was pulled so)",
               default="auto", choices=("auto", "gzip", "zstd", "none")),
        Option("quiet", "q", FLAG, "Print the image's name only"),
        PROGRESS,
        Option("platform", help="Push only if the image is for this platform (a store holds one under a name)"),
        Option("disable-content-trust", "", FLAG, "Accepted: there is no content trust", default=True),
    ),
    examples=("sampan tag app registry.example/team/app:1; sampan push registry.example/team/app:1",),
)  # fmt: skip


def run(engine: Engine, values: Values) -> int:
    """Push each."""
    from sampan.cli import transfers

    compression = "" if values.compression == "none" else values.compression
    for name in values.args:
        with transfers.display("quiet" if values.quiet else values.progress, words=transfers.PUSH_WORDS) as show:
            found = engine.images.push(
                name, all_tags=values.all_tags, compression=compression, platform=values.platform, listen=show
            )
        for one in found:
            if values.quiet:
                output.line(str(one.reference))
            else:
                output.line(f"{one.reference.tag}: digest: {one.digest} size: {one.size}")
    return 0
