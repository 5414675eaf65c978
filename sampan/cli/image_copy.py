"""sampan image copy: an image from any place to any place."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option
from sampan.cli.pull import PROGRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "image copy",
    "Copy an image between the store (NAME), registries (docker://NAME), OCI layouts (oci:DIRECTORY[:NAME]), archives "
    "(oci-archive:FILE[:NAME]) and other hosts (ssh://[USER@]HOST[:PORT]/NAME). Only what is missing there moves.",
    "SOURCE DESTINATION",
    (
        Option("all", "a", FLAG, "Copy an image for several platforms whole (from a registry to another or to oci:)"),
        Option("platform", help="Choose this platform from an image for several"),
        Option("referrers", "", FLAG, "Copy what refers to the image too: signatures, SBOMs (registries and layouts)"),
        Option("quiet", "q", FLAG, "Print the digest only"),
        PROGRESS,
    ),
    examples=(
        "sampan image copy app:1 ssh://root@server/app:1",
        "sampan image copy docker://alpine:3.20 oci:alpine",
        "sampan image copy docker://registry.example/app:1 docker://other.example/app:1",
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Copy, and print the manifest's digest."""
    from sampan.cli import transfers

    with transfers.display("quiet" if values.quiet else values.progress, words=transfers.COPY_WORDS) as show:
        done = engine.images.copy(
            *values.args, platform=values.platform or "", every=values.all, referrers=values.referrers, listen=show
        )
    output.line(done.digest if values.quiet else f"{done.name or values.args[1]}: digest: {done.digest}")
    return 0
