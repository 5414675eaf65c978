"""Lines on standard output: all that most commands print.

Names, commands and labels come from images: `printable` shows control characters instead of sending them to a terminal.
"""

from __future__ import annotations

import sys


def write(text: str) -> None:
    """Print one text to standard output as it is."""
    try:
        sys.stdout.write(text)
    except OSError as exc:
        from sampan.cli.failure import unwritten

        raise unwritten(exc) from exc


def line(text: str) -> None:
    """Print one line to standard output, control characters shown."""
    write(printable(text) + "\n")


def printable(text: str, keep: str = "\t") -> str:
    """Return text with control characters written out as escapes; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _is_control(c) else _escape(c) for c in text)


def in_json(text: str) -> str:
    """Return JSON text with the same characters as JSON's own escapes (RFC 8259, 7), which it leaves as they are."""
    if text.isprintable():
        return text
    return "".join(f"\\u{ord(c):04x}" if _is_control(c) else c for c in text)


def _is_control(letter: str) -> bool:
    # C0, DEL and C1 steer terminals; bidirectional marks reorder what is shown. Undecodable bytes stay bytes.
    code = ord(letter)
    return code < 32 or 127 <= code < 160 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


def _escape(letter: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter) or (
        f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"
    )
