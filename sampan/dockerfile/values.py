"""Small values that instructions carry: durations, ports, signals, booleans, sizes and octal modes.

Faults are ValueError with the reason; the caller knows the line.
"""

from __future__ import annotations

import _signal

from sampan.dockerfile.located import shown

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MOST = (1 << 63) - 1
_DIGITS = "0123456789"
_PROTOCOLS = ("tcp", "udp", "sctp")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def duration(text: str) -> int:
    """Read a duration as Go's time.ParseDuration does (`1h30m`, `1.5s`, `0`); return nanoseconds."""
    rest = text.removeprefix("-").removeprefix("+") if text[:2] not in ("-+", "+-") else text
    if rest == "0":
        return 0
    total = 0
    if not rest:
        raise ValueError(f"invalid duration {shown(text)}")
    while rest:
        amount, rest = _span(rest, _DIGITS + ".")
        unit, rest = _unit(rest)
        whole, _, fraction = amount.partition(".")
        if unit not in _UNITS or not whole + fraction or "." in fraction or len(amount) > 40:
            raise ValueError(f"invalid duration {shown(text)}: write it as 30s, 1m30s or 500ms")
        total += int(whole or "0") * _UNITS[unit] + int(fraction or "0") * _UNITS[unit] // 10 ** len(fraction)
    if total > _MOST:
        raise ValueError(f"invalid duration {shown(text)}: it is too long")
    return -total if text.startswith("-") else total


def _span(text: str, letters: str) -> tuple[str, str]:
    rest = text.lstrip(letters)
    return text[: len(text) - len(rest)], rest


def _unit(text: str) -> tuple[str, str]:
    at = 0
    while at < len(text) and text[at] not in _DIGITS + ".":
        at += 1
    return text[:at], text[at:]


def interval(text: str, name: str) -> int:
    """Read a health-check interval: at least a millisecond, or 0 for the default."""
    value = duration(text)
    if value and value < _UNITS["ms"]:
        raise ValueError(f"--{name} cannot be less than 1ms, not {shown(text)}")
    return value


def natural(text: str, base: int = 10, most: int = 0xFFFFFFFF) -> int:
    """Read digits of base 8 or 10, nothing else, up to most."""
    digits = _DIGITS[:base]
    if not text or len(text) > 20 or text.strip(digits) or int(text, base) > most:
        raise ValueError(f"invalid value {shown(text)}")
    return int(text, base)


def boolean(text: str) -> bool:
    """Read a boolean as Go's strconv.ParseBool does."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"invalid value {shown(text)}: it is either true or false")


def size(text: str) -> int:
    """Read a size with a binary suffix (`64m`, `1.5GiB`, `1024`); return bytes."""
    bare = text.strip().lower().removesuffix("b").removesuffix("i")
    power = "kmgtp".find(bare[-1:]) + 1 if bare else 0
    whole, dot, fraction = (bare[:-1] if power else bare).strip().partition(".")
    digits = whole + fraction
    if not whole or len(digits) > 20 or digits.strip(_DIGITS) or (dot and not fraction):
        raise ValueError(f"invalid size {shown(text)}")
    return (int(digits) << (10 * power)) // int(10 ** len(fraction))


def ports(word: str) -> list[str]:
    """Return what one word of EXPOSE exposes, as `port/protocol`: a port, or a range of them."""
    low, high, protocol = port_range(word)
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def port_range(word: str) -> tuple[int, int, str]:
    """Read one word of EXPOSE: the first port, the last one and the protocol."""
    numbers, slash, protocol = word.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"cannot expose {shown(word)}: the protocol is one of {', '.join(_PROTOCOLS)}")
    # Docker accepts an address and a host port before the container's, and ignores both.
    first, dash, last = numbers.rpartition(":")[2].partition("-")
    try:
        low = natural(first, most=65535)
        high = natural(last, most=65535) if dash else low
    except ValueError:
        raise ValueError(f"cannot expose {shown(word)}: a port is a number up to 65535") from None
    if high < low:
        raise ValueError(f"cannot expose {shown(word)}: the range is the wrong way round")
    return low, high, protocol


def check_signal(text: str) -> None:
    """Refuse what is neither a signal's number nor its name, with or without SIG and in any case."""
    if text.isascii() and text.isdigit():
        if len(text) < 4 and 0 < int(text) <= 64:
            return
    else:
        name = text.upper().removeprefix("SIG")
        base, sign, offset = name.partition("+" if name.startswith("RTMIN") else "-")
        if base in ("RTMIN", "RTMAX"):
            if not sign or (offset.isascii() and offset.isdigit() and len(offset) < 3 and int(offset) <= 15):
                return
        elif name and not name.startswith("_") and isinstance(getattr(_signal, "SIG" + name, None), int):
            return
    raise ValueError(f"invalid signal {shown(text)}")
