"""Capabilities: names and numbers, Docker's default set, and what a request for more or fewer comes to. Pure.

Numbers are those of linux/capability.h. What is granted is never more than what was asked, and never more than the host
has: what it lacks is left out, with a warning.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
NUMBERS: dict[str, int] = {f"CAP_{name}": number for number, name in enumerate(_NAMES)}
ALL_MASK = (1 << len(_NAMES)) - 1

# Docker's default: what a container's root needs to be root of its own files and users.
DEFAULT = tuple(
    [
        f"CAP_{name}"
        for name in (
            *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
            *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
        )
    ]
)


class Resolved:
    """The outcome of a request: `names` by number, their bit `mask`, and `warnings` for the user."""

    __slots__ = ("mask", "names", "warnings")

    def __init__(self, mask: int, warnings: list[str]) -> None:
        self.mask = mask
        self.names = names(mask)
        self.warnings = warnings


def mask(wanted: Iterable[str]) -> int:
    """Return the bit mask of full names."""
    found = 0
    for name in wanted:
        found |= 1 << NUMBERS[normalise(name)]
    return found


def names(bits: int) -> list[str]:
    """Return the full names in a bit mask, by number; bits that no name is known for are left out."""
    return [name for name, number in NUMBERS.items() if bits >> number & 1]


def normalise(text: str) -> str:
    """Return the full name that a user means by `net_admin`, `NET_ADMIN` or `cap_net_admin`."""
    upper = text.strip().upper()
    name = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if name not in NUMBERS:
        from sampan.nearest import nearest

        found = nearest(name.removeprefix("CAP_"), [known.removeprefix("CAP_") for known in NUMBERS])
        raise InvalidArgument(f"unknown capability {text!r}", f"did you mean CAP_{found}?" if found else "")
    return name


def _is_all(text: str) -> bool:
    return text.strip().upper() in ("ALL", "CAP_ALL")


def resolve(
    cap_add: Iterable[str], cap_drop: Iterable[str], privileged: bool = False, available_mask: int | None = None
) -> Resolved:
    """Settle --cap-add, --cap-drop and --privileged as Docker does.

    With ALL added, the named drops are taken off; with ALL dropped, only the named additions remain; a name in both
    lists is added. `available_mask` is the host's bounding set. InvalidArgument for a name that does not exist.
    """
    add, drop = list(cap_add), list(cap_drop)
    added = mask([name for name in add if not _is_all(name)])
    dropped = mask([name for name in drop if not _is_all(name)])
    if privileged:
        wanted = ALL_MASK
    elif any(_is_all(name) for name in add):
        wanted = ALL_MASK & ~dropped
    elif any(_is_all(name) for name in drop):
        wanted = added
    else:
        wanted = mask(DEFAULT) & ~dropped | added
    granted = wanted if available_mask is None else wanted & available_mask
    lacking = names(wanted & ~granted)
    return Resolved(granted, [f"this host lacks capability {name}: it is dropped" for name in lacking])
