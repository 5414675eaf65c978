"""Expansion of words by Docker's shell rules: quotes, escapes, $x and every ${…} form of the Dockerfile language.

Faults are BuildErrors without a place: the caller knows the instruction and adds it with `Instruction.locate`. What
one word may cost is bounded: MAX_RESULT characters of result, MAX_WORK characters handled, MAX_DEPTH nested braces.
"""

from __future__ import annotations

from sampan.dockerfile.located import SPACE, shown
from sampan.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.dockerfile.substitute import Segment

MAX_RESULT = 1 << 20
MAX_WORK = 16 << 20
MAX_DEPTH = 100

# POSIX shell, "Special Parameters"; Docker accepts them and none is ever set.
_SPECIAL = "@*#?-$!0"
_UNSET = {"": "is not allowed to be unset", ":": "is not allowed to be empty"}


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Expand one word: quotes and escapes are removed, variables replaced, and blanks kept."""
    if _is_plain(word, escape):
        return word
    return "".join([text for text, _ in _Expansion(word, variables, escape, True).run()])


def expand_text(text: str, variables: Mapping[str, str]) -> str:
    """Expand the variables and backslashes of a here-document, in which quotes are ordinary characters."""
    if "$" not in text and "\\" not in text:
        return text
    return "".join([piece for piece, _ in _Expansion(text, variables, "\\", False).run()])


def expand_words(word: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Expand a word and split the result at unquoted blanks, those of variables too (EXPOSE)."""
    found: list[str] = []
    current = ""
    for text, is_quoted in _Expansion(word, variables, escape, True).run():
        if is_quoted:
            current += text
            continue
        for c in text:
            if c not in SPACE:
                current += c
            elif current:
                found.append(current)
                current = ""
    return [*found, current] if current else found


def _is_plain(word: str, escape: str) -> bool:
    return "$" not in word and escape not in word and "'" not in word and '"' not in word


