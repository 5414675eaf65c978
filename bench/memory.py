"""Measure the memory that stays while a detached container runs: PSS of the host's processes that watch over it.

A process counts if it appeared with the containers and is in our own process namespace (those of the containers are
not). What runs without any container (a daemon) is given apart.
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


def host_processes() -> dict[int, str]:
    """Return the processes in our own process namespace, with their names."""
    ours = os.readlink("/proc/self/ns/pid")
    found = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == ours:
                with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                    found[int(entry)] = file.read().strip()
        except OSError:
            continue  # it ended, or belongs to another user
    return found


def pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def watch(peer: CommandLine) -> str:
    """Start containers, and return the line of the table."""
    before = host_processes()
    names = [f"sampan-bench-memory{number}" for number in range(COUNT)]
    for name in names:
        peer.create(name, ["sleep", "1000"])
        peer.command(peer.program, "start", name)
    time.sleep(SETTLE_SECONDS)
    added = {pid: name for pid, name in host_processes().items() if pid not in before}
    each = sum(pss(pid) for pid in added) / COUNT / 1024
    daemons = {pid: name for pid, name in before.items() if name in DAEMONS} if peer.name == "docker" else {}
    fixed = sum(pss(pid) for pid in daemons) / 1024
    for name in names:
        peer.command(peer.program, "rm", "--force", name)
    watchers = ", ".join(sorted(set(added.values()))) or "nothing"
    return f"  {peer.name:<34} {each:>10.0f} KiB {fixed:>10.0f} KiB   {watchers}"


def report(stage: Stage) -> str:
    """Measure and return the table."""
    lines = [f"memory beside {COUNT} sleeping containers (PSS)"]
    lines.append(f"  {'case':<34} {'each':>14} {'daemon':>14}   processes per container")
    lines += [watch(peer) for peer in stage.peers.values() if isinstance(peer, CommandLine)]
    lines += [f"  {name:<34} not measured: {reason}" for name, reason in stage.without(NAMES).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
