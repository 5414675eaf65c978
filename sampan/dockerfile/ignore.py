"""Which paths of a build context a .dockerignore excludes, as Docker's patternmatcher decides it for a walk.

The last pattern that matches a path or one of its parents wins; `!` takes paths back in. As in BuildKit, a pattern
that need not be asked about a directory (its answer would change nothing) is not taken to match the directory's
contents either. Paths are relative, with `/`, as os.fsdecode gives them.
"""

from __future__ import annotations

from sampan.dockerfile.located import SPACE, located
from sampan.dockerfile.wildcard import MAX_PATTERN, Wildcard, Wildcards, has_wildcard, match

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    _Key = TypeVar("_Key")

__all__ = ["Patterns", "clean", "has_wildcard", "match", "read"]

MAX_SIZE = 4 << 20
MAX_PATTERNS = 10_000
_REMEMBERED = 4096
_AT_ONCE = 256  # patterns in one automaton: what is slow with more is to make it
_BOM = "\ufeff"


def read(data: bytes, name: str = ".dockerignore") -> Patterns:
    """Read a .dockerignore file; raise a located BuildError for a malformed pattern."""
    if len(data) > MAX_SIZE:
        raise located(f"the file is larger than {MAX_SIZE >> 20} MiB", "", name, [], 1, 1)
    return Patterns(data.decode("utf-8", "surrogateescape").split("\n"), name)


def clean(path: str) -> str:
    """Return the shortest equal path, by its text alone: Go's filepath.Clean."""
    is_rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not is_rooted:
            parts.append(part)
    return ("/" if is_rooted else "") + "/".join(parts) or "."


class _Pattern:
    """One pattern, and the shape that it has: most have one that is found by looking its text up."""

    __slots__ = ("automaton", "head", "is_negated", "shape", "tail", "text")

    def __init__(self, text: str, is_negated: bool) -> None:
        self.text = text
        self.is_negated = is_negated
        self.head = self.tail = ""
        self.automaton: Wildcard | None = None
        if "[" in text or "\\" in text:
            Wildcard(text)  # Docker judges the syntax by filepath.Match
        self.shape = self._shape()

    def _shape(self) -> str:
        text = self.text
        if not any(c in text for c in "*?[\\"):
            return "exact"
        if not any(c in text for c in "?[\\"):
            stars = text.count("*")
            self.head, _, self.tail = text.partition("**")
            if stars == 2 and "**" in text and not (self.head and self.tail):
                # BuildKit compares text in these two shapes, so that `**x` matches "ax" too.
                return "head" if self.head else "tail"
            if text.startswith("**/") and "/" not in text[3:] and stars == 3:
                self.head, _, self.tail = text[3:].partition("*")
                if "*" not in self.tail:
                    return "name"
            if stars == 1:
                self.head, _, self.tail = text.partition("*")
                return "star"
        self.deep()
        return "automaton"

    def deep(self) -> Wildcard:
        """Return the pattern as an automaton; raise ValueError if it is too long for one."""
        if self.automaton is None:
            self.automaton = Wildcard(self.text, deep=True)
        return self.automaton


class _Index:
    """Patterns by their shapes: a path is looked up, not compared with each of them. A set of patterns is an int, a
    pattern the bit of its place in the file."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        self.exact: dict[str, int] = {}
        self.heads: dict[int, dict[str, int]] = {}  # by their lengths
        self.tails: dict[int, dict[str, int]] = {}
        self.names: dict[tuple[int, int], dict[tuple[str, str], int]] = {}  # what is around a star, by both lengths
        self.stars: dict[tuple[int, int], dict[tuple[str, str], int]] = {}
        others: list[tuple[int, Wildcard]] = []
        for number, pattern in enumerate(patterns):
            self._add(pattern, number, others)
        self.others = [Wildcards(others[at : at + _AT_ONCE]) for at in range(0, len(others), _AT_ONCE)]

    def _add(self, pattern: _Pattern, number: int, others: list[tuple[int, Wildcard]]) -> None:
        bit, head, tail = 1 << number, pattern.head, pattern.tail
        if pattern.shape == "exact":
            self.exact[pattern.text] = self.exact.get(pattern.text, 0) | bit
        elif pattern.shape == "head":
            _join(self.heads.setdefault(len(head), {}), head, bit)
        elif pattern.shape == "tail":
            _join(self.tails.setdefault(len(tail), {}), tail, bit)
            if tail.startswith("/"):
                _join(self.exact, tail[1:], bit)
        elif pattern.shape == "automaton":
            others.append((number, pattern.deep()))
        else:
            around = self.names if pattern.shape == "name" else self.stars
            _join(around.setdefault((len(head), len(tail)), {}), (head, tail), bit)

    def matching(self, path: str) -> int:
        """Return the patterns that match a path."""
        found = self.exact.get(path, 0)
        for length, heads in self.heads.items():
            found |= heads.get(path[:length], 0)
        for length, tails in self.tails.items():
            if length <= len(path):
                found |= tails.get(path[len(path) - length :], 0)
        if self.names:
            found |= _around_star(self.names, path.rpartition("/")[2])
        if self.stars:
            found |= _around_star(self.stars, path)
        for wildcards in self.others:
            for number in wildcards.matching(path):
                found |= 1 << number
        return found


def _join(sets: dict[_Key, int], key: _Key, bit: int) -> None:
    sets[key] = sets.get(key, 0) | bit


def _around_star(sets: dict[tuple[int, int], dict[tuple[str, str], int]], text: str) -> int:
    """Return the patterns of which text is head, then anything but a slash, then tail."""
    found = 0
    for (head, tail), bits in sets.items():
        end = len(text) - tail
        if end >= head:
            hit = bits.get((text[:head], text[end:]), 0)
            if hit and text.find("/", head, end) < 0:
                found |= hit
    return found


class _Below:
    """Patterns that are asked whether they can match a path below a directory."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        # What is too long for an automaton matches nothing that anybody has; it is not worth another way.
        self._everywhere = any(one.shape == "tail" or len(one.text) > MAX_PATTERN for one in patterns)
        self._above: set[str] = set()
        others: list[tuple[int, Wildcard]] = []
        for pattern in patterns if not self._everywhere else ():
            if pattern.shape == "exact":
                self._above.update(_parents(pattern.text))
            else:
                others.append((0, pattern.deep()))
        self._others = [Wildcards(others[at : at + _AT_ONCE]) for at in range(0, len(others), _AT_ONCE)]

    def may_match(self, directory: str) -> bool:
        """Tell whether one of them can."""
        if self._everywhere or directory in self._above:
            return True
        return any(wildcards.may_match_after(directory + "/") for wildcards in self._others)


