"""Restart policies: Docker's words, and what each says of an end. Pure."""

from __future__ import annotations

from sampan.errors import InvalidArgument

NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED = "no", "on-failure", "always", "unless-stopped"
NAMES = (NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED)


def parse(text: str) -> tuple[str, int]:
    """Read `always` or `on-failure:3` as a name and the most restarts (0: no limit); raise InvalidArgument."""
    name, colon, count = text.partition(":")
    if (name or NO) not in NAMES:
        raise InvalidArgument(f"invalid restart policy {text[:60]!r}", f"one of: {', '.join(NAMES)}")
    if colon and not (count.isascii() and count.isdecimal() and len(count) < 10):
        raise InvalidArgument(f"invalid restart policy {text[:60]!r}: the most restarts must be a number")
    if int(count or 0) and name != ON_FAILURE:
        raise InvalidArgument(f"invalid restart policy {text[:60]!r}: only on-failure takes a number of restarts")
    return name or NO, int(count or 0)


def after_boot(name: str, most: int, exit_code: int, restarts: int, stopped: bool) -> bool:
    """Say whether a container that was started before the host's last boot is started again.

    `stopped`: somebody stopped it by hand; `always` means even then (docker run, "Restart policies").
    """
    if name == ON_FAILURE:
        return exit_code != 0 and not stopped and (not most or restarts < most)
    return name == ALWAYS or (name == UNLESS_STOPPED and not stopped)
