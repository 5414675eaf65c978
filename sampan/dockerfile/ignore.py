"""Which paths of a build context a .dockerignore excludes, as Docker's patternmatcher decides it for a walk.

The last pattern that matches a path or one of its parents wins; `!` takes paths back in. As in BuildKit, a pattern
that need not be asked about a directory (its answer would change nothing) is not taken to match the directory's
contents either. Paths are relative, with `/`, as os.fsdecode gives them.
"""

from __future__ import annotations

from sampan.dockerfile.located import SPACE, located
from sampan.dockerfile.wildcard import Wildcard, has_wildcard, match

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Patterns", "clean", "has_wildcard", "match", "read"]

MAX_SIZE = 4 << 20
MAX_PATTERNS = 10_000
_REMEMBERED = 4096
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
    """One pattern, with short cuts for the shapes that most patterns have."""

    __slots__ = ("_automaton", "_find", "_head", "_tail", "is_negated", "text")

    def __init__(self, text: str, is_negated: bool) -> None:
        self.text = text
        self.is_negated = is_negated
        self._head = self._tail = ""
        if "[" in text or "\\" in text:
            Wildcard(text)  # Docker judges the syntax by filepath.Match
        self._automaton: Wildcard | None = None
        self._find = self._shape()

    def _shape(self) -> str:
        text = self.text
        if not any(c in text for c in "*?[\\"):
            return "exact"
        if not any(c in text for c in "?[\\"):
            stars = text.count("*")
            self._head, _, self._tail = text.partition("**")
            if stars == 2 and "**" in text and not (self._head and self._tail):
                # BuildKit compares text in these two shapes, so that `**x` matches "ax" too.
                return "head" if self._head else "tail"
            if text.startswith("**/") and "/" not in text[3:] and stars == 3:
                self._head, _, self._tail = text[3:].partition("*")
                if "*" not in self._tail:
                    return "name"
            if stars == 1:
                self._head, _, self._tail = text.partition("*")
                return "star"
        self._automaton = Wildcard(text, deep=True)
        return "automaton"

    def matches(self, path: str, name: str) -> bool:
        """Tell whether the pattern matches path, whose last component is name."""
        shape = self._find
        if shape == "exact":
            return path == self.text
        if shape == "head":
            return path.startswith(self._head)
        if shape == "tail":
            return path.endswith(self._tail) or path == self._tail[1:] and self._tail[0] == "/"
        if shape == "name":
            return self._is_around_star(name)
        if shape == "star":
            return self._is_around_star(path)
        return self._deep().matches(path)

    def _is_around_star(self, text: str) -> bool:
        """Tell whether text is head, then anything but a slash, then tail."""
        head, tail = self._head, self._tail
        end = len(text) - len(tail)
        if end < len(head) or not text.startswith(head) or not text.endswith(tail):
            return False
        return text.find("/", len(head), end) < 0

    def may_match_below(self, directory: str) -> bool:
        """Tell whether the pattern can match a path below a directory."""
        below = directory + "/"
        if self._find == "exact":
            return self.text.startswith(below)
        if self._find == "tail":
            return True
        return self._deep().may_match_after(below)

    def _deep(self) -> Wildcard:
        if self._automaton is None:
            self._automaton = Wildcard(self.text, deep=True)
        return self._automaton


class Patterns:
    """The patterns of a .dockerignore, given as its lines; `name` is for messages."""

    __slots__ = ("_negations", "_patterns", "_seen")

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
        self._negations = [pattern for pattern in self._patterns if pattern.is_negated]

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
        parent = path.rpartition("/")[0]
        return self._judge(path, self._flags(parent))[1]

    def is_skippable(self, directory: str) -> bool:
        """Tell whether an excluded directory need not be entered: no `!` pattern can match below it."""
        directory = directory.strip("/")
        return not any(pattern.may_match_below(directory) for pattern in self._negations)

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
            flags = self._seen[directory] = self._judge(directory, flags)[0]
        return flags

    def _judge(self, path: str, parent: int) -> tuple[int, bool]:
        """Ask the patterns in turn; return which match, as bits, and whether path is excluded."""
        name = path.rpartition("/")[2]
        flags = 0
        is_excluded = False
        bit = 1
        for pattern in self._patterns:
            if parent & bit or (pattern.is_negated == is_excluded and pattern.matches(path, name)):
                flags |= bit
                is_excluded = not pattern.is_negated
            bit <<= 1
        return flags, is_excluded


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
