"""Capabilities: names and numbers, Docker's default set, and what --cap-add, --cap-drop and --privileged come to."""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of their numbers (linux/capability.h), up to Linux 5.9, which added the last one.
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
NUMBERS: dict[str, int] = {f"CAP_{name}": number for number, name in enumerate(_NAMES)}

# The 14 that Docker gives a container.
DEFAULT = tuple(
    [
        f"CAP_{name}"
        for name in (
            *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
            *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
        )
    ]
)


def mask(names: Iterable[str]) -> int:
    """Return the bit mask of full names."""
    found = 0
    for name in names:
        found |= 1 << NUMBERS[name]
    return found


def settle(cap_add: list[str], cap_drop: list[str], privileged: bool) -> list[str]:
    """Return the full names of a container's capabilities by number; InvalidArgument for a name that does not exist.

    As with Docker: with ALL added, the named drops are taken off; with ALL dropped, only the named additions remain; a
    name in both lists is added.
    """
    add, drop = _full_names(cap_add, "--cap-add"), _full_names(cap_drop, "--cap-drop")
    chosen = set(DEFAULT)
    if "ALL" in drop and "ALL" not in add:
        chosen = set()
    elif privileged or "ALL" in add:
        chosen = set(NUMBERS)
    chosen = (chosen - drop) | (add - {"ALL"})
    return [name for name in NUMBERS if name in chosen]


def _full_names(words: list[str], option: str) -> set[str]:
    """Return the names meant by `net_admin`, `NET_ADMIN` or `cap_net_admin`, and ALL as it is."""
    found = set()
    for word in words:
        name = word.upper()
        name = name if name == "ALL" or name.startswith("CAP_") else "CAP_" + name
        name = "ALL" if name == "CAP_ALL" else name
        if name != "ALL" and name not in NUMBERS:
            from sampan.nearest import did_you_mean

            hint = did_you_mean(name.removeprefix("CAP_"), list(_NAMES))
            hint = hint or "capabilities(7) lists them, from AUDIT_CONTROL on"
            raise InvalidArgument(f"invalid {option} {word[:60]!r}: there is no such capability", hint)
        found.add(name)
    return found
