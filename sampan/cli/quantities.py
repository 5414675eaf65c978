"""Numbers with units as people type them: true or false, sizes, durations. All raise ValueError with a sentence.

The caller adds which option it was; imported only when an option with such a value is given.
"""

from __future__ import annotations

_TRUE = ("1", "t", "true", "yes", "on")
_FALSE = ("0", "f", "false", "no", "off")
_BYTES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def convert(kind: str, text: str) -> bool | int | float:
    """Convert the text of an option of this kind."""
    if kind == "flag":
        return parse_bool(text)
    if kind == "int":
        return _number(text, int, "an integer")
    if kind == "decimal":
        return _number(text, float, "a number")
    return parse_bytes(text) if kind == "bytes" else parse_duration(text)


def _number(text: str, kind: type[int] | type[float], what: str) -> int | float:
    try:
        if "_" in text or text != text.strip():
            raise ValueError
        value = kind(text)
        if value - value != 0:  # infinity and not-a-number
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is not {what}") from None
    return value


def parse_bool(text: str) -> bool:
    """Parse true or false as Docker's flags accept them."""
    lowered = text.lower()
    if lowered in _TRUE or lowered in _FALSE:
        return lowered in _TRUE
    raise ValueError(f"{text!r} is neither true nor false")


def parse_bytes(text: str) -> int:
    """Parse a size: `512`, `64m`, `1.5g`, `2GiB`; units are powers of 1024, and -1 means no limit."""
    if text == "-1":
        return -1
    digits = text.rstrip("bBkKmMgGtTpPiI ")
    unit = text[len(digits) :].strip().lower()
    shift = _BYTES.get(unit[:1] or "b")
    if shift is None or unit[1:] not in ("", "b", "ib") or (shift == 0 and unit[1:]):
        raise ValueError(f"{text!r} is not a size such as 512, 64m or 1.5g")
    if digits.isascii() and digits.isdigit():
        return int(digits) << shift
    whole, dot, part = digits.partition(".")
    if not dot or not (whole + part).isascii() or not (whole + part).isdigit():
        raise ValueError(f"{text!r} is not a size such as 512, 64m or 1.5g")
    return (int(whole + part) << shift) // int(10 ** len(part))


def parse_duration(text: str) -> float:
    """Parse a duration as Go writes it (`1m30s`, `1.5h`, `300ms`) into seconds; a bare number is seconds."""
    bad = ValueError(f"{text!r} is not a duration such as 10s or 1m30s")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if not rest or not rest.isprintable():
        raise bad
    total = 0.0
    while rest:
        end = _span(rest, "0123456789.")
        unit_end = end + _span(rest[end:], "nuµmsh")
        number, unit = rest[:end], rest[end:unit_end]
        if number.count(".") > 1 or not number.strip("."):
            raise bad
        if not unit and (unit_end != len(rest) or total):
            raise bad
        if unit and unit not in _SECONDS:
            raise bad
        total += float(number) * _SECONDS[unit or "s"]
        rest = rest[unit_end:]
    return -total if text[0] == "-" else total


def _span(text: str, letters: str) -> int:
    count = 0
    while count < len(text) and text[count] in letters:
        count += 1
    return count
