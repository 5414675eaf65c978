"""Measure cases in turn, and say on what machine.

Cases take turns, so that a noisy minute hits every case alike; the order of a round rotates. Two rhythms: `loop` (each
case several times in a row, as in a loop of one's own; the first of a row, which finds the caches of another case, does
not count) and `rest` (once, after 150 ms of nothing: kernels charge a cold start differently). A case that fails is
reported with its last words, never dropped.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

REST_SECONDS = 0.15
RHYTHMS = ("loop", "rest")
ROW = 5  # runs that count of a case in a row, in a loop


@dataclass
class Case:
    """One thing to time: a command, or a function of this process; `prepare` and `after` run untimed around it."""

    name: str
    argv: Sequence[str] = ()
    call: Callable[[], object] | None = None
    env: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] | None = None
    after: Callable[[], object] | None = None


@dataclass
class Result:
    """The times of one case in one rhythm, in seconds; or why there are none."""

    name: str
    rhythm: str
    seconds: list[float] = field(default_factory=list)
    error: str = ""

    def quantile(self, share: float) -> float:
        """Return the time that `share` of the runs did not exceed (nearest rank)."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]

    @property
    def median(self) -> float:
        """Return the median in seconds."""
        ordered = sorted(self.seconds)
        half = len(ordered) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def run_command(argv: Sequence[str], env: dict[str, str]) -> None:
    """Run a command to its end with the cheapest spawn there is; raise with its stderr if it fails."""
    with tempfile.TemporaryFile() as words:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, words.fileno(), 2),
        ]
        try:
            pid = os.posix_spawnp(argv[0], list(argv), {**os.environ, **env}, file_actions=actions)
        finally:
            os.close(null)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            words.seek(0)
            raise RuntimeError(f"exit {status}: {words.read().decode(errors='replace').strip()[-400:]}")


def once(case: Case) -> float:
    """Run a case once and return its seconds."""
    if case.prepare:
        case.prepare()
    start = time.perf_counter()
    if case.call:
        case.call()
    else:
        run_command(case.argv, case.env)
    seconds = time.perf_counter() - start
    if case.after:
        case.after()
    return seconds


def in_a_row(case: Case, count: int) -> list[float]:
    """Run a case in a row and return the seconds of the last `count`; where there are several, one comes before."""
    return [once(case) for _ in range(count + (count > 1))][-count:]


def measure(
    cases: Sequence[Case], runs: int, rhythms: Sequence[str] = RHYTHMS, warm: int = 2, row: int = ROW
) -> list[Result]:
    """Measure all cases in turn, at least `runs` times in each rhythm, after `warm` runs that do not count.

    In a loop each turn of a case has `row` runs that count.
    """
    results: list[Result] = []
    for rhythm in rhythms:
        table = {case.name: Result(case.name, rhythm) for case in cases}
        count = row if rhythm == "loop" else 1
        for number in range(-warm, -(-runs // count)):
            for index in range(len(cases)):
                case = cases[(index + number) % len(cases)]
                result = table[case.name]
                if result.error:
                    continue
                if rhythm == "rest":
                    time.sleep(REST_SECONDS)
                try:
                    seconds = in_a_row(case, count if number >= 0 else 1)
                except (RuntimeError, OSError) as exc:
                    result.error = str(exc)
                    continue
                if number >= 0:
                    result.seconds += seconds
        results.extend(table.values())
    return results


def table(title: str, results: Sequence[Result], base: str, missing: dict[str, str] | None = None) -> str:
    """Return the results as text: medians, p95 and the ratio of each median to that of the case `base`."""
    lines = [title, f"  {'case':<34} {'rhythm':<6} {'runs':>5} {'median':>10} {'p95':>10} {'x ' + base:>12}"]
    for rhythm in dict.fromkeys(result.rhythm for result in results):
        group = [result for result in results if result.rhythm == rhythm]
        unit = next((result.median for result in group if result.name == base and result.seconds), 0.0)
        for result in group:
            if result.error or not result.seconds:
                lines.append(f"  {result.name:<34} {rhythm:<6} failed: {result.error}")
                continue
            ratio = f"{result.median / unit:.2f}" if unit else "-"
            times = f"{result.median * 1e3:>7.2f} ms {result.quantile(0.95) * 1e3:>7.2f} ms"
            lines.append(f"  {result.name:<34} {rhythm:<6} {len(result.seconds):>5} {times} {ratio:>12}")
    lines.extend(f"  {name:<34} not measured: {reason}" for name, reason in (missing or {}).items())
    return "\n".join(lines)


def version_of(argv: Sequence[str]) -> str:
    """Return the first line that a `--version` command prints, or "" where it is not installed."""
    try:
        done = subprocess.run(list(argv), capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def machine() -> str:
    """Describe the machine: processor, cores, memory, kernel, cgroup layout, and which Python runs this and sampan."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) // 1024
    cores = len(os.sched_getaffinity(0))
    model = models[0] if models else platform.machine()
    layout = "cgroup v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "cgroup v1"
    host = f"{model}, {cores} cores, {memory} MiB, Linux {platform.release()}, {layout}"
    python = f"Python {platform.python_version()} ({os.path.realpath(sys.executable)})"
    return f"machine: {host}, {python}, uid {os.getuid()}"
