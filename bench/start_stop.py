"""Measure `start` and `stop` of a created container whose program ends itself on SIGTERM."""

from __future__ import annotations

import sys

from harness import Case, measure, run_command, table
from peers import CommandLine
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker")
NAME = "sampan-bench-service"
# A shell waits for a foreground child before it runs its trap; `wait` is interrupted at once.
PROGRAM = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


def report(stage: Stage) -> str:
    """Measure both and return two tables."""
    starts, stops = [], []
    for peer in stage.peers.values():
        if isinstance(peer, CommandLine):
            peer.create(NAME, PROGRAM)
            start, stop = pair(peer)
            starts.append(start)
            stops.append(stop)
    missing = stage.without(NAMES)
    text = [table("start of a created container", measure(starts, stage.runs), "sampan", missing)]
    text.append(table("stop of a program that ends on SIGTERM", measure(stops, stage.runs), "sampan", missing))
    for peer in stage.peers.values():
        if isinstance(peer, CommandLine):
            peer.command(peer.program, "rm", "--force", NAME)
    return "\n".join(text)


def pair(peer: CommandLine) -> tuple[Case, Case]:
    """Return the two cases of a peer: each undoes, untimed, what it did."""
    start, stop = [peer.program, "start", NAME], [peer.program, "stop", NAME]
    return (
        Case(peer.name, start, env=peer.env, after=lambda: run_command(stop, peer.env)),
        Case(peer.name, stop, env=peer.env, prepare=lambda: run_command(start, peer.env)),
    )


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
