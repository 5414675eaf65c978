"""Measure a whole run of `true`: `sampan run --rm --network none IMAGE true` beside its peers."""

from __future__ import annotations

import argparse
import sys

import place
from harness import Case, machine, measure, table
from peers import close_peers, open_peers
from rootfs import rootfs_tar

PEERS = ("sampan", "podman", "docker", "crun", "runc", "bwrap")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--peers", nargs="*", default=PEERS)
    options = parser.parse_args()
    place.enter()
    with place.quiet() as top:
        peers, missing = open_peers(options.peers, top, rootfs_tar(top))
        try:
            cases = [Case(peer.name, peer.run(["true"]), env=peer.env) for peer in peers]
            print(machine(), place.describe(top), *(f"{peer.name}: {peer.version}" for peer in peers), sep="\n")
            print(table("run --rm of `true`, start to exit", measure(cases, options.runs), "sampan", missing))
        finally:
            close_peers(peers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
