"""Times of image documents (RFC 3339, up to nanoseconds) to and from unix nanoseconds, without `datetime`."""

from __future__ import annotations

import time

from sampan.errors import InvalidArgument

_BILLION = 1_000_000_000


def format(nanoseconds: int) -> str:
    """Return `2024-05-01T12:30:00.5Z` for unix nanoseconds."""
    seconds, fraction = divmod(nanoseconds, _BILLION)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return text.rjust(19, "0") + (f".{digits}" if digits else "") + "Z"


def parse(text: str) -> int:
    """Return unix nanoseconds for an RFC 3339 time; raise InvalidArgument."""
    try:
        date, clock = text[:10], text[11:]
        if text[10] not in "Tt " or date[4] != "-" or date[7] != "-":
            raise ValueError("no date")
        clock, offset = _split_offset(clock)
        whole, dot, fraction = clock.partition(".")
        hour, minute, second = (_number(part, 2) for part in whole.split(":"))
        year, month, day = _number(date[:4], 4), _number(date[5:7], 2), _number(date[8:], 2)
        if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
            raise ValueError("out of range")
        nanos = _number(fraction[:9].ljust(9, "0"), 9) if dot and fraction.isascii() and fraction.isdecimal() else 0
    except (ValueError, IndexError) as exc:
        raise InvalidArgument(f"invalid time {text[:60]!r}: it is not like 2024-05-01T12:30:00Z") from exc
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second - offset
    return seconds * _BILLION + nanos


def _split_offset(clock: str) -> tuple[str, int]:
    if clock[-1] in "Zz":
        return clock[:-1], 0
    sign = {"+": 1, "-": -1}.get(clock[-6])
    if sign is None or clock[-3] != ":":
        raise ValueError("no offset")
    return clock[:-6], sign * (_number(clock[-5:-3], 2) * 60 + _number(clock[-2:], 2)) * 60


def _number(text: str, width: int) -> int:
    if len(text) != width or not (text.isascii() and text.isdecimal()):
        raise ValueError("not a number")
    return int(text)


def _days(year: int, month: int, day: int) -> int:
    # Days since 1970-01-01 in the proleptic Gregorian calendar: years begin in March, so that leap days come last.
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719468
