"""The root file system that all cases run: SAMPAN_BENCH_ROOTFS (a tar file), else programs of this host put together
by bootstrap.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def rootfs_tar(top: str) -> str:
    """Return the path of the tar file, making it below `top` where none was given."""
    given = os.environ.get("SAMPAN_BENCH_ROOTFS")
    if given:
        return given
    from sampan.bootstrap.image import layers_for

    path = f"{top}/rootfs.tar"
    with open(path, "wb") as file:
        for chunk in layers_for("host", ["sh", "true", "sleep", "cat", "ls", "mkdir", "touch", "echo"]):
            file.write(chunk)
    return path
