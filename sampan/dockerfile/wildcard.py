"""Wildcards of file names, compiled to a bit-parallel automaton: Go's filepath.Match, and Docker's `**` on top.

`*` any run without `/`, `?` any character but `/`, `[a-z]` and `[^a-z]`, `\\` quotes. With deep=True also `**`:
before more text any directories or none (`(.*/)?`), at the end anything at all (`.*`). A state is a bit, a set of
states an int, so a match costs a few operations per character of the path, whatever the pattern.
"""

from __future__ import annotations

from sampan.dockerfile.located import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PATTERN = 4096  # PATH_MAX: a longer pattern is no use, and this bounds the cost of classes

_Range = tuple[str, str]


class Wildcard:
    """A compiled pattern; raise ValueError if it is malformed."""

    __slots__ = (
        "accept",
        "classes",
        "deep",
        "enter",
        "inside",
        "known",
        "literal",
        "not_slash",
        "rest",
        "star",
        "start",
    )

    def __init__(self, pattern: str, deep: bool = False) -> None:
        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"the pattern has {len(pattern)} characters, more than the {MAX_PATTERN} allowed")
        self.deep = deep
        self.literal: dict[str, int] = {}
        self.not_slash = 0
        self.classes: dict[tuple[bool, tuple[_Range, ...]], int] = {}
        self.star = self.enter = self.inside = self.rest = 0
        self.known: dict[str, int] = {}
        self.accept = self._compile(pattern)
        self.start = self._closure(1)

    def matches(self, path: str) -> bool:
        """Tell whether the pattern matches the whole path."""
        return bool(self._run(path) & self.accept)

    def may_match_after(self, prefix: str) -> bool:
        """Tell whether the pattern can match some path that begins with prefix."""
        return bool(self._run(prefix))

    def _compile(self, pattern: str) -> int:
        """Set the masks; return the accepting bit."""
        bit = 1
        at = 0
        while at < len(pattern):
            c = pattern[at]
            at += 1
            if c == "*":
                bit, at = self._stars(pattern, at, bit)
                continue
            if c == "?":
                self.not_slash |= bit
            elif c == "[":
                negated, ranges, at = _class(pattern, at)
                self.classes[negated, ranges] = self.classes.get((negated, ranges), 0) | bit
            else:
                if c == "\\":
                    c = pattern[at : at + 1]
                    at += 1
                    if not c:
                        raise _malformed(pattern, "it ends in a backslash")
                self.literal[c] = self.literal.get(c, 0) | bit
            bit <<= 1
        return bit

    def _stars(self, pattern: str, at: int, bit: int) -> tuple[int, int]:
        if not self.deep or pattern[at : at + 1] != "*":
            if not self.star & bit >> 1:  # two in a row are one
                self.star |= bit
                bit <<= 1
            return bit, at
        at += 1
        if pattern[at : at + 1] == "/":
            at += 1
        if at == len(pattern):
            self.rest |= bit
            return bit << 1, at
        if not (self.inside & bit >> 1):
            self.enter |= bit
            self.inside |= bit << 1
            bit <<= 2
        return bit, at

    def _closure(self, states: int) -> int:
        """Add the states reached without a character; runs of stars are collapsed, so a few rounds do."""
        skip = self.star | self.rest
        while True:
            entered = states & self.enter
            more = states | (states & skip) << 1 | entered << 1 | entered << 2
            if more == states:
                return states
            states = more

    def _advancing(self, c: str) -> int:
        """Return the states that take c and go on; remembered per character."""
        mask = self.literal.get(c, 0)
        if c != "/":
            mask |= self.not_slash
        for (negated, ranges), bits in self.classes.items():
            if any(low <= c <= high for low, high in ranges) != negated:
                mask |= bits
        self.known[c] = mask
        return mask

    def _run(self, text: str) -> int:
        """Return the states alive after text."""
        states = self.start
        known = self.known
        skips = self.star | self.rest | self.enter
        for c in text:
            mask = known.get(c)
            after = (states & (self._advancing(c) if mask is None else mask)) << 1
            if c == "/":
                inside = states & self.inside
                after |= states & self.rest | inside | inside << 1
            else:
                after |= states & (self.rest | self.inside | self.star)
            states = self._closure(after) if after & skips else after
            if not states:
                break
        return states


class Wildcards(Wildcard):
    """Several deep patterns, each with a number, as one automaton: their states lie side by side."""

    __slots__ = ("_numbers",)

    def __init__(self, parts: Iterable[tuple[int, Wildcard]]) -> None:
        super().__init__("", deep=True)
        self.start = self.accept = shift = 0
        self._numbers: dict[int, int] = {}
        for number, part in parts:
            for c, bits in part.literal.items():
                self.literal[c] = self.literal.get(c, 0) | bits << shift
            for key, bits in part.classes.items():
                self.classes[key] = self.classes.get(key, 0) | bits << shift
            for name in ("not_slash", "star", "enter", "inside", "rest", "start", "accept"):
                setattr(self, name, getattr(self, name) | getattr(part, name) << shift)
            shift += part.accept.bit_length()
            self._numbers[shift] = number

    def matching(self, path: str) -> list[int]:
        """Return the numbers of the patterns that match the whole path."""
        found, numbers = self._run(path) & self.accept, []
        while found:
            low = found & -found
            numbers.append(self._numbers[low.bit_length()])
            found ^= low
        return numbers


def _malformed(pattern: str, why: str) -> ValueError:
    return ValueError(f"syntax error in pattern {shown(pattern)}: {why}")


def _class(pattern: str, at: int) -> tuple[bool, tuple[_Range, ...], int]:
    """Read a class after its `[`: ranges, which may begin with `^`; `-` and `]` need a backslash."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[_Range] = []
    while not ranges or pattern[at : at + 1] != "]":
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1)
        ranges.append((low, high))
    return negated, tuple(ranges), at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    c = pattern[at : at + 1]
    if c in ("", "-", "]"):
        raise _malformed(pattern, "a [class] is not closed, is empty, or has a - or ] without a backslash")
    if c != "\\":
        return c, at + 1
    if at + 1 == len(pattern):
        raise _malformed(pattern, "it ends in a backslash")
    return pattern[at + 1], at + 2


def match(pattern: str, path: str) -> bool:
    """Tell whether pattern matches the whole path by the rules of Go's filepath.Match (COPY and ADD sources)."""
    return Wildcard(pattern).matches(path)


def has_wildcard(text: str) -> bool:
    """Tell whether a source of COPY or ADD is a pattern."""
    at = 0
    while at < len(text):
        if text[at] in "*?[":
            return True
        at += 2 if text[at] == "\\" else 1
    return False
