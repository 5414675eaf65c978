"""Makes a container's control groups."""

from __future__ import annotations

import os

from sampan.errors import NotSupported
from sampan.runtime.cgroup import remove_group, remove_tree
from sampan.runtime.cgrouphost import Layout, Placement, read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.cgroupapply import Chosen

_device_lines: dict[str, list[tuple[str, str]]] = {}  # of cgroup v1, by the rules that they say
_ENDING = 2.0


def create(name: str, limits: dict[str, Any], rootless: bool, layout: Layout) -> Placement:
    """Make a container's groups, `name` below each base, and apply "linux.resources" to them.

    NotSupported if a limit cannot be applied here; then nothing is left behind. "devices" matter on v1-only hosts,
    where no eBPF program can be attached; elsewhere the launcher attaches one to `v2_dir`.
    """
    if rootless:
        layout = Layout(layout.version, layout.v2_mount, layout.v2_base, {}, layout.why)
    placement = Placement()
    chosen: Chosen = []
    if limits.keys() - {"devices"}:
        from sampan.runtime import cgroupapply

        chosen = cgroupapply.choose(limits, layout)
    try:
        _make(placement, layout, name, chosen)
        if chosen:
            cgroupapply.apply(placement, chosen)
        if not layout.v2_base and limits.get("devices") and "devices" in layout.v1:
            _limit_devices(placement, layout, name, limits["devices"])
    except BaseException:
        for directory in placement.directories():
            remove_group(directory)
        raise
    return placement


def _make(placement: Placement, layout: Layout, name: str, chosen: Chosen) -> None:
    if layout.v2_base:
        if any(not v1 for _, v1 in chosen):
            from sampan.runtime import cgroupapply

            cgroupapply.enable(layout, chosen)
        placement.v2_dir = make_group(layout.v2_base, name)
    wanted = {v1 for _, v1 in chosen if v1}
    if not layout.v2_base and "freezer" in layout.v1:
        wanted.add("freezer")  # without cgroup2, the one way to stop and kill all processes of a container
    for controller in sorted(wanted):
        placement.v1[controller] = make_group(layout.v1[controller], name, controller == "cpuset")


def _unavailable(path: str, error: OSError) -> Exception:
    hint = "`sampan doctor` shows what this user may do with control groups"
    return NotSupported(f"cannot make control group {path}: {error.strerror}", hint)


def make_group(base: str, name: str, cpuset: bool = False) -> str:
    """Make base/sampan/sampan-<id>, and its parent when it is the first."""
    path = f"{base}/{name}"
    try:
        try:
            os.mkdir(path, 0o755)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            os.mkdir(path, 0o755)
    except FileExistsError:
        _renew(path)
    except OSError as error:
        raise _unavailable(path, error) from error
    if cpuset:
        _inherit_cpuset(os.path.dirname(path), base)
        _inherit_cpuset(path, os.path.dirname(path))
    return path


def _renew(path: str) -> None:
    """Replace a group that an earlier run of this container left; Conflict if processes stay in it.

    An `exec` that came when the container ended is in it for a moment, until its end reaches it too.
    """
    remove_tree(path, _ENDING)
    os.mkdir(path, 0o755)


def _inherit_cpuset(path: str, parent: str) -> None:
    """Give a v1 cpuset its parent's values: it starts empty, and takes no process until it has both (cpuset(7))."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{path}/{name}").strip():
            write(f"{path}/{name}", read(f"{parent}/{name}").strip())


def _limit_devices(placement: Placement, layout: Layout, name: str, rules: list[dict[str, Any]]) -> None:
    key = repr(rules)
    if key not in _device_lines:
        from sampan.runtime.devices import v1_lines

        _device_lines[key] = v1_lines(rules)
    directory = placement.v1["devices"] = make_group(layout.v1["devices"], name)
    line, file, fd = "", "", -1
    try:
        for wanted, line in _device_lines[key]:
            if wanted != file:
                if fd >= 0:
                    os.close(fd)
                fd = -1
                file, fd = wanted, os.open(f"{directory}/{wanted}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, line.encode())
    except OSError as error:
        raise NotSupported(f"cannot apply device rule {line!r}: {error.strerror}") from error
    finally:
        if fd >= 0:
            os.close(fd)
