"""Measure a run of `true` from a running Python program: `Engine.run` beside `crun run` spawned by the same program.

crun gets a bundle that is ready (no image, no writable layer, no record): what it does is part of what the engine does.
"""

from __future__ import annotations

import sys

from harness import Case, measure, run_command, table
from peers import IMAGE, Peer, Sampan
from stage import Stage, alone

NAMES = ("sampan", "crun", "runc", "bwrap")


def report(stage: Stage) -> str:
    """Measure and return the table."""
    cases = []
    sampan = stage.peers.get("sampan")
    if isinstance(sampan, Sampan):
        from sampan import Engine

        engine = Engine(sampan.root)

        def run() -> None:
            result = engine.run(IMAGE, ["true"], network="none")
            if result.exit_code:
                raise RuntimeError(f"exit {result.exit_code}: {result.stderr!r}")

        cases.append(Case("sampan", call=run))
    for name in NAMES[1:]:
        if name in stage.peers:
            cases.append(spawned(stage.peers[name]))
    results = measure(cases, stage.runs * 2)
    return table("run of `true` from a running Python program", results, "sampan", stage.without(NAMES))


def spawned(peer: Peer) -> Case:
    """Return the case of a runtime that this program starts as a child."""
    argv = peer.run(["true"])
    return Case(peer.name, call=lambda: run_command(argv, peer.env))


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
