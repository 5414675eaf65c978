"""Measure the memory that stays while a detached container runs: PSS of the host's processes that watch over it.

Those are the ancestors of the container's first process that appeared with it. What runs without any container (a
daemon) is given apart.
"""

from __future__ import annotations

import os
import sys
import time

from peers import CommandLine
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker")
COUNT = 5
SETTLE_SECONDS = 1.0
DAEMONS = ("dockerd", "containerd")


def processes() -> dict[int, str]:
    """Return all processes with their names."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found[int(entry)] = read(f"/proc/{entry}/comm").strip()
    return found


def read(path: str) -> str:
    """Return a file of /proc, or "" if its process has ended meanwhile."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def watchers(before: dict[int, str], program: list[str]) -> dict[int, str]:
    """Return the processes above those that run `program`, as far as they are not in `before`."""
    found: dict[int, str] = {}
    after = processes()
    for pid in after:
        if read(f"/proc/{pid}/cmdline").split("\0")[:-1] != program:
            continue
        parent = parent_of(pid)
        while parent in after and parent not in before:
            found[parent] = after[parent]
            parent = parent_of(parent)
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 if it has ended."""
    words = [line.split()[1] for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("PPid:")]
    return int(words[0]) if words else 0


def pss(pid: int) -> int:
    """Return the proportional set size of a process in KiB."""
    lines = read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def watch(peer: CommandLine) -> str:
    """Start containers, and return the line of the table."""
    before = processes()
    names = [f"sampan-bench-memory{number}" for number in range(COUNT)]
    # A number of seconds that no other program of this machine sleeps.
    program = ["sleep", str(1_000_000 + os.getpid())]
    for name in names:
        peer.create(name, program)
        peer.command(peer.program, "start", name)
    time.sleep(SETTLE_SECONDS)
    found = watchers(before, program)
    each = sum(map(pss, found)) / COUNT
    daemons = [pid for pid, name in before.items() if name in DAEMONS] if peer.name == "docker" else []
    fixed = sum(map(pss, daemons))
    for name in names:
        peer.command(peer.program, "rm", "--force", name)
    kinds = ", ".join(sorted(set(found.values()))) or "none found"
    return f"  {peer.name:<34} {each:>10.0f} KiB {fixed:>10.0f} KiB   {len(found)} x {kinds}"


def report(stage: Stage) -> str:
    """Measure and return the table."""
    lines = [f"memory beside {COUNT} sleeping containers (PSS)"]
    lines.append(f"  {'case':<34} {'each':>14} {'daemon':>14}   processes")
    lines += [watch(peer) for peer in stage.peers.values() if isinstance(peer, CommandLine)]
    lines += [f"  {name:<34} not measured: {reason}" for name, reason in stage.without(NAMES).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
