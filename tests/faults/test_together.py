"""Many commands on one store at once: each succeeds or says what it collided with, and the store is whole at the end.

`make test` does it for 5 seconds, `make test-faults` for 60.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from invariants import LAUNCHER, Store
from test_kill_store import registry as registry

SECONDS = 60.0 if "SAMPAN_FAULTS" in os.environ else 5.0
# What a command may say when another was faster: an image, a container or a name that is not there, or there already.
CLEAN = re.compile(
    r"no such (image|container)|is not in the store|in use|uses it|is used by|already|has th(e|at) name|not found|"
    r"does not run|is (not )?(running|paused)|is restarting|has (just )?ended|is created|is exited|is being removed|"
    r"SIG(KILL|TERM) ended it before its program began"
)
OVERTAKEN = (128 + 9, 128 + 15)  # an exec whose program the end of its container ended
NEVER = re.compile(r"Traceback|layer .*(not known|missing)|No such file|database is locked|Invalid argument")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("docker-registry"), reason="needs root, docker-registry"),
    pytest.mark.parametrize("store", ["root"], indirect=True, scope="module"),
]


class Storm:
    """Commands in several threads, and what went wrong."""

    def __init__(self, store: Store) -> None:
        self.store, self.wrong, self.done = store, list[str](), dict[str, int]()

    def one(self, *words: str) -> bool:
        """Run a command; note it when it fails for another reason than a collision."""
        try:
            done = self.store.execute([str(LAUNCHER), *words], timeout=120)  # Store.command does one after the other
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{' '.join(words)}: hangs")
            return False
        text = done.stdout[-500:] + done.stderr
        error = done.stderr[done.stderr.find("sampan: ") :]  # what comes before it is how a pull went on
        told = CLEAN.search(error) and error.count("\n") <= 4
        told = told or (words[0] == "exec" and done.returncode in OVERTAKEN and not done.stderr)
        if NEVER.search(text) or (done.returncode and not told):
            self.wrong.append(f"{' '.join(words)}: {done.returncode}: {text}")
        self.done[words[0]] = self.done.get(words[0], 0) + (done.returncode == 0)
        return done.returncode == 0

    def run(self, *workers: Callable[[], None]) -> None:
        """Repeat each worker until the time is over, or one of them found something wrong."""
        deadline = time.monotonic() + SECONDS

        def repeat(worker: Callable[[], None]) -> None:
            while time.monotonic() < deadline and not self.wrong:
                worker()

        threads = [threading.Thread(target=repeat, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.wrong, "\n".join(self.wrong)


def whole(store: Store) -> None:
    looked = store.command("system", "check")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    store.check()


def test_pulls_removals_prunes_builds_and_runs_at_once(store: Store, registry: str) -> None:
    storm, small = Storm(store), f"{registry}/small:1"
    context = str(store.root.with_name(store.root.name + "-files") / "context")
    storm.run(
        *[lambda: storm.one("pull", "-q", small) and None] * 3,
        lambda: storm.one("rmi", "-f", small) and None,
        lambda: storm.one("image", "prune", "-f") and None,
        *[lambda: storm.one("build", "-q", "-t", f"built{random.randrange(3)}", context) and None] * 2,
        lambda: storm.one("run", "--rm", "base", "true") and None,
        lambda: storm.one("run", "--rm", f"built{random.randrange(3)}", "true") and None,
        lambda: storm.one("run", "--rm", small, "true") and None,
    )
    assert storm.done["pull"] and storm.done["build"] and storm.done["run"], storm.done
    whole(store)


def test_thirty_creates_of_one_name_have_one_winner(store: Store) -> None:
    words = [str(LAUNCHER), "create", "--name", "one", "base", "true"]
    pipe = subprocess.PIPE
    many = [
        subprocess.Popen(words, cwd=store.root, env=store.env, stdout=pipe, stderr=pipe, text=True) for _ in range(30)
    ]
    ends = [(process.communicate(timeout=120), process.returncode) for process in many]
    winners = [out for (out, _), code in ends if code == 0]
    assert len(winners) == 1, ends
    assert all("one" in err and "name" in err and len(err.splitlines()) <= 2 for (_, err), code in ends if code), ends
    assert store.succeeds("ps", "-aq", "--no-trunc") == winners[0]
    store.succeeds("rm", "one")
    whole(store)


def test_one_container_is_started_stopped_entered_and_removed_at_once(store: Store) -> None:
    storm = Storm(store)
    storm.run(
        lambda: storm.one("create", "--name", "one", "base", "sleep", store.mark) and None,
        *[lambda: storm.one("start", "one") and None] * 2,
        lambda: storm.one("exec", "one", "true") and None,
        lambda: storm.one("stop", "one") and None,
        lambda: storm.one("restart", "-t", "0", "one") and None,
        lambda: storm.one("rm", "-f", "one") and time.sleep(random.random() / 2),
        lambda: storm.one("ps", "-a") and None,
        lambda: storm.one("pause", "one") and storm.one("unpause", "one") and None,
        lambda: storm.one("update", "--restart", random.choice(["no", "always"]), "one") and None,
        lambda: storm.one("kill", "one") and None,
    )
    whole(store)
