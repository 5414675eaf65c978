"""Wildcards in the sources of COPY and ADD: the rules of Go's filepath.Match, which Docker uses.

Pure. One pattern is matched against one name; a pattern with slashes is matched part by part by the caller, because
`*` and `?` never cross a slash. Work is bounded by pattern length times name length, however the stars are placed.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument


def has_wildcard(pattern: str) -> bool:
    """Say whether any character of pattern is special."""
    return any(c in "*?[\\" for c in pattern)


def match(pattern: str, name: str) -> bool:
    """Say whether the whole of name fits pattern; InvalidArgument when the pattern is malformed."""
    return match_tokens(tokens(pattern), name)


Token = tuple[str, str, tuple[tuple[str, str], ...]]
"""Kind (`*`, `?`, `[`, `^` for a negated class, `=` for a literal), the literal, and the ranges of a class."""


def tokens(pattern: str) -> list[Token]:
    """Parse pattern; InvalidArgument when it ends within a class or an escape."""
    found: list[Token] = []
    at = 0
    while at < len(pattern):
        c = pattern[at]
        if c == "[":
            token, at = _class(pattern, at + 1)
            found.append(token)
            continue
        if c == "*" or c == "?":
            if not (c == "*" and found and found[-1][0] == "*"):
                found.append((c, "", ()))
        else:
            if c == "\\":
                at += 1
                if at == len(pattern):
                    raise _malformed(pattern)
            found.append(("=", pattern[at], ()))
        at += 1
    return found


def _class(pattern: str, at: int) -> tuple[Token, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern[at : at + 1] == "]"):
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1)
        ranges.append((low, high))
    return ("^" if negated else "[", "", tuple(ranges)), at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    c = pattern[at : at + 1]
    if c == "" or c == "-" or c == "]":
        raise _malformed(pattern)
    if c == "\\":
        at += 1
        c = pattern[at : at + 1]
    if not c or at + 1 >= len(pattern):
        raise _malformed(pattern)
    return c, at + 1


def _malformed(pattern: str) -> InvalidArgument:
    return InvalidArgument(f"cannot use the pattern {pattern}: a class or an escape in it is not ended")


def match_tokens(wanted: list[Token], name: str) -> bool:
    """Say whether name fits the parsed pattern, with one remembered star to return to."""
    at = i = 0
    star, resume = -1, 0
    while i < len(name):
        if at < len(wanted) and wanted[at][0] == "*":
            star, resume = at, i
            at += 1
        elif at < len(wanted) and _fits(wanted[at], name[i]):
            at += 1
            i += 1
        elif star >= 0 and name[resume] != "/":
            resume += 1
            at, i = star + 1, resume
        else:
            return False
    return all(token[0] == "*" for token in wanted[at:])


def _fits(token: Token, c: str) -> bool:
    kind = token[0]
    if kind == "=":
        return c == token[1]
    if kind == "?":
        return c != "/"
    inside = any(low <= c <= high for low, high in token[2])
    return inside == (kind == "[")
