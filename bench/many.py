"""Measure many containers at once: `ps` with 200, `run` beside 200, 100 runs by one Python process in turn and 8 at a
time, and what 100 idle ones cost: CPU time over a minute, memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from harness import Case, measure, run_command, table
from memory import pss, read
from peers import IMAGE, CommandLine, Sampan
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker")
BESIDE, IDLE, RUNS, AT_ONCE = 200, 100, 100, 8
RUNS_OF_PEERS = 32
IDLE_SECONDS = 60.0


def report(stage: Stage) -> str:
    """Measure and return the tables."""
    peers = [peer for peer in stage.peers.values() if isinstance(peer, CommandLine)]
    ours = [peer for peer in peers if isinstance(peer, Sampan)]
    text = [rates(peers)]
    text += [beside(stage, peer) for peer in ours]
    text.append(listing(stage, peers))
    text += [idle(peer) for peer in ours]
    text += [f"  {name:<34} not measured: {why}" for name, why in stage.without(NAMES).items()]
    return "\n".join(text)


def rates(peers: Sequence[CommandLine]) -> str:
    """Run `true` many times from this process: in turn, and several at a time."""
    title = f"runs of `true` by one Python process, {RUNS} by sampan, {RUNS_OF_PEERS} by others"
    lines = [
        title,
        f"  {'case':<34} {'in turn':>12} {f'{AT_ONCE} at a time':>14}   sampan's rate, in turn and at a time",
    ]
    found: dict[str, tuple[float, float]] = {}
    for peer in peers:
        call, count = runner(peer)
        call()
        found[peer.name] = (rate(call, count, 1), rate(call, count, AT_ONCE))
    unit = found.get("sampan")
    for name, (turn, together) in found.items():
        ratio = f"{unit[0] / turn:.1f} x, {unit[1] / together:.1f} x" if unit else "-"
        lines.append(f"  {name:<34} {turn:>8.1f} a s {together:>10.1f} a s   {ratio}")
    return "\n".join(lines)


def runner(peer: CommandLine) -> tuple[Callable[[], object], int]:
    """Return what runs `true` once, and how often to do it."""
    if isinstance(peer, Sampan):
        from sampan import Engine

        engine = Engine(peer.root)
        return lambda: engine.run(IMAGE, ["true"], network="none"), RUNS
    argv = peer.run(["true"])
    return lambda: run_command(argv, peer.env), RUNS_OF_PEERS


def rate(call: Callable[[], object], count: int, workers: int) -> float:
    """Return the calls in a second."""
    begun = time.perf_counter()
    if workers == 1:
        for _ in range(count):
            call()
    else:
        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(call) for _ in range(count)]:
                future.result()
    return count / (time.perf_counter() - begun)


def beside(stage: Stage, peer: Sampan) -> str:
    """Time a run beside 200 containers, and in a store that has none, by turns."""
    alone = f"{stage.top}/sampan-empty"
    archive = f"{stage.top}/image.tar"
    peer.command(peer.program, "save", "-o", archive, IMAGE)
    peer.command(peer.program, "--root", alone, "load", "-i", archive)
    fill(peer)
    cases = [
        Case("sampan", peer.run(["true"]), env={"SAMPAN_ROOT": alone}),
        Case(f"sampan beside {BESIDE}", peer.run(["true"]), env=peer.env),
    ]
    return table(f"run beside {BESIDE} containers", measure(cases, stage.runs), "sampan")


def fill(peer: CommandLine) -> None:
    """Create containers until there are 200."""
    for number in range(BESIDE):
        peer.create(f"sampan-bench-many{number}", ["sleep", "1000"])


def listing(stage: Stage, peers: Sequence[CommandLine]) -> str:
    """Time `ps --all` where 200 containers are; sampan has them already."""
    for peer in peers:
        if not isinstance(peer, Sampan):
            fill(peer)
    cases = [Case(peer.name, [peer.program, "ps", "--all"], env=peer.env) for peer in peers]
    text = table(f"ps --all with {BESIDE} containers", measure(cases, stage.runs), "sampan")
    for peer in peers:
        names = [f"sampan-bench-many{number}" for number in range(BESIDE)]
        peer.command(peer.program, "rm", *names)
    return text


def idle(peer: Sampan) -> str:
    """Leave 100 containers asleep for a minute, and tell what their supervisors took."""
    from sampan import Engine

    engine = Engine(peer.root)
    names = [f"sampan-bench-idle{number}" for number in range(IDLE)]
    for name in names:
        peer.create(name, ["sleep", "1000"])
        engine.containers.start(name)
    supervisors = [parent(engine.containers.get(name).pid) for name in names]
    time.sleep(2)
    before = sum(map(ticks, supervisors))
    time.sleep(IDLE_SECONDS)
    spent = (sum(map(ticks, supervisors)) - before) * 1000 / os.sysconf("SC_CLK_TCK")
    size = sum(map(pss, supervisors)) / IDLE
    subprocess.run(
        [peer.program, "rm", "--force", *names], env={**os.environ, **peer.env}, capture_output=True, check=True
    )
    engine.close()
    return f"{IDLE} idle containers: {spent:.0f} ms of CPU in {IDLE_SECONDS:.0f} s, {size:.0f} KiB each (PSS)"


def parent(pid: int) -> int:
    """Return the supervisor of a container's first process."""
    return next(int(line.split()[1]) for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("PPid:"))


def ticks(pid: int) -> int:
    """Return the CPU time of a process in clock ticks (proc(5), stat, utime and stime)."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
