"""sampan inspect: everything about containers, images and volumes, as JSON or through a template."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "inspect",
    "Show everything about containers, images and volumes, as JSON.",
    "NAME|ID [NAME|ID...]",
    (
        Option("format", "f", help="Print each with a Go template, or `json` for one line each"),
        Option("size", "s", FLAG, "Show what a container has written, and that together with its image"),
        Option("type", help="Look among these only", choices=("container", "image", "volume")),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Print what is found; what is not found is an error after that."""
    found: list[dict[str, Any]] = []
    failed: list[SampanError] = []
    for name in values.args:
        try:
            found.append(look_up(engine, name, values.type, values.size))
        except SampanError as exc:
            failed.append(exc)
    output.write(shown(found, values.format))
    if failed:
        from sampan.cli import failure

        for error in failed:
            failure.complain(error)
    return 1 if failed else 0


def look_up(engine: Engine, name: str, kind: str, size: bool = False) -> dict[str, Any]:
    """Return the description of a container, else of an image, else of a volume, of that name."""
    looks: dict[str, Callable[[], Any]] = {
        "container": lambda: engine.containers.inspect(name, **({"size": True} if size else {})),
        "image": lambda: engine.images.inspect(name),
        "volume": lambda: engine.volumes.inspect(name),
    }
    if kind:
        return dict(looks[kind]())
    hint = ""
    for look in looks.values():
        try:
            return dict(look())
        except NotFound as exc:
            hint = hint or (exc.hint if "did you mean" in exc.hint else "")
    hint = hint or "`sampan ps -a`, `sampan images` and `sampan volume ls` list what there is"
    raise NotFound(f"cannot inspect {name}: there is no such container, image or volume", hint)


def shown(found: list[dict[str, Any]], format: str) -> str:
    """Return descriptions as JSON, or through a template."""
    if not format:
        return output.json_pretty(found) + "\n"
    if format == "json":
        return "".join(output.json_text(item) + "\n" for item in found)
    from sampan.cli import template

    parsed = template.parse(format.replace("\\t", "\t").replace("\\n", "\n"), template.UNREADABLE)
    return "".join(output.printable(parsed.render(item), keep="\n\t") + "\n" for item in found)
