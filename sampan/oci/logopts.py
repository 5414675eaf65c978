"""Options of logs, as Docker's --log-driver and --log-opt say them. Pure."""

from __future__ import annotations

from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_SIZE, MAX_FILES = 10 << 20, 3
JSON_FILE, NONE = "json-file", "none"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}  # decimal, as Docker takes them for this option
_MOST_FILES = 1000


class LogSettings:
    """Hold whether a log is kept, and how: `max_size` in bytes (0: no limit), `max_files` with the current one."""

    __slots__ = ("kept", "max_files", "max_size")

    def __init__(self, kept: bool = True) -> None:
        self.kept = kept
        self.max_size = MAX_SIZE
        self.max_files = MAX_FILES


def settings(options: Mapping[str, Any]) -> LogSettings:
    """Read `log_driver` and `log_opts` of a container's options; InvalidArgument or NotSupported name what is wrong."""
    driver, asked = options.get("log_driver") or JSON_FILE, options.get("log_opts") or {}
    if driver not in (JSON_FILE, NONE):
        raise NotSupported(
            f"cannot use log driver {driver}: logs are kept as files", "--log-driver json-file or --log-driver none"
        )
    if driver == NONE:
        if asked:
            raise InvalidArgument(f"cannot use log option {min(asked)}: log driver none has no options")
        return LogSettings(False)
    found = LogSettings()
    for key, value in asked.items():
        if key == "max-size":
            found.max_size = _size(value)
        elif key == "max-file":
            found.max_files = _count(value)
        elif (key, value) not in (("compress", "false"), ("mode", "blocking")):
            raise NotSupported(f"cannot use log option {key}={value}", "max-size and max-file are there")
    return found


def _size(text: str) -> int:
    if text == "-1":
        return 0
    word = text.strip().lower().removesuffix("b")
    unit = word[-1:] if word[-1:].isalpha() else ""
    number = word[: len(word) - len(unit)]
    try:
        size = int(float(number) * _UNITS[unit]) if number.isascii() else 0
    except (ValueError, KeyError, OverflowError):
        size = 0
    if not 0 < size < 1 << 62:
        raise InvalidArgument(f"cannot use log option max-size={text}", "a size such as 10m, or -1 for no limit")
    return size


def _count(text: str) -> int:
    count = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if not 1 <= count <= _MOST_FILES:
        raise InvalidArgument(f"cannot use log option max-file={text}", f"a number from 1 to {_MOST_FILES}")
    return count
