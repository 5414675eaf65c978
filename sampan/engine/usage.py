"""`stats`: what containers use, measured twice for what is a rate.

The control groups' counters where they are (runtime/cgroupstats.py); else the processes' own: processor time, also of
children that were waited for, proportional memory, threads.  What nothing on this host counts is None, never a guess:
bytes read and written without a blkio or io controller, the network of a container that has the host's.
"""

from __future__ import annotations

import os
import time

from sampan.engine import members
from sampan.errors import Conflict
from sampan.runtime import cgroup, cgroupstats, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Containers, Record

    Pair = tuple[int, int]

FIRST = 0.5  # seconds between the two samples of the first round


class Sample:
    """What a container used up to a moment: times in nanoseconds, sizes in bytes; None is unknown."""

    __slots__ = ("cpu", "io", "limit", "memory", "network", "pids", "taken")

    def __init__(self) -> None:
        self.taken = time.monotonic_ns()
        self.cpu: int | None = None
        self.memory: int | None = None
        self.limit = 0
        self.network: Pair | None = None
        self.io: Pair | None = None
        self.pids: int | None = None


def sample(record: Record) -> Sample | None:
    """Measure a container; None when it does not run."""
    try:
        pids = members.pids(record)
    except Conflict:
        return None
    found = cgroup.stats(cgroup.named(record.id))
    cgroupstats.of_processes(pids, found)
    now = Sample()
    now.cpu = found.get("cpu_usage")
    if now.cpu is None:
        now.cpu = _processor_time(pids)
    now.memory, now.pids = found.get("memory_usage"), found.get("pids")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    now.limit = min(found.get("memory_limit", total), total)
    now.network = _network(record)
    if "io_read" in found:
        now.io = (found["io_read"], found["io_write"])
    return now


def _processor_time(pids: list[int]) -> int:
    """Add up the time of processes and of their children that were waited for (proc(5), stat fields 14 to 17)."""
    total = 0
    for pid in pids:
        try:
            fields = process.stat(pid)  # of one that has ended none: its time is its parent's now
        except PermissionError:
            continue  # another user's, on a host that hides those (proc(5), hidepid)
        total += sum([int(word) for word in fields[11:15]])
    return total * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _network(record: Record) -> Pair | None:
    """Give bytes received and sent over all interfaces but the loopback; None in the host's network."""
    kinds = {entry["type"] for entry in record.spec["linux"]["namespaces"] if not entry.get("path")}
    if "network" not in kinds:
        return None
    received = sent = 0
    try:
        with open(f"/proc/{record.pid}/net/dev", encoding="ascii") as file:
            for line in file:
                name, colon, counts = line.partition(":")
                words = counts.split()
                if colon and name.strip() != "lo":
                    received, sent = received + int(words[0]), sent + int(words[8])
    except OSError:
        return None
    return received, sent


def row(record: Record, before: Sample | None, now: Sample | None) -> dict[str, Any]:
    """Give the figures of a container: percent of one processor and of the limit; all 0 when it does not run."""
    found: dict[str, Any] = {"ID": record.id, "Name": record.name, "Running": now is not None}
    if now is None:
        return found | {"CPU": 0.0, "Memory": 0, "Limit": 0, "Share": 0.0, "Network": (0, 0), "IO": (0, 0), "PIDs": 0}
    return found | {
        "CPU": _rate(before, now),
        "Memory": now.memory,
        "Limit": now.limit,
        "Share": None if now.memory is None else 100 * now.memory / now.limit,
        "Network": now.network,
        "IO": now.io,
        "PIDs": now.pids,
    }


def _rate(before: Sample | None, now: Sample) -> float | None:
    if before is None or before.cpu is None or now.cpu is None or now.taken <= before.taken:
        return None
    return max(0.0, 100 * (now.cpu - before.cpu) / (now.taken - before.taken))


def stats(
    engine: Engine, names: Sequence[str] = (), *, all: bool = False, interval: float = 1.0
) -> Iterator[list[dict[str, Any]]]:
    """Give rounds of rows (see `row`) without end, `interval` seconds apart; NotFound for an unknown name.

    Without names it is the containers that run at each moment or are about to again, or with `all` every one.
    """
    wanted = [engine.containers.get(name).id for name in names]
    previous = {record.id: sample(record) for record in _records(engine, wanted, all)}
    pause = FIRST
    while True:
        time.sleep(pause)
        pause = interval
        current = {record.id: (record, sample(record)) for record in _records(engine, wanted, all)}
        yield [
            row(record, previous.get(record.id), now)
            for record, now in current.values()
            if now is not None or all or wanted or record.status == "restarting"
        ]
        previous = {found: now for found, (_, now) in current.items()}


def _records(engine: Engine, wanted: list[str], all: bool) -> list[Record]:
    store: Containers = engine.store.containers
    if wanted:
        records = [found for found in store.ls() if found.id in wanted]
        return sorted(records, key=lambda record: wanted.index(record.id))
    if all:
        return store.ls()
    found = map(engine.containers.tidied, store.ls(ended=False))
    return [record for record in found if record is not None and record.status not in ("created", "exited")]
