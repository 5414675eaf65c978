"""Shell patterns over a variable's value: ${x#p} ${x##p} ${x%p} ${x%%p} ${x/p/r} ${x//p/r}.

`*` is any run of characters and `?` any one; brackets are ordinary, as in Docker. A pattern is a list of segments
between stars, and each is looked for once, so the time is linear in the value however many stars there are.
"""

from __future__ import annotations


class Segment:
    """Characters between two stars; `wild` is None or tells which of them are `?`."""

    __slots__ = ("text", "wild")

    def __init__(self, text: str, wild: list[bool] | None) -> None:
        self.text = text
        self.wild = wild

    def find(self, value: str, start: int) -> int:
        """Return the first position at or after start where this segment stands, or -1."""
        if self.wild is None:
            return value.find(self.text, start)
        return next(iter(self._positions(value, start, first_only=True)), -1)

    def rfind(self, value: str, start: int) -> int:
        """Return the last such position, or -1."""
        if self.wild is None:
            return value.rfind(self.text, start)
        found = self._positions(value, start, first_only=False)
        return found[-1] if found else -1

    def at_start(self, value: str) -> bool:
        """Tell whether value begins with this segment."""
        if self.wild is None:
            return value.startswith(self.text)
        if len(value) < len(self.text):
            return False
        return all(w or c == v for c, w, v in zip(self.text, self.wild, value, strict=False))

    def _positions(self, value: str, start: int, first_only: bool) -> list[int]:
        """Search with one bit per character of the segment (shift-and): no backtracking, whatever the `?`s."""
        masks: dict[str, int] = {}
        anything = 0
        for bit, (c, wild) in enumerate(zip(self.text, self.wild or (), strict=True)):
            if wild:
                anything |= 1 << bit
            else:
                masks[c] = masks.get(c, 0) | 1 << bit
        accept = 1 << (len(self.text) - 1)
        found: list[int] = []
        state = 0
        for at in range(start, len(value)):
            state = (state << 1 | 1) & (masks.get(value[at], 0) | anything)
            if state & accept:
                found.append(at - len(self.text) + 1)
                if first_only:
                    break
        return found

    def reversed(self) -> Segment:
        """Return the mirror image."""
        return Segment(self.text[::-1], None if self.wild is None else self.wild[::-1])


def compile_pattern(pattern: str) -> list[Segment]:
    """Divide a pattern at its stars; raise ValueError for an escape that Docker does not know."""
    segments: list[Segment] = []
    chars: list[str] = []
    wild: list[bool] = []
    at = 0
    while at < len(pattern):
        c = pattern[at]
        at += 1
        if c == "*":
            segments.append(_segment(chars, wild))
            chars, wild = [], []
            continue
        is_wild = c == "?"
        if c == "\\":
            c = pattern[at : at + 1]
            at += 1
            if c not in ("*", "?", "\\", "}", "/"):
                raise ValueError(f"invalid escape \\{c}")
        chars.append(c)
        wild.append(is_wild)
    segments.append(_segment(chars, wild))
    return segments


def _segment(chars: list[str], wild: list[bool]) -> Segment:
    return Segment("".join(chars), wild if any(wild) else None)


def cost(segments: list[Segment], value: str) -> int:
    """Estimate the work of one search, in characters."""
    wild = sum(8 + len(s.text) // 64 for s in segments if s.wild is not None)
    is_empty = len(segments) == 1 and not segments[0].text  # ${x//""/r} stops at every character
    return len(value) * (1 + wild + 4 * is_empty)


def span(segments: list[Segment], value: str, start: int) -> tuple[int, int] | None:
    """Find the leftmost match at or after start, the longest there."""
    begin = segments[0].find(value, start)
    return None if begin < 0 else _rest(segments, value, begin, True)


def _rest(segments: list[Segment], value: str, begin: int, greedy: bool) -> tuple[int, int] | None:
    """Match what follows the first segment, which stands at begin."""
    at = begin + len(segments[0].text)
    for segment in segments[1:-1]:
        at = segment.find(value, at)
        if at < 0:
            return None
        at += len(segment.text)
    if len(segments) == 1:
        return begin, at
    last = segments[-1]
    at = last.rfind(value, at) if greedy else last.find(value, at)
    return None if at < 0 else (begin, at + len(last.text))


def trim_prefix(segments: list[Segment], value: str, greedy: bool) -> str:
    """Remove the shortest (greedy: longest) match at the start of value."""
    found = _rest(segments, value, 0, greedy) if segments[0].at_start(value) else None
    return value if found is None else value[found[1] :]


def trim_suffix(segments: list[Segment], value: str, greedy: bool) -> str:
    """Remove the shortest (greedy: longest) match at the end of value."""
    mirrored = [segment.reversed() for segment in reversed(segments)]
    return trim_prefix(mirrored, value[::-1], greedy)[::-1]


def replace_first(segments: list[Segment], value: str, replacement: str) -> str:
    """Replace the leftmost longest match."""
    found = span(segments, value, 0)
    return value if found is None else value[: found[0]] + replacement + value[found[1] :]


def replace_all(segments: list[Segment], value: str, replacement: str, limit: int) -> str:
    """Replace every match, empty ones between characters too, as Go's regexp does; raise OverflowError past limit."""
    only = segments[0]
    if len(segments) == 1 and only.wild is None and only.text:
        grown = len(value) + value.count(only.text) * (len(replacement) - len(only.text))
        _check_length(grown, limit)
        return value.replace(only.text, replacement)
    out: list[str] = []
    size = copied = at = 0
    while at <= len(value):
        found = span(segments, value, at)
        if found is None:
            break
        begin, end = found
        out.append(value[copied:begin])
        if end > copied or begin == 0:  # an empty match right after a match does not count
            out.append(replacement)
        size += begin - copied + len(replacement)
        _check_length(size, limit)
        copied = end
        at = end if end > at else at + 1
    out.append(value[copied:])
    return "".join(out)


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        raise OverflowError(f"the result is longer than {limit} characters")