class _Expansion:
    """One pass over one word, a recursive descent: braces hold words of their own."""

    __slots__ = ("at", "depth", "end", "escape", "quotes", "text", "variables", "work")

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, quotes: bool) -> None:
        self.text = text
        self.end = len(text)
        self.at = 0
        self.variables = variables
        self.escape = escape
        self.quotes = quotes
        self.depth = 0
        self.work = 0

    def run(self) -> list[tuple[str, bool]]:
        """Return the pieces of the result, each with whether blanks in it are protected."""
        return self._pieces("", False)

    def _fault(self, why: str) -> BuildError:
        return BuildError(f"cannot expand {shown(self.text)}: {why}")

    def _pieces(self, stop: str, raw_escapes: bool) -> list[tuple[str, bool]]:
        """Expand up to the character stop (taken, not returned), or to the end where stop is ""."""
        specials = "$" + self.escape + stop + ("'\"" if self.quotes else "")
        found: list[tuple[str, bool]] = []
        size = 0
        while self.at < self.end:
            c = self.text[self.at]
            if c == stop:
                self.at += 1
                return found
            piece = self._piece(c, specials, raw_escapes)
            found.append(piece)
            size += len(piece[0])
            self._charge(len(piece[0]))
            if size > MAX_RESULT:
                raise self._fault(f"the result is longer than {MAX_RESULT} characters")
        if stop:
            raise self._fault(f"syntax error: missing '{stop}' of ${{…}}")
        return found

    def _piece(self, c: str, specials: str, raw_escapes: bool) -> tuple[str, bool]:
        if c not in specials:
            return self._run_of_plain(specials), False
        if c == "$":
            return self._dollar(), False
        if c == self.escape:
            return self._escaped(raw_escapes), True
        return (self._single_quoted() if c == "'" else self._double_quoted(raw_escapes)), True

    def _charge(self, amount: int) -> None:
        self.work += amount
        if self.work > MAX_WORK:
            raise self._fault("it takes too much work")

    def _run_of_plain(self, specials: str) -> str:
        begin = self.at
        while self.at < self.end and self.text[self.at] not in specials:
            self.at += 1
        return self.text[begin : self.at]

    def _escaped(self, raw: bool) -> str:
        begin = self.at
        self.at += 2
        return self.text[begin if raw else begin + 1 : self.at]

    def _single_quoted(self) -> str:
        close = self.text.find("'", self.at + 1)
        if close < 0:
            raise self._fault("unexpected end of statement while looking for matching single-quote")
        inside = self.text[self.at + 1 : close]
        self.at = close + 1
        return inside

    def _double_quoted(self, raw: bool) -> str:
        self.at += 1
        out: list[str] = []
        specials = '"$' + self.escape
        while self.at < self.end:
            c = self.text[self.at]
            if c == '"':
                self.at += 1
                return "".join(out)
            if c == "$":
                out.append(self._dollar())
                self._charge(len(out[-1]))
            elif c != self.escape:
                out.append(self._run_of_plain(specials))
            elif self.text[self.at + 1 : self.at + 2] in ('"', "$", self.escape):
                out.append(self._escaped(raw))
            else:  # before any other character it is an ordinary one, which a pattern has to escape
                out.append(c + c if raw else c)
                self.at += 1
        raise self._fault("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self.at += 1
        if self.text[self.at : self.at + 1] != "{":
            name = self._name()
            return self.variables.get(name, "") if name else "$"
        self.at += 1
        if self.depth == MAX_DEPTH:
            raise self._fault(f"${{…}} is nested more than {MAX_DEPTH} deep")
        self.depth += 1
        value = self._braced()
        self.depth -= 1
        return value

    def _name(self) -> str:
        """Take a name: letters, digits and _; or digits alone; or one special parameter."""
        begin = self.at
        first = self.text[begin : begin + 1]
        if not first.isdecimal() and first and first in _SPECIAL:
            self.at += 1
            return first
        digits = first.isdecimal()
        while self.at < self.end:
            c = self.text[self.at]
            if not (c.isdecimal() if digits else c == "_" or c.isalpha() or c.isdecimal()):
                break
            self.at += 1
        return self.text[begin : self.at]

    def _word(self, stop: str, raw_escapes: bool) -> str:
        return "".join([text for text, _ in self._pieces(stop, raw_escapes)])

    def _braced(self) -> str:
        """Expand what follows `${`."""
        if self.text[self.at : self.at + 1] in ("{", "}", ":"):
            raise self._fault("syntax error: bad substitution")
        name = self._name()
        operator = self.text[self.at : self.at + 1]
        self.at += 1
        value = self.variables.get(name)
        if operator == "}":
            return value or ""
        if operator == "/":
            return self._replaced(value or "")
        colon = ""
        if operator == ":":
            colon = ":"
            operator = self.text[self.at : self.at + 1]
            self.at += 1
        if not operator:
            raise self._fault("syntax error: missing '}' of ${…}")
        if operator in "#%":
            return self._trimmed(value or "", operator)
        if operator in "-+?":
            return self._conditional(name, value, colon, operator)
        raise self._fault(f"unsupported modifier ({shown(colon + operator)}) in substitution")

    def _conditional(self, name: str, value: str | None, colon: str, operator: str) -> str:
        word = self._word("}", False)
        is_missing = value is None or (colon != "" and value == "")
        if operator == "+":
            return "" if is_missing else word
        if not is_missing:
            return value or ""
        if operator == "?":
            why = word or _UNSET["" if value is None else ":"]
            raise BuildError(f"{shown(name)}: {shown(why, 400)}")
        return word

    def _pattern(self, text: str, value: str) -> list[Segment]:
        from sampan.dockerfile import substitute

        try:
            segments = substitute.compile_pattern(text)
        except ValueError as error:
            raise self._fault(f"invalid pattern ({shown(text)}) in substitution: {error}") from None
        self._charge(substitute.cost(segments, value))
        return segments

    def _trimmed(self, value: str, operator: str) -> str:
        from sampan.dockerfile import substitute

        pattern = self._word("}", True)
        is_greedy = pattern.startswith(operator)
        segments = self._pattern(pattern[is_greedy:], value)
        trim = substitute.trim_prefix if operator == "#" else substitute.trim_suffix
        return trim(segments, value, is_greedy)

    def _replaced(self, value: str) -> str:
        from sampan.dockerfile import substitute

        is_all = self.text[self.at : self.at + 1] == "/"
        self.at += is_all
        pattern = self._word("/", True)
        replacement = self._word("}", True)
        segments = self._pattern(pattern, value)
        if not is_all:
            return substitute.replace_first(segments, value, replacement)
        try:
            return substitute.replace_all(segments, value, replacement, MAX_RESULT)
        except OverflowError as error:
            raise self._fault(str(error)) from None
