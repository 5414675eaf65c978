"""Measure `exec` of `true` in a running container: the whole command beside podman's and docker's, and the call of a
running Python program beside `crun exec` and `runc exec` spawned by the same program.
"""

from __future__ import annotations

import os
import sys

from harness import Case, measure, run_command, table
from peers import CommandLine, Runtime, Sampan
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker", "crun", "runc")
NAME = "sampan-bench-exec"
PROGRAM = ["sleep", "1000"]


def report(stage: Stage) -> str:
    """Measure and return two tables."""
    commands, calls = [], []
    for peer in stage.peers.values():
        if isinstance(peer, CommandLine):
            peer.command(*peer.detached(NAME, PROGRAM))
            commands.append(Case(peer.name, [peer.program, "exec", NAME, "true"], env=peer.env))
        if isinstance(peer, Sampan):
            calls.append(called(peer))
        if isinstance(peer, Runtime):
            peer.start(PROGRAM)
            calls.append(spawned(peer))
    missing = stage.without(NAMES)
    whole = {name: why for name, why in missing.items() if name in ("sampan", "podman", "docker")}
    inside = {name: why for name, why in missing.items() if name in ("sampan", "crun", "runc")}
    text = [table("exec of `true`, whole command", measure(commands, stage.runs), "sampan", whole)]
    results = measure(calls, stage.runs * 2)
    text.append(table("exec of `true` from a running Python program", results, "sampan", inside))
    for peer in stage.peers.values():
        if isinstance(peer, CommandLine):
            peer.command(peer.program, "rm", "--force", NAME)
        if isinstance(peer, Runtime):
            peer.stop()
    return "\n".join(text)


def called(peer: Sampan) -> Case:
    """Return the case of the engine in this program."""
    from sampan import Engine

    engine = Engine(peer.root)

    def run() -> None:
        code = engine.containers.exec(NAME, ["true"])
        if code:
            raise RuntimeError(f"exit {code}")

    return Case(peer.name, call=run)


def spawned(peer: Runtime) -> Case:
    """Return the case of a runtime that this program starts as a child."""
    argv = peer.exec(["true"])
    return Case(peer.name, call=lambda: run_command(argv, dict(os.environ)))


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
