"""After a boot of the host: containers whose restart policies want it are started, and how the others ended is noted.

A container belongs to the boot in which it was started last; what this boot started is left alone, so doing it twice
does it once. Nothing else of sampan starts by itself, so a host that wants this has a unit of systemd or a line of
cron that calls `sampan system boot`.
"""

from __future__ import annotations

import os
import stat

from sampan.engine import restarting
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.oci import restart
from sampan.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine

UNIT = "sampan-boot.service"


def boot(engine: Engine) -> tuple[list[str], dict[str, SampanError]]:
    """Start what is due; give the names of what was started, and why others could not be."""
    started: list[str] = []
    failed: dict[str, SampanError] = {}
    for record in reversed(engine.containers.store.ls()):
        if not record.boot_id or record.boot_id == process.boot_id():
            continue
        try:
            now = engine.containers.tidied(record)
            if now is None or now.status == "running" or not _is_due(engine, now):
                continue
            engine.containers.start(now.id)
            started.append(now.name)
        except NotFound:
            continue  # removed meanwhile
        except SampanError as error:
            failed[record.name] = error
    return started, failed


def _is_due(engine: Engine, record: Any) -> bool:
    home = engine.store.paths.container(record.id)
    restarts, stopped = restarting.counted(home)[0], restarting.is_forbidden(home)
    return restart.after_boot(*restarting.policy(record), record.exit_code, restarts, stopped)


def unit(engine: Engine) -> str:
    """Give the text of a systemd unit that does it at each boot: of the system's manager for root, else of the user's.

    When it is stopped, as the host goes down, all containers are told to end, whoever started them; each has its own
    time, which systemd must not cut short. Delegate lets a user's containers have limits.
    """
    target = "default.target" if engine.host.rootless else "multi-user.target"
    after = "" if engine.host.rootless else "After=local-fs.target network-online.target\nWants=network-online.target\n"
    words, down = (" ".join(_quoted(word) for word in _command(engine, *more)) for more in ([], ["--down"]))
    return (
        f"[Unit]\nDescription=Start sampan's containers as their restart policies ask\n{after}\n"
        f"[Service]\nType=oneshot\nRemainAfterExit=yes\nDelegate=yes\nExecStart={words}\n"
        f"ExecStop={down}\nTimeoutStopSec=infinity\n\n"
        f"[Install]\nWantedBy={target}\n"
    )


def _command(engine: Engine, *more: str) -> list[str]:
    """Give what is run at each boot; InvalidArgument where a path in it would end its line or begin another."""
    words: list[str] = engine.command(["system", "boot", *more])
    for word in words:
        if not word.isprintable():  # also surrogates: bytes that are no text
            raise InvalidArgument(
                f"cannot have {word[:200]!r} run at each boot: no line of a unit or of cron can hold it",
                "name the store, or install sampan, by another path",
            )
    return words


def _quoted(word: str) -> str:
    """Quote a word as systemd.syntax(7) wants it, with % and $ doubled."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return text if text and not set(text) & set(" \t;'\"\\") else f'"{text}"'


def changeable(engine: Engine) -> str:
    """Give what others than root may change of what root's unit runs at each boot; "" when there is nothing."""
    if engine.host.rootless:
        return ""
    words = engine.command([])
    programs = (os.path.realpath(words[0]), os.path.abspath(__file__))
    return next((found for path in programs if (found := changeable_part(path))), "")


def changeable_part(path: str) -> str:
    """Give the part of an absolute path that another user than root owns or may write to; "" when none does."""
    while True:
        state = os.stat(path)
        is_shared = state.st_mode & 0o022 and not state.st_mode & stat.S_ISVTX
        if state.st_uid != 0 or is_shared:
            return path
        if path == "/":
            return ""
        path = os.path.dirname(path)


def unit_path(engine: Engine) -> str:
    """Give the place where systemd looks for the unit."""
    if not engine.host.rootless:
        return f"/etc/systemd/system/{UNIT}"
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return (config if config.startswith("/") else os.path.expanduser("~/.config")) + f"/systemd/user/{UNIT}"


def enabling(engine: Engine) -> list[str]:
    """Give the commands that make an installed unit run at each boot."""
    if not engine.host.rootless:
        return ["systemctl daemon-reload", f"systemctl enable {UNIT}"]
    return ["systemctl --user daemon-reload", f"systemctl --user enable {UNIT}", "loginctl enable-linger"]


def cron_line(engine: Engine) -> str:
    """Give the line for `crontab -e` on a host without systemd; cron(8) takes % for a line's end."""
    import shlex

    return "@reboot " + shlex.join(_command(engine)).replace("%", "\\%")
