"""Where in a Dockerfile something is wrong: excerpts and located errors.

Source text is attacker input and its parts end up on a terminal, so every piece shown passes through `shown` or
`excerpt`: control characters are made visible and lengths are bounded.
"""

from __future__ import annotations

from sampan.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Go's unicode.IsSpace, which Docker's lexers use; narrower than str.isspace (no \x1c-\x1f).
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

_CONTEXT = 2
_MOST_LINES = 12
_WIDTH = 160
_LONGEST = 1000


class Fault(ValueError):
    """What is wrong and how to mend it, before the place is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def shown(text: str, limit: int = 80) -> str:
    """Return text fit for one line of a message: printable, quoted where blank, at most limit characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
    return clean if clean.strip() == clean and clean else f'"{clean}"'


def excerpt(lines: list[bytes], first: int, last: int) -> str:
    """Return lines first to last (1-based) with some lines around them and a mark on the guilty ones."""
    first = max(1, min(first, len(lines) or 1))
    last = max(first, min(last, len(lines)))
    end = min(last + _CONTEXT, len(lines))
    numbers = list(range(max(1, first - _CONTEXT), end + 1))
    gap = len(numbers) > _MOST_LINES
    if gap:
        numbers = numbers[: _MOST_LINES - _CONTEXT] + numbers[-_CONTEXT:]
    rows = []
    for number in numbers:
        if gap and number == numbers[-_CONTEXT]:
            rows.append(" ... |")
        mark = ">>>" if first <= number <= last else "   "
        rows.append(f"{number:4d} | {mark} {_line(lines[number - 1])}".rstrip())
    return "\n".join(rows)


def _line(raw: bytes) -> str:
    text = raw[: _WIDTH * 4].decode("utf-8", "replace").rstrip("\r\n").expandtabs(4)
    if len(text) > _WIDTH:
        text = text[: _WIDTH - 1] + "…"
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def located(message: str, hint: str, name: str, lines: list[bytes], first: int, last: int) -> BuildError:
    """Make a BuildError that names the file and line and carries the excerpt."""
    return BuildError(
        f"{shown(name)}:{first}: {_cut(message)}",
        _cut(hint),
        file=name,
        line=first,
        end_line=last,
        excerpt=excerpt(lines, first, last),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a hint with the nearest name, or "" when no name is near."""
    from sampan import nearest

    return nearest.did_you_mean(word, names)
