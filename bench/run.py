"""Measure a whole run of `true`: `sampan run --rm --network none IMAGE true` beside its peers."""

from __future__ import annotations

import sys

from harness import Case, measure, table
from stage import PEERS, Stage, alone


def report(stage: Stage) -> str:
    """Measure and return the table."""
    cases = [Case(peer.name, peer.run(["true"]), env=peer.env) for peer in stage.peers.values()]
    return table("run --rm of `true`, start to exit", measure(cases, stage.runs), "sampan", stage.without(PEERS))


if __name__ == "__main__":
    sys.exit(alone(report, PEERS, __doc__))
