"""kill -9 of each process of each command before each system call that changes something (tracer.py): afterwards `ps`
is true, the next command works, and nothing is left (invariants.py).

`make test-faults` kills at every call (SAMPAN_FAULTS), `make test` at a few.  A command is added by a row of CASES.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invariants import LAUNCHER, Store

TRACER = Path(__file__).parent / "tracer.py"
FULL = "SAMPAN_FAULTS" in os.environ
AS_USER = ("run --rm", "run -d", "exec", "rm -f")  # where not FULL
ROLES = ("command", "supervisor", "child")

# What is done first, and the command that is killed; MARK stands for a program that the checker knows.
CASES: dict[str, tuple[list[list[str]], list[str]]] = {
    "run --rm": ([], ["run", "--rm", "base", "true"]),
    "run": ([], ["run", "--name", "t", "base", "true"]),
    "run -d": ([], ["run", "-d", "--name", "t", "base", "sleep", "MARK"]),
    "run -d --rm": ([], ["run", "-d", "--rm", "base", "sleep", "MARK"]),
    "start": ([["create", "--name", "t", "base", "sleep", "MARK"]], ["start", "t"]),
    "stop": ([["run", "-d", "--name", "t", "base", "sleep", "MARK"]], ["stop", "t"]),
    "restart": ([["run", "-d", "--name", "t", "base", "sleep", "MARK"]], ["restart", "t"]),
    "exec": ([["run", "-d", "--name", "t", "base", "sleep", "MARK"]], ["exec", "t", "true"]),
    "exec -d": ([["run", "-d", "--name", "t", "base", "sleep", "MARK"]], ["exec", "-d", "t", "true"]),
    "rm": ([["run", "--name", "t", "base", "true"]], ["rm", "t"]),
    "rm -f": ([["run", "-d", "--name", "t", "base", "sleep", "MARK"]], ["rm", "-f", "t"]),
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a tracer of set-uid programs must be root")


def users() -> dict[str, list[str]]:
    """Give the words that make a command root's, and an ordinary user's (who has no range of ids)."""
    return {"root": [], "user": ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]}


@pytest.fixture(scope="module", params=["root", "user"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    root = Path("/tmp") / f"sampan-faults-{os.getpid()}-{request.param}"
    root.mkdir(mode=0o755)
    if request.param == "user":
        os.chown(root, 65534, 65534)
    found = Store(root, users()[request.param])
    try:
        if request.param == "user" and found.execute([str(LAUNCHER), "version"]).returncode != 0:
            pytest.skip("another user cannot read this source tree")
        found.succeeds("bootstrap", "-t", "base", "host", "sh", "sleep", "true")
        yield found
    finally:
        shutil.rmtree(root)


def traced(store: Store, case: str, role: str, number: int) -> dict[str, Any]:
    """Run a case's command with a process of it killed at a call; give what the tracer says."""
    before, command = CASES[case]
    for words in before:
        store.succeeds(*(store.mark if word == "MARK" else word for word in words))
    words = [store.mark if word == "MARK" else word for word in command]
    done = subprocess.run(
        [sys.executable, str(TRACER), role, str(number), *store.prefix, str(LAUNCHER), *words],
        cwd=store.root, env=store.env, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return found


def points(case: str, role: str, count: int) -> list[int]:
    """Choose the calls before which to kill: all, or one that differs from case to case."""
    if FULL or count < 2:
        return list(range(1, count + 1))
    places = len(CASES) * len(ROLES)
    place = list(CASES).index(case) * len(ROLES) + ROLES.index(role)
    return [1 + place * 7 % places * count // places]


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_any_call_leaves_a_true_store(store: Store, case: str) -> None:
    if store.prefix and not (FULL or case in AS_USER):
        pytest.skip("as an ordinary user only some commands here, all in `make test-faults`")
    counts = traced(store, case, "command", 0)["counts"]
    store.check()
    for role in ROLES:
        for number in points(case, role, counts[role]):
            found = traced(store, case, role, number)
            try:
                assert role != "child" or found["killed"] == "execve" or found["code"] != 0, "told as a success"
                store.check()
            except AssertionError as error:
                raise AssertionError(
                    f"{case}: {role} killed before call {number}, {found['killed']}: {error}"
                ) from error
