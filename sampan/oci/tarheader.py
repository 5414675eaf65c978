"""Tar headers as bytes: numbers, names, extended records, and where the data of a sparse file goes.

POSIX.1-2008 pax "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format" (types L, K, S
and base-256 numbers) and "Storing Sparse Files".  Every number is checked: what is out of range is an IntegrityError,
never another number.
"""

from __future__ import annotations

import _struct
import zlib

from sampan.errors import IntegrityError
from sampan.oci.entry import MAX_PATH

BLOCK = 512
MAX_EXTENDED = 1 << 20
# name mode uid gid size mtime checksum type link magic+version user group major minor prefix
LAYOUT = _struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
MAX_SIZE = (1 << 63) - 1
MAX_ID = (1 << 32) - 2  # 2^32-1 means "leave it" to chown(2)
_TIMES = (-(1 << 63), (1 << 63) - 1)
_SPARSE_ENTRY = 24


def broken(what: str, path: bytes = b"") -> IntegrityError:
    """Make the error for an archive that is not one."""
    place = f" at {path.decode('utf-8', 'backslashreplace')!r}" if path else ""
    return IntegrityError(f"cannot read the archive: {what}{place}")


_numbers: dict[bytes, int] = {}  # fields read before: most files of an archive share modes, owners and times


def number(field: bytes) -> int:
    """Read an octal field, or GNU's base-256 with its sign."""
    value = _numbers.get(field)
    if value is None:
        if len(_numbers) > 4096:
            _numbers.clear()
        value = _numbers[field] = _number(field)
    return value


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    # int() alone would take signs, underscores and prefixes.
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise broken("a number in a header is not octal")
    return int(digits, 8)


def decimal(text: bytes, what: str) -> int:
    """Read a number of an extended header."""
    if not text.isdigit() or len(text) > 20:
        raise broken(f"{what} is not a number")
    return int(text)


def bounded(value: int, most: int, what: str, path: bytes) -> int:
    """Return the value, or refuse the archive."""
    if 0 <= value <= most:
        return value
    raise broken(f"{what} {value} is out of range", path)


def time_of(text: bytes) -> tuple[int, int]:
    """Read an extended header's time as seconds and nanoseconds, the latter never negative."""
    negative = text[:1] == b"-"
    whole, dot, fraction = (text[1:] if negative else text).partition(b".")
    if (
        not (whole or fraction)
        or (whole and not whole.isdigit())
        or (fraction and not fraction.isdigit())
        or len(whole) > 20
    ):
        raise broken("a time is not a number")
    seconds, nanoseconds = int(whole or b"0"), int(fraction[:9].ljust(9, b"0")) if dot else 0
    if negative:
        seconds, nanoseconds = (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
    return check_seconds(seconds), nanoseconds


def check_seconds(seconds: int) -> int:
    """Return the seconds, or refuse what no kernel could store."""
    if _TIMES[0] <= seconds <= _TIMES[1]:
        return seconds
    raise broken(f"the time {seconds} is out of range")


def clean_path(name: bytes, what: str = "the name") -> bytes:
    """Make a name relative to the root as Docker does: "/../a" is "a", "../a" points outside and is refused."""
    if len(name) > MAX_PATH:
        raise broken(f"{what} is longer than {MAX_PATH} bytes", name[:60])
    if b"\0" in name:
        raise broken(f"{what} holds a zero byte", name[:60])
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
            elif name[:1] != b"/":
                raise broken(f"{what} points outside of the tree", name)
        elif part and part != b".":
            if len(part) > 255:
                raise broken(f"a component of {what} is longer than 255 bytes", name[:60])
            parts.append(part)
    return b"/".join(parts)


def check_sum(block: bytes, field: bytes) -> None:
    """Refuse a header whose checksum is wrong; old archives summed signed characters."""
    stored = number(field)
    # Adler-32's lower half is the sum of all bytes plus one, modulo 65521: ten times as fast as sum().
    if zlib.adler32(block) & 0xFFFF == (stored + sum(field) - 8 * 32 + 1) % 65521 and 0 < stored < 512 * 256:
        return
    total = sum(block) - sum(field) + 8 * 32
    if stored != total:
        high = sum(byte > 127 for byte in block) - sum(byte > 127 for byte in field)
        if stored != total - 256 * high:
            raise broken("a header's checksum is wrong")


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split an extended header into its records "length key=value\\n", in order."""
    found = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 21)
        if space <= at:
            raise broken("an extended header's record has no length")
        end = at + decimal(data[at:space], "a record's length")
        equals = data.find(b"=", space, end)
        if end > len(data) or equals <= space + 1 or data[end - 1 : end] != b"\n":
            raise broken("an extended header's record has a wrong length")
        found.append((data[space + 1 : equals], data[equals + 1 : end - 1]))
        at = end
    return found


def check_extents(extents: list[tuple[int, int]], size: int, stored: int, path: bytes) -> list[tuple[int, int]]:
    """Return the non-empty extents of a sparse file after checking order, end and total."""
    at = total = 0
    for offset, length in extents:
        if offset < at or length < 0 or offset + length > size:
            raise broken("a sparse file's map is wrong", path)
        at = offset + length
        total += length
    if total != stored:
        raise broken("a sparse file's map does not fit its data", path)
    return [extent for extent in extents if extent[1]]


def sparse_entries(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    """Read GNU's old-style map entries until the first empty one."""
    found = []
    for at in range(start, start + count * _SPARSE_ENTRY, _SPARSE_ENTRY):
        if not block[at]:
            break
        found.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))
    return found


def pairs(numbers: list[bytes]) -> list[tuple[int, int]]:
    """Make extents of decimal numbers that alternate offset and length."""
    if len(numbers) % 2:
        raise broken("a sparse file's map is cut")
    values = [decimal(text, "a sparse file's map") for text in numbers]
    return list(zip(values[::2], values[1::2], strict=True))
