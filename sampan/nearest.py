"""What a mistyped word was meant to be: the one measure of every `did you mean`.  Imported only after a failure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 64  # characters that are compared
_BEGINNING = 3  # so many letters say enough to be the beginning of a name


def nearest(word: str, names: Iterable[str]) -> str:
    """Return the name that `word` was meant to be, or "".

    That is the one fewest slips away (a letter too many, missing, wrong, or swapped with its neighbour): one, in names
    of 6 letters two, of 12 three, and never half of the word.  Else the shortest name that begins with it.
    """
    typed = word[:_LONGEST].lower()
    best, fewest = "", 4
    begun = ""
    for name in names:
        known = name[:_LONGEST].lower()
        if known.startswith(typed) and len(typed) >= _BEGINNING and (not begun or len(name) < len(begun)):
            begun = name
        if abs(len(known) - len(typed)) > 3:
            continue
        slips = _slips(typed, known)
        if slips < fewest and slips <= _allowed(len(known)) and 2 * slips < max(len(typed), len(known)):
            best, fewest = name, slips
    return best or begun


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a hint with the nearest name, or "" when no name is near."""
    name = nearest(word, names)
    return f"did you mean {name}?" if name else ""


def _allowed(length: int) -> int:
    return 1 if length < 6 else 2 if length < 12 else 3


def _slips(a: str, b: str) -> int:
    """Count the insertions, deletions, substitutions and swaps of neighbours that make `a` into `b`."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost = min(table[i - 1][j], table[i][j - 1]) + 1
            cost = min(cost, table[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                cost = min(cost, table[i - 2][j - 2] + 1)
            table[i][j] = cost
    return table[-1][-1]
