"""Logs under load: a line of a gibibyte (64 MiB in `make test`), and a disk that a flood fills; and what many runs and
execs leave in one process: nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from invariants import Store
from waiting import until

import sampan
from sampan.engine import supervisors

FULL = "SAMPAN_FAULTS" in os.environ
LINE = 1 << 30 if FULL else 64 << 20
MEMORY = 8 << 20  # of a supervisor, resident
TIMES = 300 if FULL else 30

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.parametrize("store", ["root"], indirect=True, scope="module"),
]


def most_resident(pid: int) -> int:
    """Give the most resident memory that a process has had, in bytes (proc(5): VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def test_a_line_of_a_gibibyte(store: Store) -> None:
    store.succeeds("bootstrap", "-t", "tools", "host", "sh", "yes", "tr", "head", "sleep")
    engine = sampan.Engine(str(store.root))
    script = f"yes | tr -d '\\n' | head -c {LINE}; echo; echo last; while [ ! -e /go ]; do sleep 0.05; done"
    name = store.succeeds("run", "-d", "tools", "sh", "-c", script).strip()
    pid = supervisors.supervisor(engine.containers.socket(name))
    until(lambda: store.succeeds("logs", "--tail", "1", name) == "last\n", 600)
    assert most_resident(pid) < MEMORY
    store.succeeds("exec", name, "sh", "-c", ": > /go")
    assert store.succeeds("wait", name) == "0\n"
    engine.close()
    store.succeeds("rm", name)


FLOOD = """
set -e
mount -t tmpfs -o size=24m,mode=755 none "$1"
export SAMPAN_ROOT="$1"
sampan="$2"
"$sampan" bootstrap -t base host sh yes sleep true
script='yes flood & p=$!; while [ ! -e /go/room ]; do sleep 0.05; done; kill $p; wait; echo; echo last; exit 5'
mkdir "$3/go"
fallocate -l $(($(df --output=avail "$1" | tail -1) - 1500))k "$1/ballast"
"$sampan" run -d --name flood --log-opt max-size=500m -v "$3/go:/go" base sh -c "$script"
n=0
until [ "$(df --output=avail "$1" | tail -1)" -lt 64 ]; do sleep 0.1; n=$((n+1)); test $n -lt 600; done
sleep 0.5
"$sampan" ps --format '{{.Names}} {{.State}}'
"$sampan" exec flood true
rm "$1/ballast"
: > "$1/containers/$("$sampan" ps -q --no-trunc)/log"
touch "$3/go/room"
echo "waited $("$sampan" wait flood)"
"$sampan" logs --tail 1 flood
"$sampan" rm flood
"$sampan" run --rm base true
"""


# Whatever room a command makes, the flood takes at once.
NEVER_ROOM = """
set -e
mount $3 "$1"
export SAMPAN_ROOT="$1"
sampan="$2"
"$sampan" bootstrap -t base host sh sleep true dd cat
"$sampan" create --name spare base true >/dev/null
"$sampan" tag base other
eat='while [ ! -e /go/on ]; do sleep 0.05; done
while :; do
    dd if=/dev/zero bs=64k >>/eaten 2>/dev/null
    cat /dev/zero | dd bs=1 count=4096 >>/eaten 2>/dev/null
done'
"$sampan" run -d --name eater -v "$5:/go" base sh -c "$eat" >/dev/null
"$sampan" run -d --name twin --restart always -v "$5:/go" base sh -c "$eat" >/dev/null
touch "$5/on"
full() {
    n=0
    until test "$(df --output=avail "$1" | tail -1)" -lt 4; do sleep 0.1; n=$((n+1)); test $n -lt 600; done
}
full "$1"
sleep 0.2
for round in 1 2 3; do
    "$sampan" ps -a --format '{{.Names}} {{.State}}' | sort | tr '\\n' ' '; echo
    "$sampan" exec eater true
    "$sampan" rmi other >/dev/null 2>&1 && echo untagged
done
"$sampan" rm spare
full "$1"
code=0
"$sampan" run --rm base true 2>"$4" || code=$?
echo "run $code"
"$sampan" images -q | wc -l
"$sampan" stop -t 0 twin
"$sampan" system df >/dev/null
"$sampan" system prune -f >/dev/null
"$sampan" rm -f eater
"$sampan" rm -f twin 2>/dev/null || true
"$sampan" run --rm base true
"$sampan" system check
"""


@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("mkfs.ext4"), reason="mounts a small disk")
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_commands_that_free_the_disk_work_while_a_flood_takes_it(store: Store, tmp_path: Path, kind: str) -> None:
    from invariants import LAUNCHER

    options = "-t tmpfs -o size=24m,mode=755 none"
    if kind == "ext4":
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, 32 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, timeout=60)
        options = f"-o loop {image}"
    for name in ("st", "go"):
        (tmp_path / name).mkdir()
    said = tmp_path / "said"
    words = ["unshare", "--mount", "sh", "-c", NEVER_ROOM, "sh", f"{tmp_path}/st", str(LAUNCHER), options]
    done = subprocess.run(
        [*words, str(said), f"{tmp_path}/go"], capture_output=True, text=True, timeout=300, env=store.env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("eater running spare created twin running ") == 3 and lines.count("untagged") == 1, lines
    if kind == "ext4":  # a tmpfs makes directories without room
        assert "run 125" in lines
        assert "No space left on device\nhint: free some space" in said.read_text()


@pytest.mark.skipif(not shutil.which("unshare"), reason="mounts a small tmpfs")
def test_a_flood_that_fills_the_disk_stops_nothing(store: Store, tmp_path: Path) -> None:
    from invariants import LAUNCHER

    (tmp_path / "st").mkdir()
    words = ["unshare", "--mount", "sh", "-c", FLOOD, "sh", f"{tmp_path}/st", str(LAUNCHER), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=store.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "flood running\n" in done.stdout and done.stdout.endswith("waited 5\nlast\nflood\n"), done.stdout


def state(store: Store) -> dict[str, object]:
    groups = sum(name.startswith("sampan-") for _, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "mounts": len(store.mounts()),
        "groups": groups if FULL else 0,  # others may run containers meanwhile
        "files": sorted(store.files()),
        "run": sorted(path.name for path in (store.root / "run").rglob("*")),
    }


def test_many_runs_and_execs_leave_nothing(store: Store) -> None:
    engine = sampan.Engine(str(store.root))
    box = store.succeeds("run", "-d", "base", "sleep", store.mark).strip()
    engine.run("base", ["true"])
    engine.containers.exec(box, ["true"])
    before, size = state(store), (store.root / "sampan.db").stat().st_size
    for _ in range(TIMES):
        assert engine.run("base", ["true"]).exit_code == 0
        assert engine.containers.exec(box, ["true"]) == 0
    for _ in range(TIMES // 10):
        store.succeeds("run", "--rm", "base", "true")
        store.succeeds("exec", box, "true")
    deadline = time.monotonic() + 60
    while state(store) != before:
        assert time.monotonic() < deadline, (before, state(store))
        time.sleep(0.1)
    assert (store.root / "sampan.db").stat().st_size <= size + (64 << 10)
    engine.close()
    store.succeeds("rm", "-f", box)
    store.check()
