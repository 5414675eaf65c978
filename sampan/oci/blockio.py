"""Block devices' weights and rates, and rules of the device cgroup, as `linux.resources` of the runtime spec.

Imported only when one of these options is given.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.oci.options import RunOptions

    Look = Callable[[str], os.stat_result]

_RATES = (
    ("device_read_bps", "throttleReadBpsDevice", "--device-read-bps"),
    ("device_write_bps", "throttleWriteBpsDevice", "--device-write-bps"),
    ("device_read_iops", "throttleReadIOPSDevice", "--device-read-iops"),
    ("device_write_iops", "throttleWriteIOPSDevice", "--device-write-iops"),
)
_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def block_io(options: RunOptions, look: Look) -> dict[str, Any]:
    """Return `blockIO`; `look` is os.stat of the host. Raise InvalidArgument, naming the option."""
    found: dict[str, Any] = {}
    weight = options.blkio_weight or 0
    if weight:
        found["weight"] = _weight(weight, "--blkio-weight", str(weight))
    devices = [
        _device(text, "--blkio-weight-device", look, lambda t, o: _weight(_whole(t, o), o, t), "weight")
        for text in options.blkio_weight_device
    ]
    if devices:
        found["weightDevice"] = devices
    for field, key, option in _RATES:
        read = _bytes if field.endswith("bps") else _whole
        rates = [_device(text, option, look, read, "rate") for text in getattr(options, field)]
        if rates:
            found[key] = rates
    return found


def _device(text: str, option: str, look: Look, read: Callable[[str, str], int], key: str) -> dict[str, Any]:
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise InvalidArgument(f"invalid {option} {text[:200]!r}: write /dev/NAME:VALUE")
    try:
        state = look(path)
    except OSError as exc:
        raise InvalidArgument(f"invalid {option} {text[:200]!r}: cannot look at {path}: {exc.strerror}") from exc
    if not stat.S_ISBLK(state.st_mode):
        raise InvalidArgument(f"invalid {option} {text[:200]!r}: {path} is not a block device")
    number = read(value, option)
    return {"major": os.major(state.st_rdev), "minor": os.minor(state.st_rdev), key: number}


def _weight(weight: object, option: str, text: str) -> int:
    if isinstance(weight, bool) or not isinstance(weight, int) or not 10 <= weight <= 1000:
        raise InvalidArgument(f"invalid {option} {text!r}: a weight is between 10 and 1000")
    return weight


def _whole(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) == 0:
        raise InvalidArgument(f"invalid {option}: {text[:30]!r} is not a whole number above 0")
    return int(text)


def _bytes(text: str, option: str) -> int:
    digits = text.lower().rstrip("ib")
    number, unit = (digits[:-1], digits[-1]) if digits[-1:] in ("k", "m", "g", "t") else (digits, "")
    if not number.isascii() or not number.isdigit() or len(number) > 19 or int(number) == 0:
        raise InvalidArgument(
            f"invalid {option}: {text[:30]!r} is not a rate in bytes per second such as 1048576 or 1mb"
        )
    return int(number) << _UNITS[unit]


def rules(words: list[str]) -> list[dict[str, Any]]:
    """Return device cgroup rules of `--device-cgroup-rule` words such as `c 10:200 rwm`."""
    return [_rule(text) for text in words]


def _rule(text: str) -> dict[str, Any]:
    wrong = InvalidArgument(
        f"invalid --device-cgroup-rule {text[:100]!r}", "write TYPE MAJOR:MINOR ACCESS, for example 'c 10:200 rwm'"
    )
    words = text.split(" ")
    if len(words) != 3 or words[0] not in ("a", "b", "c") or not words[2] or not set(words[2]) <= set("rwm"):
        raise wrong
    numbers = words[1].split(":")
    if len(numbers) != 2 or any(n != "*" and not (n.isascii() and n.isdigit() and len(n) < 10) for n in numbers):
        raise wrong
    rule: dict[str, Any] = {"allow": True, "access": words[2]}
    if words[0] != "a":
        rule["type"] = words[0]
    for key, number in zip(("major", "minor"), numbers, strict=True):
        if number != "*":
            rule[key] = int(number)
    return rule
