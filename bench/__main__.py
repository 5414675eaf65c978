"""Every published figure: `python -m bench [--runs N] [--peers …]`, all cases on one stage."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import churn  # noqa: E402
import exec  # noqa: E402
import inprocess  # noqa: E402
import lifecycle  # noqa: E402
import many  # noqa: E402
import memory  # noqa: E402
import move  # noqa: E402
import place  # noqa: E402
import rebuild  # noqa: E402
import run  # noqa: E402
from stage import PEERS, arguments, stage  # noqa: E402


def main() -> int:
    """Measure all; fail if sampan itself could not be measured."""
    options = arguments(PEERS, __doc__)
    place.enter()
    with stage(options.peers, options.runs, options.on) as made:
        for case in (run, inprocess, lifecycle, exec, rebuild, memory, churn, many, move):
            print(f"\n{case.report(made)}", flush=True)
        return 0 if "sampan" in made.peers else 1


if __name__ == "__main__":
    sys.exit(main())
