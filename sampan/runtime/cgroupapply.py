"""Limits on a container's groups: choose a controller for each, turn it on, write, and read back.

Nothing is ignored: what no controller here can do, what the kernel refuses and what it changes is NotSupported, with
the name of the flag to leave out.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import Conflict, NotSupported, SampanError
from sampan.runtime.cgrouphost import PARENT, Layout, Placement, read, write
from sampan.runtime.limits import V1_NAMES, Setting, holds, parse_set, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Chosen = list[tuple[Setting, str]]  # each with the v1 controller that it is written to, or "" for v2


def choose(limits: dict[str, Any], layout: Layout) -> Chosen:
    """Return the settings to apply with the version to apply each on; refuse those that no controller here can."""
    chosen: Chosen = []
    for setting in settings(limits, v2=True):
        if setting.controller in layout.v2_controllers():
            chosen.append((setting, ""))
        elif V1_NAMES.get(setting.controller, setting.controller) not in layout.v1:
            raise _refused(setting, _missing(setting, layout), _remedy(layout))
    for setting in settings(limits, v2=False):
        controller = V1_NAMES.get(setting.controller, setting.controller)
        if setting.controller not in layout.v2_controllers() and controller in layout.v1:
            chosen.append((setting, controller))
    for setting, _ in chosen:
        if not setting.choices:
            raise _refused(setting, setting.lack)
        if setting.flag.startswith("--blkio-weight"):
            _narrow(setting, layout)
    return chosen


def _narrow(setting: Setting, layout: Layout) -> None:
    from sampan.runtime import ioweight

    setting.choices = ioweight.biting(setting.choices, layout.v2_mount)
    if not setting.choices:
        raise _refused(setting, ioweight.LACK, ioweight.REMEDY.format(setting.flag))


def _missing(setting: Setting, layout: Layout) -> str:
    if layout.version == "hybrid" and not layout.v1:
        return f"the {setting.controller} controller is on cgroup v1, which is not open to ordinary users"
    if layout.version in ("v1", "none") or layout.why:
        return f"no {setting.controller} controller can be used: {layout.why}"
    return f"the {setting.controller} controller is not available below {layout.v2_base}"


def _remedy(layout: Layout) -> str:
    """Return what gives an ordinary user a group where systemd is in charge, as after a plain login; else ""."""
    if layout.version == "v2" and not layout.v2_base and os.geteuid() and os.path.isdir("/run/systemd/system"):
        return "have a group of your own: systemd-run --user --scope -p Delegate=yes sampan ..."
    return ""


def _refused(setting: Setting, why: str, remedy: str = "") -> NotSupported:
    return NotSupported(
        f"cannot apply limit {setting.flag}: {why}",
        remedy or f"leave out {setting.flag}, or see `sampan doctor` for what this host lacks",
    )


def enable(layout: Layout, chosen: Chosen) -> None:
    """Turn controllers on for the groups below `v2_base` and below our parent in it."""
    parent = f"{layout.v2_base}/{PARENT}"
    os.makedirs(parent, 0o755, exist_ok=True)
    needed = {setting.controller: setting for setting, v1 in chosen if not v1}
    if "io" in needed and "memory" in layout.v2_controllers():  # else no one is charged for what the page cache writes
        needed.setdefault("memory", needed["io"])  # cgroup-v2.rst, "Writeback"
    for directory in (layout.v2_base, parent):
        lacking = set(needed) - set(read(f"{directory}/cgroup.subtree_control").split())
        for controller in sorted(lacking):
            try:
                write(f"{directory}/cgroup.subtree_control", f"+{controller}")
            except OSError as error:
                why = error.strerror or str(error)
                if error.errno == errno.EBUSY:  # cgroup-v2.rst, "No Internal Process Constraint"
                    why = f"processes are in {directory} itself: start sampan in a group of its own"
                raise _refused(needed[controller], f"the {controller} controller cannot be enabled ({why})") from error


def apply(placement: Placement, chosen: Chosen, note: Callable[[str], None] | None = None) -> None:
    """Write every setting and see that it holds; `note` is told each file before it is written."""
    pending = list(chosen)
    deferred: set[int] = set()
    while pending:
        setting, v1 = pending.pop(0)
        directory = placement.v1[v1] if v1 else placement.v2_dir
        path, value = _file_for(directory, setting)
        if not path:
            continue
        if setting.controller == "cpuset":
            _check_set(setting, directory, value)
        if note is not None:
            note(path)
        try:
            write(path, value)
        except OSError as error:
            again = error.errno == errno.EINVAL and setting.controller == "memory" and id(setting) not in deferred
            if again and pending:  # v1 wants limit <= memsw at every moment: the other may have to go first
                deferred.add(id(setting))
                pending.insert(1, (setting, v1))
                continue
            raise _failed(setting, path, value, error) from error
        shown = read(path)
        if not holds(setting, value, shown):
            name = os.path.basename(path)
            raise _refused(setting, f"{name} shows {shown.strip()!r} after writing {value!r}")


def _check_set(setting: Setting, directory: str, value: str) -> None:
    """Refuse processors or memory nodes that the groups above do not have: the kernel says less, or on v2 nothing."""
    key = setting.choices[0][0].partition(".")[2]
    names = (f"cpuset.{key}.effective", f"cpuset.effective_{key}")  # v2, v1
    above = os.path.dirname(directory)
    path = next((f"{above}/{name}" for name in names if os.path.exists(f"{above}/{name}")), "")
    there = read(path).strip() if path else ""
    lacking = parse_set(value) - parse_set(there) if there else ()
    if lacking:
        what = "CPU" if key == "cpus" else "memory node"
        raise NotSupported(
            f"cannot apply limit {setting.flag}: there is no {what} {min(lacking)} here",
            f"{setting.flag} takes numbers of {there} here",
        )


def _failed(setting: Setting, path: str, value: str, error: OSError) -> SampanError:
    if error.errno == errno.EBUSY and setting.controller == "memory":  # memory.rst of cgroup v1, section 6
        return Conflict(
            f"cannot apply limit {setting.flag}: the container uses more than {value} bytes",
            "give it more, or end some of its processes first",
        )
    return _refused(setting, f"writing {value!r} to {os.path.basename(path)} failed: {error.strerror}")


def _file_for(directory: str, setting: Setting) -> tuple[str, str]:
    for name, value in setting.choices:
        path = f"{directory}/{name}"
        if os.path.exists(path):
            return path, value
    name, value = setting.choices[0]
    if "memsw" in name or "swap" in name:
        if value in ("max", "-1"):
            return "", value  # no limit of swap is what there is without the file
        remedy = "--memory-swap -1 gives the limit of swap up"
        raise _refused(setting, f"this kernel has no {name}: boot with swapaccount=1", remedy)
    raise _refused(setting, f"this kernel has no {name}")
