"""sampan manifest referrers: what a registry has about an image."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "manifest referrers",
    "List what refers to an image in its registry: signatures, SBOMs and other artifacts (their `subject`).",
    "NAME",
    (
        Option("artifact-type", help="Only artifacts of this type"),
        Option("platform", help="Of an image for several platforms, ask for this one's artifacts"),
        Option("json", "", FLAG, "Print the descriptors as JSON, with their annotations"),
        Option("quiet", "q", FLAG, "Print the digests only"),
    ),
    examples=("sampan manifest referrers --artifact-type application/spdx+json registry.example/app:1",),
)

_CREATED = "org.opencontainers.image.created"


def run(engine: Engine, values: Values) -> int:
    """Print them, in the order of the registry."""
    from sampan.engine import manifests

    found = manifests.referrers(values.args[0], values.artifact_type or "", values.platform or "")
    if values.json:
        output.write(output.json_pretty(found) + "\n")
        return 0
    rows = [
        [
            entry["digest"],
            entry.get("artifactType") or "-",
            output.human_size(entry["size"]),
            (entry.get("annotations") or {}).get(_CREATED, ""),
        ]
        for entry in found
    ]
    if values.quiet:
        for row in rows:
            output.line(row[0])
    else:
        rows = [[output.printable(cell) for cell in row] for row in rows]
        output.write(output.table(["DIGEST", "ARTIFACT TYPE", "MANIFEST", "CREATED"], rows))
    return 0
