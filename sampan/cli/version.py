"""sampan version."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "version",
    "Show the version of sampan, of Python and of the kernel.",
    "",
    (
        Option("format", "f", help="Print with a Go template, or `json`"),
        Option("short", "", FLAG, "Print one line: sampan and its version"),
    ),
)

_NAMES = (
    ("Version", "Version"),
    ("Python", "Python"),
    ("KernelVersion", "Kernel"),
    ("Os", "System"),
    ("Arch", "Architecture"),
)


def run(engine: Engine, values: Values) -> int:
    """Print the versions."""
    facts = engine.version()
    if values.format == "json":
        output.line(output.json_text(facts))
    elif values.format:
        from sampan.cli import template

        parsed = template.parse(values.format, template.UNREADABLE)
        output.line(parsed.render({**facts, "Client": facts, "Server": facts}))
    elif values.short:
        output.line(f"sampan {facts['Version']}")
    else:
        for key, name in _NAMES:
            output.line(f"{name + ':':14}{facts[key]}")
    return 0
