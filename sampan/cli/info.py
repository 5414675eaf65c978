"""sampan info: the store and the host."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "info",
    "Show the store and the host.",
    "",
    (Option("format", "f", help="Print with a Go template, or `json`"),),
)

_NAMES = (
    ("ServerVersion", "sampan"),
    ("DockerRootDir", "Store"),
    ("RunDir", "Run-time state"),
    ("Images", "Images"),
    ("Containers", "Containers"),
    ("ContainersRunning", "  running"),
    ("ContainersPaused", "  paused"),
    ("ContainersStopped", "  stopped"),
    ("Driver", "Storage driver"),
    ("CgroupVersion", "Cgroup version"),
    ("SecurityOptions", "Security"),
    ("Rootless", "Rootless"),
    ("DefaultNetwork", "Default network"),
    ("KernelVersion", "Kernel"),
    ("OperatingSystem", "System"),
    ("Architecture", "Architecture"),
    ("NCPU", "CPUs"),
    ("MemTotal", "Memory"),
    ("Name", "Host name"),
)


def run(engine: Engine, values: Values) -> int:
    """Print what the engine knows."""
    facts = engine.info()
    if values.format == "json":
        output.line(output.json_text(facts))
    elif values.format:
        from sampan.cli import template

        output.line(template.parse(values.format, template.UNREADABLE).render(facts))
    else:
        for key, name in _NAMES:
            if key in facts:
                output.line(f"{name + ':':18}{_shown(key, facts[key])}")
    return 0


def _shown(key: str, value: Any) -> str:
    if key == "MemTotal":
        return output.human_bytes(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
