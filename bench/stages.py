"""Print where the time of `sampan run --rm IMAGE true` goes: interpreter, imports, store, start, exit, clean-up.

Each stage is timed inside one process per sample, started as bin/sampan starts it; medians of all samples are printed.
The image is made from this host in a store of its own below a temporary directory.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLES = 30
PROBE = """
import sys, time
begun = time.perf_counter()
sys.path.append(sys.argv[1])
from sampan import bundle
bundle.install()
from sampan.cli import main, run as command, runflags
from sampan.engine import containers, engine, launching, once, starter
from sampan.runtime import launch
from sampan.store import containers as records
imported = time.perf_counter()
marks = {}
def timed(owner, name, label):
    function = getattr(owner, name)
    def wrapper(*words, **settings):
        start = time.perf_counter()
        try:
            return function(*words, **settings)
        finally:
            marks[label] = marks.get(label, 0) + time.perf_counter() - start
    setattr(owner, name, wrapper)
timed(launching, "new", "image and configuration (imports and opens SQLite)")
timed(starter, "prepare", "prepare: cgroup, first piece of the plan")
timed(starter.Prepared, "complete", "the other pieces, while the helper works")
timed(launch, "spawn", "spawn the helper")
timed(launch.Child, "await_start", "namespaces, mounts, exec (helper)")
timed(launch.Child, "wait", "the program, to its collected exit")
timed(records.Containers, "insert", "record that it runs")
timed(containers.Containers, "discard", "clean-up: files, cgroup, record")
code = main.main(["--root", sys.argv[2], "run", "--rm", "--network", "none", "stages", "true"])
done = time.perf_counter()
print(code, f"imports={imported - begun}", f"all={done - begun}", *(f"{k}={v}" for k, v in marks.items()), sep=";")
"""


def sample(root: str) -> dict[str, float]:
    """Run once; return seconds by stage."""
    start = time.perf_counter()
    words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", PROBE, CHECKOUT, root]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - start
    code, *pairs = done.stdout.strip().split(";")
    if code != "0":
        raise SystemExit(done.stderr)
    found = {key: float(value) for key, value in (pair.rsplit("=", 1) for pair in pairs)}
    found["interpreter: start and end"] = whole - found["all"]
    found["the rest of the command line"] = found.pop("all") - sum(
        value for key, value in found.items() if key not in ("all", "interpreter: start and end")
    )
    found["whole process"] = whole
    return found


def main() -> None:
    """Print the table."""
    sys.path.insert(0, CHECKOUT)
    import sampan

    with tempfile.TemporaryDirectory(prefix="sampan-stages-") as root:
        engine = sampan.Engine(root)
        engine.bootstrap("host", "stages", ["sh", "true"])
        engine.close()
        # The first command writes the bundle of code that all others import from.
        words = [f"{CHECKOUT}/bin/sampan", "--root", root, "run", "--rm", "--network", "none", "stages", "true"]
        subprocess.run(words, check=True)
        samples = [sample(root) for _ in range(SAMPLES)]
    print(f"{'stage':45} {'median, ms':>10}")
    for name in samples[0]:
        print(f"{name:45} {statistics.median(s[name] for s in samples) * 1000:10.2f}")


if __name__ == "__main__":
    main()
