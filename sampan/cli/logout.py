"""sampan logout: forget the login of a registry."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values

NEEDS_ENGINE = False
OPTIONS = Command("logout", "Forget the login of a registry (docker.io when none is named).", "[SERVER]")


def run(engine: object, values: Values) -> int:
    """Forget it; not to have been logged in is no error, as with Docker."""
    from sampan.engine import registries

    host = registries.server(values.args[0] if values.args else "")
    if registries.logout(host):
        output.line(f"Removing login credentials for {host}")
    else:
        output.line(f"Not logged in to {host}")
    return 0
