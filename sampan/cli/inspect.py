"""sampan inspect: everything about containers and images, as JSON or through a template."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "inspect",
    "Show everything about containers and images, as JSON.",
    "NAME|ID [NAME|ID...]",
    (
        Option("format", "f", help="Print each with a Go template, or `json` for one line each"),
        Option("size", "s", FLAG, refuse="sizes of containers are not there yet"),
        Option("type", help="Look among these only", choices=("container", "image")),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Print what is found; what is not found is an error after that."""
    found: list[dict[str, Any]] = []
    failed: list[SampanError] = []
    for name in values.args:
        try:
            found.append(look_up(engine, name, values.type))
        except SampanError as exc:
            failed.append(exc)
    output.write(_shown(found, values.format))
    if failed:
        from sampan.cli import failure

        for error in failed:
            failure.complain(error)
    return 1 if failed else 0


def look_up(engine: Engine, name: str, kind: str) -> dict[str, Any]:
    """Return the description of a container, else of an image, of that name."""
    if kind != "image":
        try:
            return dict(engine.containers.inspect(name))
        except NotFound:
            if kind == "container":
                raise
    try:
        return dict(engine.images.inspect(name))
    except NotFound as exc:
        if kind == "image":
            raise
        raise NotFound(f"cannot inspect {name}: there is no such container or image", exc.hint) from None


def _shown(found: list[dict[str, Any]], format: str) -> str:
    if not format:
        return output.json_pretty(found) + "\n"
    if format == "json":
        return "".join(output.json_text(item) + "\n" for item in found)
    from sampan.cli import template

    parsed = template.parse(format.replace("\\t", "\t").replace("\\n", "\n"))
    return "".join(output.printable(parsed.render(item), keep="\n\t") + "\n" for item in found)
