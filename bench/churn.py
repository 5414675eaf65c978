"""Run and remove many containers, and see that nothing is left: descriptors, mounts, cgroups, memory, disk; and that
the last are as fast as the first. `bench/churn.py --count 10000` is the full one.
"""

from __future__ import annotations

import os
import sys
import time

import place
from peers import IMAGE, Sampan
from stage import Stage, arguments, stage

COUNT = 500
WARM = 50


def report(stage: Stage, count: int = COUNT) -> str:
    """Run `count` containers by one Python process and return what changed."""
    peer = stage.peers.get("sampan")
    if not isinstance(peer, Sampan):
        return "churn: sampan is not there"
    from sampan import Engine

    engine = Engine(peer.root)

    def run() -> float:
        begun = time.perf_counter()
        result = engine.run(IMAGE, ["true"], network="none")
        if result.exit_code:
            raise RuntimeError(f"exit {result.exit_code}: {result.stderr!r}")
        return time.perf_counter() - begun

    for _ in range(WARM):
        run()
    before = state(peer.root)
    seconds = [run() for _ in range(count)]
    after = state(peer.root)
    engine.close()
    lines = [f"{count} times run and removed by one Python process, after {WARM} that do not count"]
    lines.append(f"  {'what':<34} {'before':>12} {'after':>12} {'change':>12}")
    for name, value in before.items():
        lines.append(f"  {name:<34} {value:>12} {after[name]:>12} {after[name] - value:>+12}")
    share = max(1, count // 10)
    first, last = (sorted(part)[len(part) // 2] * 1000 for part in (seconds[:share], seconds[-share:]))
    lines.append(f"  median of the first and last {share:<6} {first:>9.2f} ms {last:>9.2f} ms {last / first:>10.2f} x")
    return "\n".join(lines)


def state(root: str) -> dict[str, int]:
    """Count what could be left behind, of this process and of the host; sizes in KiB."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        mounts = len(file.readlines())
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "children": len(children()),
        "mounts": mounts,
        "cgroups": cgroups(),
        "containers' directories": len(os.listdir(f"{root}/containers")),
        "files and directories of the store": sum(len(a) + len(b) for _, a, b in os.walk(root)),
        "memory of this process, KiB": resident,
        "disk of the store, KiB": disk(root) - disk(f"{root}/events"),
        "its events, kept for a day, KiB": disk(f"{root}/events"),
    }


def children() -> list[str]:
    """Return the children of this process that were not collected."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()


def cgroups() -> int:
    """Count the groups that sampan made, in every hierarchy."""
    return sum(name.startswith("sampan-") for _, names, _ in os.walk("/sys/fs/cgroup") for name in names)


def disk(root: str) -> int:
    """Return the blocks that the files of a directory have, in KiB."""
    total = 0
    for directory, _, names in os.walk(root):
        for name in names:
            total += os.lstat(os.path.join(directory, name)).st_blocks // 2
    return total


def main() -> int:
    """Run alone, with --count."""
    options = arguments(("sampan",), __doc__, count=COUNT)
    place.enter()
    with stage(["sampan"], options.runs, options.on) as made:
        print(report(made, options.count), flush=True)
        return 0 if "sampan" in made.peers else 1


if __name__ == "__main__":
    sys.exit(main())
