"""Whether a weight of block IO changes anything: the kernel takes one also where no disk is shared out by weights.

Two parts of the kernel know weights (cgroup-v2.rst, "IO Interface Files"; bfq-iosched.rst): the scheduler bfq, for the
disks that it is chosen for, and the cost model, for the disks that it is turned on for in io.cost.qos of the root
group. A group has either's file as soon as the kernel has the part, and most hosts use neither. This is looked at for a
container with a weight only.
"""

from __future__ import annotations

import os

from sampan.runtime.cgrouphost import read

LACK = "no disk is shared out by weights: none has the scheduler bfq, and io.cost.qos turns none on"
REMEDY = "choose it for a disk (echo bfq >/sys/block/DISK/queue/scheduler), or leave out {}"


def biting(choices: list[tuple[str, str]], v2_mount: str, sys: str = "/sys") -> list[tuple[str, str]]:
    """Keep what makes a difference of a `--blkio-weight` (a number) or `--blkio-weight-device` (device and number)."""
    return [(name, value) for name, value in choices if _bites(name, value, v2_mount, sys)]


def _bites(name: str, value: str, v2_mount: str, sys: str) -> bool:
    device = value.split()[0] if ":" in value else ""
    if "bfq" in name:
        return any("[bfq]" in _text(path) for path in _schedulers(device, sys))
    if name != "io.weight":
        return True  # blkio.weight of kernels with CFQ, of which there is a file only where it is in use
    lines = [line.split() for line in _text(f"{v2_mount}/io.cost.qos").splitlines()]
    return any("enable=1" in words and device in ("", words[0]) for words in lines)


def _schedulers(device: str, sys: str) -> list[str]:
    names = [device] if device else sorted(_listed(f"{sys}/block"))
    directory = f"{sys}/dev/block" if device else f"{sys}/block"
    return [f"{directory}/{name}/queue/scheduler" for name in names]


def _text(path: str) -> str:
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):  # a part of a disk has no scheduler of its own
        return ""


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
