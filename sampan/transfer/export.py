"""A container's whole file system as a tar: what the helper packs of the merged root."""

from __future__ import annotations

from contextlib import closing

from sampan.runtime import rootfs as roots
from sampan.runtime import tree
from sampan.transfer.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.compile import Facts
    from sampan.runtime.rootfs import Rootfs


def export_tar(facts: Facts, rootfs: Rootfs, out_fd: int) -> int:
    """Write the files of a root as a tar to a descriptor, and give the archive's size."""
    with closing(roots.packed(facts, rootfs, tree.ONE_FILE_SYSTEM)) as entries:
        return tree.entries_to_tar(entries, lambda data: write_all(out_fd, data))
