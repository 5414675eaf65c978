"""What every case needs: a quiet place, the peers set up in it, the number of runs; and how a case is run alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import place
from harness import machine
from peers import Peer, close_peers, open_peers
from rootfs import rootfs_tar

PEERS = ("sampan", "podman", "docker", "crun", "runc", "bwrap")


@dataclass
class Stage:
    """The peers that work here, why the others do not, and how often to run."""

    top: str
    peers: dict[str, Peer]
    missing: dict[str, str]
    runs: int

    def without(self, names: Sequence[str]) -> dict[str, str]:
        """Return those of `names` that cannot be measured, with the reason."""
        return {name: self.missing.get(name, "not asked for") for name in names if name not in self.peers}


@contextmanager
def stage(names: Sequence[str], runs: int, on: str | None = None) -> Iterator[Stage]:
    """Set up the peers, say on what machine, and end them afterwards; call place.enter() first."""
    with place.quiet(on) as top:
        peers, missing = open_peers(names, top, rootfs_tar(top))
        try:
            print(machine(), place.describe(top), *(f"{peer.name}: {peer.version}" for peer in peers), sep="\n")
            yield Stage(top, {peer.name: peer for peer in peers}, missing, runs)
        finally:
            close_peers(peers)


def arguments(names: Sequence[str], text: str | None, count: int = 0) -> argparse.Namespace:
    """Parse --runs, --peers, --on, and --count where there is a default for it."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--runs", type=int, default=20, help="runs of each case in each rhythm")
    parser.add_argument("--peers", nargs="*", default=list(names), choices=names, help="which engines to measure")
    parser.add_argument("--on", metavar="DIRECTORY", help="measure on its file system, not on an ext4 in memory")
    if count:
        parser.add_argument("--count", type=int, default=count, help="how many containers")
    return parser.parse_args()


def alone(report: Callable[[Stage], str], names: Sequence[str], text: str | None) -> int:
    """Run one case as a program; fail if sampan itself could not be measured."""
    options = arguments(names, text)
    place.enter()
    with stage(options.peers, options.runs, options.on) as made:
        print(report(made), flush=True)
        return 0 if "sampan" in made.peers or "sampan" not in options.peers else 1