def _parents(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


class Patterns:
    """The patterns of a .dockerignore, given as its lines; `name` is for messages."""

    __slots__ = ("_below", "_index", "_negated", "_patterns", "_seen")

    def __init__(self, lines: Iterable[str], name: str = ".dockerignore") -> None:
        self._patterns: list[_Pattern] = []
        self._seen: dict[str, int] = {}
        rows = list(lines)
        for number, line in enumerate(rows, 1):
            text = _pattern_of(line.removeprefix(_BOM) if number == 1 else line)
            if not text:
                continue
            try:
                self._add(text)
            except ValueError as error:
                raw = [row.encode("utf-8", "surrogateescape") for row in rows]
                raise located(str(error), "", name, raw, number, number) from None
        self._negated = sum(1 << number for number, one in enumerate(self._patterns) if one.is_negated)
        self._index: _Index | None = None
        self._below: _Below | None = None

    def _add(self, text: str) -> None:
        text = clean(text)
        is_negated = text.startswith("!")
        if text == "!":
            raise ValueError('illegal exclusion pattern: "!"')
        if len(self._patterns) == MAX_PATTERNS:
            raise ValueError(f"there are more than {MAX_PATTERNS} patterns")
        self._patterns.append(_Pattern(text[is_negated:], is_negated))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, path: str, is_dir: bool = False) -> bool:
        """Tell whether a path is excluded; directories and files are judged alike, as Docker judges them."""
        path = path.strip("/")
        if not self._patterns or path in ("", "."):
            return False
        found = self._matching(path) | self._flags(path.rpartition("/")[0])
        return bool(found) and not self._negated >> found.bit_length() - 1 & 1  # the last one decides

    def is_skippable(self, directory: str) -> bool:
        """Tell whether an excluded directory need not be entered: no `!` pattern can match below it."""
        if not self._negated:
            return True
        if self._below is None:
            self._below = _Below([pattern for pattern in self._patterns if pattern.is_negated])
        return not self._below.may_match(directory.strip("/"))

    def _matching(self, path: str) -> int:
        if self._index is None:
            self._index = _Index(self._patterns)
        return self._index.matching(path)

    def _flags(self, directory: str) -> int:
        """Return which patterns count as matching everything in a directory, as bits."""
        missing: list[str] = []
        while directory and directory not in self._seen:
            missing.append(directory)
            directory = directory.rpartition("/")[0]
        flags = self._seen[directory] if directory else 0
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        for directory in reversed(missing):
            flags = self._seen[directory] = self._inherited(directory, flags)
        return flags

    def _inherited(self, path: str, parent: int) -> int:
        """Return which patterns count for all that is in a directory: the parent's, and those that change the answer of
        the ones before them.
        """
        flags, rest, is_excluded = parent, parent | self._matching(path), False
        while changing := rest & self._negated if is_excluded else rest & ~self._negated:
            bit = changing & -changing
            flags |= bit
            is_excluded = not is_excluded
            rest &= -(bit << 1)
        return flags


def _pattern_of(line: str) -> str:
    """Return the pattern on a line, cleaned and relative, or "" for an empty line or a comment."""
    if line.startswith("#"):
        return ""
    text = line.strip(SPACE)
    is_negated = text.startswith("!")
    bare = text[is_negated:].strip(SPACE)
    if bare:
        bare = clean(bare)
        if len(bare) > 1:
            bare = bare.removeprefix("/")
    return "!" + bare if is_negated else bare
