"""The tour: a base image from this host, the tutorial's Dockerfile built and run, and twenty starts and stops measured.

Run it with the Python of the virtual environment that holds sampan (`make demo` does). It calls the `sampan` command
beside that Python, works as root and as an ordinary user, without network, in a store of its own that it removes.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import FrameType

ROUNDS = 20
BASE = "ubuntu:18.04"
TUTORIAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tutorial")
SAMPAN = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "sampan")
VISIT = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000').read().decode(), end='')"
# What the tutorial says of containers and virtual machines, in words, as it gives no method.
CLAIMED = {"start": ("50 ms", "30 to 45 s"), "stop": ("50 ms", "5 to 10 s")}


class Demo:
    """Runs sampan on a store of its own, and shows each command."""

    def __init__(self, root: str) -> None:
        self.env = {**os.environ, "SAMPAN_ROOT": root}

    def quiet(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a sampan command and return what it printed; end the demo with its words if it fails."""
        done = subprocess.run([SAMPAN, *words], env=self.env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise SystemExit(f"demo: sampan {' '.join(words)} failed ({done.returncode}):\n{done.stderr}{done.stdout}")
        return done

    def show(self, *words: str) -> str:
        """Run a sampan command, print it with its output, and return that."""
        print(f"\n$ sampan {' '.join(words)}", flush=True)
        done = self.quiet(*words)
        print((done.stdout + done.stderr).rstrip(), flush=True)
        return done.stdout

    def wait_for(self, name: str, line: str, count: int = 1, seconds: float = 20) -> None:
        """Wait until a container has printed `line` `count` times."""
        end = time.monotonic() + seconds
        while self.quiet("logs", name).stdout.count(line) < count:
            if time.monotonic() > end:
                raise SystemExit(f"demo: {name} did not print {line!r} {count} times within {seconds:.0f} s")
            time.sleep(0.02)

    def timed(self, *words: str) -> float:
        """Run a sampan command and return its seconds, from process start to exit."""
        start = time.perf_counter()
        self.quiet(*words)
        return time.perf_counter() - start


def tour(demo: Demo) -> dict[str, list[float]]:
    """Build, look, run, and start and stop; return the seconds of both."""
    demo.show("bootstrap", "-t", BASE, "host")
    demo.show("build", "-t", "tutorial", TUTORIAL)
    demo.show("history", "tutorial")
    demo.show("images")
    demo.show("run", "-d", "--name", "app", "tutorial")
    demo.wait_for("app", "serving on port")
    demo.show("exec", "app", "python", "-c", VISIT)
    demo.show("ps")
    demo.show("stop", "app")
    demo.show("logs", "app")
    print(f"\n{ROUNDS} times: sampan start app, wait for its first line, sampan stop app", flush=True)
    seconds: dict[str, list[float]] = {"start": [], "stop": []}
    for number in range(ROUNDS):
        seconds["start"].append(demo.timed("start", "app"))
        demo.wait_for("app", "serving on port", number + 2)
        seconds["stop"].append(demo.timed("stop", "app"))
    ended = demo.quiet("logs", "app").stdout.count("app: stopping")
    if ended != ROUNDS + 1:
        raise SystemExit(f"demo: the app handled SIGTERM {ended} times of {ROUNDS + 1}")
    demo.quiet("rm", "app")
    return seconds


def report(seconds: dict[str, list[float]]) -> None:
    """Print the tutorial's table with what was measured here in front."""
    print(f"\n{'':<8} {'measured here':>28} {'tutorial: container':>22} {'tutorial: VM':>16}")
    for name, (container, machine) in CLAIMED.items():
        ordered = sorted(seconds[name])
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        p95 = ordered[min(len(ordered) - 1, -(-len(ordered) * 95 // 100) - 1)]
        measured = f"{median * 1e3:.0f} ms (p95 {p95 * 1e3:.0f} ms)"
        print(f"{name:<8} {measured:>28} {container:>22} {machine:>16}")
    print("Each time is one whole `sampan` command, from process start to exit.")


def remove(top: str) -> None:
    """Remove the store; overlay work directories have no permissions until they get some."""

    def open_up(function: Callable[..., object], path: str, _: object) -> None:
        for place in (os.path.dirname(path), path):
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.chmod(place, 0o700)
        function(path)

    shutil.rmtree(top, onerror=open_up)


def interrupted(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an ordinary end, so that the store is removed."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run the tour in a temporary store."""
    if not os.access(SAMPAN, os.X_OK):
        raise SystemExit(f"demo: no sampan command beside {sys.executable}: run `make demo`")
    signal.signal(signal.SIGTERM, interrupted)
    top = tempfile.mkdtemp(prefix="sampan-demo-")
    demo = Demo(f"{top}/store")
    try:
        print(demo.quiet("version").stdout.strip())
        report(tour(demo))
    finally:
        demo.quiet("rm", "--force", "app", check=False)
        remove(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
