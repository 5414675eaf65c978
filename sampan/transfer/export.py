"""A container's whole file system as a tar: what the helper packs of the merged root."""

from __future__ import annotations

import os

from sampan.runtime import rootfs as roots
from sampan.runtime import tree
from sampan.transfer.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.compile import Facts
    from sampan.runtime.rootfs import Rootfs


def export_tar(facts: Facts, rootfs: Rootfs, out_fd: int) -> int:
    """Write the files of a root as a tar to a descriptor, and give the archive's size."""
    read_fd, request_fd, child = roots.open_pack(facts, rootfs, tree.ONE_FILE_SYSTEM)
    os.close(request_fd)
    try:
        size = tree.entries_to_tar(tree.Packer(read_fd, reason=child.wait), lambda data: write_all(out_fd, data))
    except BaseException:
        os.close(read_fd)
        roots.settle(child)
        raise
    os.close(read_fd)
    child.wait()
    return size
