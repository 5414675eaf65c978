"""Files as disks: loop devices that are found again, mounts that end, and no disk that outlives its file.

A file system is not gone when its mount is: whoever had a mount namespace of its own (a container's supervisor, say)
keeps it, and with it the loop device. A file that is written anew below such a device would be shown as the old one, so
`mounted` waits until the device has let go.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60.0  # seconds, beside much other work


class Unmountable(Exception):
    """The kernel refuses what is on a disk."""


def attach(image: Path) -> str:
    """Give a loop device of a file; others may take the same free one first (loop(4), LOOP_CTL_GET_FREE)."""
    said = ""
    for _ in range(20):
        done = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
        said = done.stderr.strip()
        time.sleep(0.1)
    raise RuntimeError(f"no loop device for {image}: {said}")


def detach(device: str) -> None:
    """Let go of a device now, or when its last user does."""
    subprocess.run(["losetup", "--detach", device], check=True, capture_output=True)


def is_attached(device: str, image: Path) -> bool:
    try:
        file = Path(f"/sys/block/{os.path.basename(device)}/loop/backing_file").read_text().rstrip("\n")
    except OSError:
        return False
    return file.removesuffix(" (deleted)") == str(image.resolve())


@contextmanager
def mounted(image: Path, point: Path, options: str = "", kind: str = "ext4") -> Iterator[Path]:
    """Mount a file; at the end it is on no device any more. Raises Unmountable."""
    point.mkdir(exist_ok=True)
    device = attach(image)
    words = ["mount", "-t", kind, *(["-o", options] if options else []), device, str(point)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    detach(device)  # at once when that failed, else when it is unmounted, also if this process is killed
    if done.returncode:
        raise Unmountable(done.stderr.strip())
    try:
        yield point
    finally:
        unmount(point)
        until(lambda: not is_attached(device, image), lambda: f"{device} still has {image}: who has it mounted?")


def unmount(point: Path) -> None:
    """Unmount, once what ended there has let go of it."""
    said = [""]

    def is_done() -> bool:
        done = subprocess.run(["umount", str(point)], capture_output=True, text=True, check=False)
        said[0] = done.stderr.strip()
        return done.returncode == 0

    until(is_done, lambda: f"cannot unmount {point}: {said[0]}")


def until(is_so: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise())
        time.sleep(0.01)
