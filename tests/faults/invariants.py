"""What must hold of a store and the host after any fault: a checker for every fault test.

store = Store(root, uid, gid)    # root is that user's
store.check()                    # AssertionError says what is left, or not true
"""

from __future__ import annotations

import glob
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).parent.parent.parent / "bin" / "sampan"
LIBRARY = "import sys, sampan; raise SystemExit(sampan.Engine().run(sys.argv[1], sys.argv[2:]).exit_code)"
TRACER = Path(__file__).parent / "tracer.py"
FORKER = Path(__file__).parent / "forker.py"
PATIENCE = 60.0


class Store:
    """A store of a test's own, with everything that belongs to it on the host."""

    def __init__(self, root: Path, uid: int = 0, gid: int = 0) -> None:
        self.root, self.ids = root, (uid, gid)
        become = ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
        self.prefix = become if uid else []
        self.mark = f"98765.{int.from_bytes(os.urandom(4), 'big')}"  # an argument of sleep that nobody else uses
        self.seen: set[str] = set()
        self.forker: subprocess.Popen[str] | None = None
        self.env = {
            "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"],
            "SAMPAN_ROOT": str(root),
            "PYTHONPATH": str(LAUNCHER.parent.parent),
            "HOME": str(root),
        }

    def command(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of sampan (forker.py)."""
        if self.forker is None or self.forker.poll() is not None:
            self.forker = subprocess.Popen(
                [*self.prefix, sys.executable, str(FORKER)],
                cwd=self.root, env=self.env, text=True, bufsize=1, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self.forker.stdin and self.forker.stdout
        self.forker.stdin.write(json.dumps([self.env, words]) + "\n")
        ready, _, _ = select.select([self.forker.stdout], [], [], timeout)
        line = self.forker.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise AssertionError(f"{' '.join(words)} hangs, or its process ended")
        answer = json.loads(line)
        return subprocess.CompletedProcess(words, answer["code"], answer["out"], answer["err"])

    def close(self) -> None:
        """End the process that runs commands, also one that hangs."""
        if self.forker is not None:
            os.killpg(self.forker.pid, signal.SIGKILL)
            self.forker.communicate()
            self.forker = None

    def execute(self, words: list[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run any program as the store's user, in its directory."""
        return subprocess.run(
            [*self.prefix, *words], cwd=self.root, env=self.env, capture_output=True, text=True, timeout=timeout
        )  # fmt: skip

    def succeeds(self, *words: str) -> str:
        """Run a command that must not fail; give its output."""
        done = self.command(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def traced(self, words: list[str], role: str, number: int) -> dict[str, Any]:
        """Run a command or Engine.run, with a process of it killed before its `number`-th call; give what is told."""
        own = [sys.executable, "-c", LIBRARY, *words[1:]] if words[0] == "Engine.run" else [str(LAUNCHER), *words]
        done = subprocess.run(
            [sys.executable, str(TRACER), role, str(number), *self.prefix, *own],
            cwd=self.root, env=self.env, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
        return found

    # ---- what there is ----

    def processes(self) -> list[str]:
        """List helpers and marked programs of this store that are alive."""
        found = []
        for path in glob.glob("/proc/[0-9]*"):
            try:
                line = Path(path, "cmdline").read_bytes()
                ours = line == f"sleep\0{self.mark}\0".encode()
                if ours or (
                    line.startswith(b"sampan-helper") and os.readlink(path + "/cwd").startswith(str(self.root))
                ):
                    found.append(f"{path[6:]}: {line.decode(errors='replace')}")
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def groups(self) -> list[str]:
        """List control groups of containers that this store has or had."""
        found = glob.glob("/sys/fs/cgroup/**/sampan-*", recursive=True)
        return [path for path in found if path.rpartition("sampan-")[2] in self.seen]

    def mounts(self) -> list[str]:
        """List mounts of the host that lie in the store."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if f" {self.root}/" in line]

    def files(self) -> list[str]:
        """List files that only something in progress may have."""
        names: list[str] = []
        for place in ("containers", "run/attach", "ingest", "snapshots/.active", "run/rootfs"):
            directory = self.root / place
            names += [f"{place}/{name}" for name in os.listdir(directory)] if directory.exists() else []
        return names

    def listed(self) -> dict[str, str]:
        """Give the state of each container that `ps` tells of."""
        self.seen.update(name.removeprefix(".gone-") for name in os.listdir(self.root / "containers"))
        rows = self.succeeds("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}").splitlines()
        found = dict(row.split() for row in rows)
        self.seen.update(found)
        return found

    def clear(self) -> None:
        """Remove the containers that a test which failed has left."""
        for name in self.listed():
            self.succeeds("rm", "-f", name)

    # ---- what must hold ----

    def check(self) -> None:
        """Assert that `ps` tells the truth, that the next command works, and that nothing is left after `rm -f`."""
        self.check_truth()
        self.succeeds("run", "--rm", "base", "true")
        for name in self.listed():
            self.succeeds("rm", "-f", name)
        assert not self.listed()
        done = self.command()
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        self.eventually_empty()

    def check_truth(self) -> None:
        """Assert that a program lives exactly where `ps` says so, within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while True:
            states = list(self.listed().values())
            live = sum(line.split(": ")[1].startswith("sleep") for line in self.processes())
            running = sum(state in ("running", "paused") for state in states)
            if live == running:
                return
            assert time.monotonic() < deadline, f"ps says {states}, but {live} programs live"
            time.sleep(0.05)

    def eventually_empty(self) -> None:
        """Assert that no process, group, mount or file is left, within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while left := self.processes() + self.groups() + self.mounts() + self.files():
            assert time.monotonic() < deadline, f"left: {left}"
            time.sleep(0.05)


def spread(count: int, most: int) -> list[int]:
    """Choose at most so many of the numbers from 1 to `count`, evenly, the first and the last among them; 0: all."""
    if not most or count <= most:
        return list(range(1, count + 1))
    return sorted({1 + place * (count - 1) // max(1, most - 1) for place in range(most)})
