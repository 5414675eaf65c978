"""What is done to a container's groups while it lives: look, freeze, thaw, kill; and what they count.

Killing is certain: on cgroup2 the kernel does it (cgroup.kill, kernel >= 5.14); elsewhere the group is frozen first, so
that nothing forks away. Whatever fails, nothing is left frozen.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.errors import Conflict, NotSupported, Unavailable
from sampan.runtime.cgrouphost import PATIENCE, Placement, read, tree_processes, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_AT_ONCE = 512  # descriptors


def kill(placement: Placement, patience: float = PATIENCE) -> None:
    """Kill every process of the container, also those that fork meanwhile; Conflict if any is left after `patience`."""
    killer = f"{placement.v2_dir}/cgroup.kill"
    if placement.v2_dir and os.path.exists(killer):  # kernel >= 5.14
        try:
            write(killer, "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
        thaw(placement)
    source = placement.v2_dir or placement.v1.get("freezer") or next(iter(placement.v1.values()), "")
    deadline, pause = time.monotonic() + patience, 0.001
    while source and (left := tree_processes(source)):
        if time.monotonic() >= deadline:
            raise Conflict(
                f"cannot kill processes {' '.join(map(str, left[:8]))} of {source}", "they may wait for a device"
            )
        _kill_all(placement, source)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _kill_all(placement: Placement, source: str) -> None:
    """Freeze, so that nothing forks; signal; thaw, so that the signals arrive. The caller repeats it."""
    still = True
    try:
        freeze(placement, 0.5)
    except (NotSupported, Unavailable):
        still = False
    try:
        _kill_members(lambda: tree_processes(source))
    finally:
        if still:
            thaw(placement)


def _kill_members(members: Callable[[], list[int]]) -> None:
    """Kill what is listed. A pid that has become another process's by then is not in the list any more, or the
    descriptor means the one that is gone.
    """
    from _signal import pidfd_send_signal

    held: dict[int, int] = {}
    try:
        for pid in [pid for pid in members() if pid > 0][:_AT_ONCE]:  # 0: of a pid namespace not seen from here
            try:
                held[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        for pid in members():
            try:
                if pid in held:
                    pidfd_send_signal(held[pid], 9)
            except ProcessLookupError:
                continue
    finally:
        for fd in held.values():
            os.close(fd)


def _freezer(placement: Placement) -> tuple[str, str, str]:
    """Return the file to write, what freezes and what thaws."""
    if placement.v2_dir:
        return f"{placement.v2_dir}/cgroup.freeze", "1", "0"
    if "freezer" in placement.v1:
        return f"{placement.v1['freezer']}/freezer.state", "FROZEN", "THAWED"
    raise NotSupported("cannot pause: the container has neither a cgroup2 group nor a freezer")


def frozen(placement: Placement) -> bool:
    """Say whether every process of the container stands still; a group that is gone holds nobody."""
    try:
        if placement.v2_dir:
            return "frozen 1" in read(f"{placement.v2_dir}/cgroup.events")
        return "freezer" in placement.v1 and read(f"{placement.v1['freezer']}/freezer.state").strip() == "FROZEN"
    except OSError:  # ENOENT, ENODEV: it has just ended
        return False


def freeze(placement: Placement, patience: float = PATIENCE) -> None:
    """Stop every process; Unavailable, and nothing stays frozen, if one does not stop in time."""
    path, word, _ = _freezer(placement)
    deadline, pause = time.monotonic() + patience, 0.0005
    try:
        write(path, word)
    except OSError as error:
        raise NotSupported(f"cannot freeze {os.path.dirname(path)}: {error.strerror}") from error
    while not frozen(placement):
        if time.monotonic() >= deadline:
            thaw(placement)
            raise Unavailable(f"cannot freeze {os.path.dirname(path)}: a process did not stop in {patience:g} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def thaw(placement: Placement) -> bool:
    """Let every process go on; False when the group is gone, as after the end of a container."""
    path, _, word = _freezer(placement)
    try:
        write(path, word)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # at the opening, at the writing
            return False
        raise
    return True


def release(placement: Placement, freezer: str, pids: list[int]) -> None:
    """Thaw whatever keeps the container's processes `pids` from dying: its own groups, and on version 1 also those that
    it made itself, below them or, with the host's tree in its hands, elsewhere in the tree at `freezer`.

    On cgroup2 a frozen process can be killed; on version 1 it cannot. A group in which others are too is left alone.
    """
    if placement.v2_dir or "freezer" in placement.v1:
        thaw(placement)
    groups = {placement.v1["freezer"]} if "freezer" in placement.v1 else set()
    if freezer:
        groups |= {freezer + path for pid in pids if (path := _freezer_of(pid)) != "/"}
    for group in groups:
        for directory, _, _ in os.walk(group):
            if set(tree_processes(directory)) <= set(pids):
                _thaw_one(directory)


def _freezer_of(pid: int) -> str:
    """Return a process's group in the v1 freezer's tree (proc(5): /proc/PID/cgroup); "/" when it is gone."""
    try:
        lines = [line.split(":", 2) for line in read(f"/proc/{pid}/cgroup").splitlines()]
    except OSError:
        return "/"
    return next((path for _, names, path in lines if "freezer" in names.split(",")), "/")


def _thaw_one(directory: str) -> None:
    try:
        write(f"{directory}/freezer.state", "THAWED")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def oom_kills(placement: Placement) -> int:
    """Return how many processes of the container the kernel killed for lack of memory below its limit."""
    if placement.v2_dir and os.path.exists(f"{placement.v2_dir}/memory.events"):
        return _keyed(read(f"{placement.v2_dir}/memory.events")).get("oom_kill", 0)
    top = placement.v1.get("memory", "")
    # v1 counts in the group of the victim alone, so those below are added.
    paths = [path for path, _, _ in os.walk(top)] if top else []
    return sum([_keyed(read(f"{path}/memory.oom_control")).get("oom_kill", 0) for path in paths])


def _keyed(text: str) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) == 2}
