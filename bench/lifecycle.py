"""Measure a container's life, each step a whole command: `run -d`, `start`, `stop` of what ends on SIGTERM, `rm`."""

from __future__ import annotations

import sys

from harness import Case, measure, run_command, table
from peers import CommandLine
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker")
NAME = "sampan-bench-service"
FRESH = "sampan-bench-fresh"
ENDED = "sampan-bench-ended"
# A shell waits for a foreground child before it runs its trap; `wait` is interrupted at once.
PROGRAM = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


def report(stage: Stage) -> str:
    """Measure all and return four tables."""
    peers = [peer for peer in stage.peers.values() if isinstance(peer, CommandLine)]
    missing = stage.without(NAMES)
    for peer in peers:
        peer.create(NAME, PROGRAM)
    text = [
        table(title, measure([case(peer) for peer in peers], stage.runs), "sampan", missing)
        for title, case in (
            ("run -d", detached),
            ("start of a created container", start),
            ("stop of a program that ends on SIGTERM", stop),
            ("rm of a container that has ended", remove),
        )
    ]
    for peer in peers:
        peer.command(peer.program, "rm", "--force", NAME)
    return "\n".join(text)


def detached(peer: CommandLine) -> Case:
    """Time `run -d`; the container goes untimed."""
    gone = [peer.program, "rm", "--force", FRESH]
    return Case(peer.name, peer.detached(FRESH, PROGRAM), env=peer.env, after=lambda: run_command(gone, peer.env))


def start(peer: CommandLine) -> Case:
    """Time `start`; it is stopped untimed."""
    stopped = [peer.program, "stop", NAME]
    argv = [peer.program, "start", NAME]
    return Case(peer.name, argv, env=peer.env, after=lambda: run_command(stopped, peer.env))


def stop(peer: CommandLine) -> Case:
    """Time `stop`; it is started untimed."""
    started = [peer.program, "start", NAME]
    argv = [peer.program, "stop", NAME]
    return Case(peer.name, argv, env=peer.env, prepare=lambda: run_command(started, peer.env))


def remove(peer: CommandLine) -> Case:
    """Time `rm`; the container is made, and ends, untimed."""

    def ended() -> None:
        run_command(peer.detached(ENDED, ["true"]), peer.env)
        run_command([peer.program, "wait", ENDED], peer.env)

    return Case(peer.name, [peer.program, "rm", ENDED], env=peer.env, prepare=ended)


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
