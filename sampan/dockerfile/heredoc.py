"""Here-documents: which words of a line announce them, and what their text becomes.

A word `<<NAME` (with an optional file descriptor before and `-` after `<<`) announces one; a quoted or escaped NAME
means that its text is not expanded. Words are found as BuildKit finds them: quotes are honoured, `$` is an ordinary
character, and a line with an open quote announces nothing.
"""

from __future__ import annotations

from sampan.dockerfile.forms import split_words

_DIGITS = "0123456789"


class Heredoc:
    """One here-document: its terminator, its text, and whether Docker expands variables in it."""

    __slots__ = ("chomp", "content", "descriptor", "expand", "name")

    def __init__(self, name: str, expand: bool, chomp: bool, descriptor: int = 0) -> None:
        self.name = name
        self.expand = expand
        self.chomp = chomp
        self.descriptor = descriptor
        self.content = ""

    def text(self) -> str:
        """Return the content, without the leading tabs of every line if it was announced with `<<-`."""
        if not self.chomp:
            return self.content
        return "\n".join([line.lstrip("\t") for line in self.content.split("\n")])


def announced(line: str) -> list[Heredoc]:
    """Return the here-documents that the words of a line announce, in order."""
    if "<<" not in line:
        return []
    found, closed = split_words(line, "\\")
    if not closed:
        return []
    return [doc for doc in map(from_word, found) if doc is not None]


def from_word(word: str) -> Heredoc | None:
    """Return the here-document that a word announces, if it is of the form `[n]<<[-]NAME`."""
    rest = word.lstrip(_DIGITS)
    descriptor = word[: len(word) - len(rest)]
    if not rest.startswith("<<") or "<" in rest[2:]:
        return None
    chomp = rest.startswith("<<-")
    quoted = rest[3 if chomp else 2 :]
    name = _unquoted(quoted)
    if not name:
        return None
    return Heredoc(name, name == quoted, chomp, int(descriptor[-9:] or "0"))


def _unquoted(word: str) -> str:
    """Remove quotes and escapes from a terminator, as the shell does."""
    out: list[str] = []
    quote = ""
    at = 0
    while at < len(word):
        c = word[at]
        at += 1
        if c == quote:
            quote = ""
        elif not quote and c in "'\"":
            quote = c
        elif c == "\\" and quote != "'" and at < len(word) and (not quote or word[at] in '"$\\'):
            out.append(word[at])
            at += 1
        else:
            out.append(c)
    return "" if quote else "".join(out)
