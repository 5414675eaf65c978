"""What keeps the host's devices from root's containers where no control group can: none is there, or all are read-only.

Docker's default lets a container make any device node and relies on its control group to refuse the opening. Without
one the container may not make any (CAP_MKNOD), and no node of an image or a volume can be opened (mounts are `nodev`):
those of its /dev are left, which are the usual ones and what --device named. An ordinary user's containers need none of
this: a user namespace makes no device.
"""

from __future__ import annotations

from sampan.errors import NotSupported
from sampan.oci.options import ALLOW_ALL
from sampan.runtime import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.compile import Facts


def apply(spec: dict[str, Any], facts: Facts) -> None:
    """Note in the facts that devices are to be kept away; NotSupported for what could not be kept away from them."""
    if (spec["linux"].get("resources") or {}).get("devices") == ALLOW_ALL:
        return
    why = f"no control group can be made ({cgroup.detect().why or 'the devices controller is not mounted'})"
    hint = "mount the host's control groups at /sys/fs/cgroup, or use --privileged, which gives all devices"
    if "CAP_SYS_ADMIN" in (spec["process"].get("capabilities") or {}).get("bounding", []):
        raise NotSupported(f"cannot keep the host's devices from a container with CAP_SYS_ADMIN: {why}", hint)
    for device in spec["linux"].get("devices") or ():
        if not {"r", "w"} <= set(device["sampan.access"]):
            what = f"narrow access to {device['path']} to {device['sampan.access']!r}"
            raise NotSupported(f"cannot {what}: {why}", hint)
    facts.nodev = True
