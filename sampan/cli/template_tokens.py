"""Splits one action of a format template into tokens: (kind, value, offset).

Kinds: field (`.A`, value "A"; a lone dot has ""), chain (`.B` right after a token), variable, word, literal, and mark,
which is one of | ( ) , := and =.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Token = tuple[str, Any, int]

SPACE = " \t\r\n"
KEYWORDS = ("if", "else", "range", "with", "define", "block", "template")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "a": "\a", "0": "\0"}
_DIGITS = {"x": 2, "u": 4, "U": 8}  # of \x41, \u00e9, \U0001f6f6


def located(source: str, at: int, why: str, hint: str = "") -> InvalidArgument:
    """Make an error that names the line and column of an offset."""
    line = source.count("\n", 0, at) + 1
    column = at - (source.rfind("\n", 0, at) + 1) + 1
    return InvalidArgument(f"format template, line {line} column {column}: {why}", hint)


def tokens(source: str, start: int, at: int) -> tuple[list[Token], int, bool]:
    """Split one action into tokens; return them, the offset after }}, and whether to trim what follows."""
    found: list[Token] = []
    while True:
        before = at
        while source[at : at + 1] in SPACE and at < len(source):
            at += 1
        if at > before and source.startswith("-}}", at):
            return found, at + 3, True
        if source.startswith("}}", at):
            return found, at + 2, False
        if at >= len(source):
            raise located(source, start, "this {{ has no }}")
        kind, value, end = _token(source, at)
        if kind == "field" and value and at == before and found and _may_have_fields(found[-1]):
            kind = "chain"
        found.append((kind, value, at))
        at = end


def _may_have_fields(token: Token) -> bool:
    """Say whether a field right behind a token is one of its value; behind `range` it is a value of its own."""
    kind, value, _ = token
    return value == ")" if kind == "mark" else kind != "word" or value not in KEYWORDS


def _token(source: str, at: int) -> Token:
    letter = source[at]
    if letter in "\"'`":
        return _quoted(source, at)
    if letter == "." and not source[at + 1 : at + 2].isdigit():
        end = _name_end(source, at + 1)
        return "field", source[at + 1 : end], end
    if letter == "$":
        end = _name_end(source, at + 1)
        return "variable", source[at:end], end
    if letter.isdigit() or (letter in "+-." and source[at + 1 : at + 2].isdigit()):
        return _number(source, at)
    if source.startswith(":=", at):
        return "mark", ":=", at + 2
    if letter in "|(),=":
        return "mark", letter, at + 1
    end = _name_end(source, at)
    if end == at:
        raise located(source, at, f"{letter!r} is not expected here")
    word = source[at:end]
    if word in ("true", "false", "nil"):
        return "literal", {"true": True, "false": False, "nil": None}[word], end
    return "word", word, end


def _name_end(source: str, at: int) -> int:
    while at < len(source) and (source[at] == "_" or source[at].isalnum()):
        at += 1
    return at


def _number(source: str, at: int) -> Token:
    end = at + 1
    while end < len(source) and (source[end] in "._" or source[end].isalnum()):
        end += 1
    text = source[at:end]
    try:
        digits = text.lstrip("+-")
        return "literal", int(text, 0) if digits.isdigit() or digits[:2] in ("0x", "0o", "0b") else float(text), end
    except ValueError:
        raise located(source, at, f"{text!r} is not a number") from None


def _numbered(digits: str, count: int) -> str:
    try:
        return chr(int(digits, 16)) if len(digits) == count and digits.isalnum() else ""
    except (ValueError, OverflowError):
        return ""


def _quoted(source: str, at: int) -> Token:
    quote, out, end = source[at], "", at + 1
    while end < len(source) and source[end] != quote:
        letter = source[end]
        if letter == "\\" and quote != "`":
            end += 1
            letter = _ESCAPES.get(source[end : end + 1], "")
            if (count := _DIGITS.get(source[end : end + 1], 0)) and (
                letter := _numbered(source[end + 1 :][:count], count)
            ):
                end += count
            if not letter:
                raise located(source, end - 1, "this escape is not known in a quoted word")
        out += letter
        end += 1
    if end >= len(source):
        raise located(source, at, "this quote is never closed")
    return "literal", out, end + 1
