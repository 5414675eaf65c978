"""A quiet place to measure: a private mount namespace with a fresh ext4 held in memory, or on request a disk as it is.

The ext4 is root's only. The benchmark re-executes itself below `unshare --mount`, so nothing that is (un)mounted here
is seen outside, and all of it goes with the last process. In the namespace of a hybrid host the cgroup2 mount is
taken away: crun 1.8 and podman 4.3 take a host that has both hierarchies for a third kind. An ordinary user measures on
the file system of TMPDIR, and the table says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

INSIDE = "SAMPAN_BENCH_INSIDE"
UNIFIED = "/sys/fs/cgroup/unified"
SIZE = "8G"


def enter() -> None:
    """Re-execute this program in a private mount namespace, once; an ordinary user stays where he is."""
    if os.getuid() or os.environ.get(INSIDE):
        return
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def hide_unified() -> None:
    """Unmount the cgroup2 tree of a hybrid hierarchy in this namespace."""
    if os.environ.get(INSIDE) and os.path.exists(f"{UNIFIED}/cgroup.procs"):
        subprocess.run(["umount", UNIFIED], check=True)


@contextmanager
def quiet(on: str | None = None) -> Iterator[str]:
    """Yield an empty directory on an ext4 in memory (root), or where `on` or TMPDIR says; remove it afterwards."""
    top = tempfile.mkdtemp(prefix="sampan-bench-", dir=on)
    image = ""
    try:
        if not os.getuid() and os.environ.get(INSIDE):
            hide_unified()
            image = "" if on else mount_ext4(top)
        yield top
    finally:
        if image:
            subprocess.run(["umount", "--lazy", top], check=False)
            os.unlink(image)
        shutil.rmtree(top, ignore_errors=True)


def mount_ext4(top: str) -> str:
    """Mount a new ext4 on `top`, its image in /dev/shm, and return the image's path."""
    handle, image = tempfile.mkstemp(prefix="sampan-bench-", suffix=".ext4", dir="/dev/shm")
    os.close(handle)
    try:
        subprocess.run(["truncate", "-s", SIZE, image], check=True)
        # Lazy initialisation would write in the background while we measure.
        options = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, image], check=True)
        subprocess.run(["mount", "-o", "loop", image, top], check=True)
    except (OSError, subprocess.CalledProcessError):
        os.unlink(image)
        raise
    return image


def describe(top: str) -> str:
    """Name the file system that holds `top`."""
    best = ("", "", "")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            device, point, kind = line.split()[:3]
            if (top == point or top.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
                best = (point, kind, device)
    where = "loop device in memory" if best[0] == top else f"{best[2]}, a disk with its own time for every sync"
    return f"file system: {best[1]} ({where})"
