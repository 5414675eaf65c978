"""The `--name=value` flags of instructions: which each one takes, of which kind, and their values.

Kinds, as in BuildKit: BOOL may stand alone; TEXT needs `=value`; TEXTS is a TEXT that may be repeated.
"""

from __future__ import annotations

from sampan.dockerfile.located import did_you_mean, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.dockerfile.lexer import Node

BOOL, TEXT, TEXTS = "bool", "text", "texts"

_COPY = {"chown": TEXT, "chmod": TEXT, "link": BOOL, "exclude": TEXTS}

TAKEN: dict[str, dict[str, str]] = {
    "FROM": {"platform": TEXT},
    "COPY": {**_COPY, "from": TEXT, "parents": BOOL},
    "ADD": {**_COPY, "checksum": TEXT, "keep-git-dir": BOOL, "unpack": BOOL},
    "RUN": {"mount": TEXTS, "network": TEXT, "security": TEXT},
    "HEALTHCHECK": {
        "interval": TEXT,
        "timeout": TEXT,
        "start-period": TEXT,
        "start-interval": TEXT,
        "retries": TEXT,
    },
}
_NONE: dict[str, str] = {}


class Flags:
    """The flags given to one instruction."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}

    def text(self, name: str) -> str:
        """Return a TEXT flag's value, "" if it was not given."""
        return self.values[name][0] if name in self.values else ""

    def texts(self, name: str) -> list[str]:
        """Return the values of a TEXTS flag."""
        return self.values.get(name, [])

    def bool(self, name: str) -> bool:
        """Tell whether a BOOL flag was given and is true."""
        return self.text(name) == "true"


def read(node: Node) -> Flags:
    """Read an instruction's flags; raise a located BuildError for unknown, repeated or malformed ones."""
    flags = Flags()
    taken = TAKEN.get(node.keyword, _NONE)
    for word in node.flags:
        name, equals, value = word[2:].partition("=")
        kind = taken.get(name)
        if kind is None:
            raise _unknown(node, name, taken)
        if name in flags.values and kind != TEXTS:
            raise node.error(f"duplicate flag specified: --{name}")
        if kind == BOOL:
            value = _bool(node, name, value, bool(equals))
        elif not equals:
            raise node.error(f"missing a value on flag: --{name}")
        flags.values.setdefault(name, []).append(value)
    return flags


def _unknown(node: Node, name: str, taken: dict[str, str]) -> Exception:
    hint = did_you_mean(name, taken).replace("mean ", "mean --")
    if not taken:
        hint = f"{node.keyword} takes no flags; write the words as a JSON array if they are meant literally"
    return node.error(f"unknown flag of {node.keyword}: {shown('--' + name)}", hint)


def _bool(node: Node, name: str, value: str, is_given: bool) -> str:
    if is_given and not value:
        raise node.error(f"missing a value on flag: --{name}")
    lower = value.lower() or "true"
    if lower not in ("true", "false"):
        raise node.error(f"expecting boolean value for flag --{name}, not: {shown(value)}")
    return lower
