"""WWW-Authenticate (RFC 9110, 11.6.1): which schemes a registry accepts, with their parameters."""

from __future__ import annotations

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LONGEST = 16 << 10


class Challenge:
    """One scheme (lower case) and its parameters (names lower case)."""

    __slots__ = ("parameters", "scheme")

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.parameters: dict[str, str] = {}


def parse(text: str) -> list[Challenge]:
    """Give the challenges of a header; what cannot be understood ends the list."""
    found: list[Challenge] = []
    at, text = 0, text[:_LONGEST]
    while True:
        at = _skip(text, at, " \t,")
        word, at = _word(text, at)
        if not word:
            return found
        after = _skip(text, at, " \t")
        if found and text[after : after + 1] == "=":
            value, at = _value(text, _skip(text, after + 1, " \t"))
            found[-1].parameters.setdefault(word.lower(), value)
        else:
            found.append(Challenge(word.lower()))


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _word(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] in _TOKEN:
        end += 1
    return text[at:end], end


def _value(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        end = at
        while end < len(text) and text[end] not in ", \t":
            end += 1
        return text[at:end], end
    out, at = "", at + 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 1
        out += text[at : at + 1]
        at += 1
    return out, at + 1
