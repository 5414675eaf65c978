"""sampan system boot: what a host calls after it has booted."""

from __future__ import annotations

import os
import sys

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import Conflict, Denied, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "system boot",
    "Start the containers whose restart policies want it after a boot of the host. Doing it twice does it once.",
    "",
    (
        Option("unit", "", FLAG, "Print a systemd unit that does this at each boot, and how to install it"),
        Option("install", "", FLAG, "Write that unit to where systemd looks for it"),
        Option(
            "down", "", FLAG, "Tell all containers to end, as when the host goes down: the next boot starts them again"
        ),
        Option("cron", "", FLAG, "Print a line for crontab that does this at each boot, for hosts without systemd"),
    ),
    examples=("sampan system boot --install && systemctl enable sampan-boot.service", "sampan system boot --cron"),
)


def run(engine: Engine, values: Values) -> int:
    """Start what is due and print the names, or say how that happens by itself."""
    from sampan.engine import booting

    if values.cron:
        output.write(booting.cron_line(engine) + "\n")
        return 0
    if values.install:
        return _install(engine)
    if values.unit:
        output.write(booting.unit(engine))
        _say(engine, f"save this as {booting.unit_path(engine)} (or use --install), then:")
        return 0
    if values.down:
        from sampan.engine import goingdown

        done, failed = goingdown.down(engine)
    else:
        done, failed = booting.boot(engine)
    for name in done:
        output.line(name)
    if failed:
        from sampan.cli import failure

        for error in failed.values():
            failure.complain(error)
    return 1 if failed else 0


def _say(engine: Engine, first: str) -> None:
    """Tell on standard error, so that standard output stays a unit."""
    from sampan.engine import booting

    lines = [first, *("  " + command for command in booting.enabling(engine))]
    sys.stderr.write("".join(f"# {line}\n" for line in lines))


def _install(engine: Engine) -> int:
    from sampan.engine import booting

    path, text = booting.unit_path(engine), booting.unit(engine)
    if open_part := booting.changeable(engine):
        engine.warn([f"{open_part} is not root's alone, and root will run sampan from there at each boot"])
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if file.read() != text:
                    raise Conflict(f"cannot write {path}: it is there and differs", "remove it first, or use --unit")
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    except PermissionError as exc:
        raise Denied(f"cannot write {path}: {exc.strerror}") from exc
    except OSError as exc:
        raise Unavailable(f"cannot write {path}: {exc.strerror}") from exc
    _say(engine, f"wrote {path}; to enable it:")
    if not os.path.isdir("/run/systemd/system"):
        sys.stderr.write(f"# this host was not booted with systemd; for cron: {booting.cron_line(engine)}\n")
    return 0
