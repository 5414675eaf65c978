"""Points in time as people type them for --since and --until: a duration back from now, a date, seconds since 1970."""

from __future__ import annotations

from sampan.errors import InvalidArgument


def moment(text: str, now: float) -> float:
    """Return unix seconds for `10m`, `1h30m`, `2026-01-31T10:00:00` (local unless it has a zone) or `1769853600.5`."""
    try:
        if text.replace(".", "", 1).isdecimal() and text.isascii():
            return float(text)
        if text[-1:] in "smh" and not text.startswith(("-", "+")):
            from sampan.cli.quantities import parse_duration

            return now - parse_duration(text)
        import datetime

        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"cannot read time {text!r}", "for example 10m, 2026-01-31T10:00:00Z or seconds since 1970"
        ) from None


def exact(text: str, now: float) -> float | str:
    """Return what `moment` does, but as RFC 3339 what tells of nanoseconds, such as the time of a line of a log."""
    from sampan.oci import timestamp

    whole, _, fraction = text.partition(".")
    if fraction and (whole + fraction).isdecimal() and text.isascii():
        return timestamp.format(int(whole or "0") * 1_000_000_000 + int(fraction[:9].ljust(9, "0")))
    try:
        timestamp.parse(text)
    except InvalidArgument:
        return moment(text, now)
    return text
