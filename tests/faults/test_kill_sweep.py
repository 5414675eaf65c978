"""kill -9 of each process of each command before each system call that changes something (tracer.py): afterwards `ps`
is true, the next command works, and nothing is left (invariants.py).

`make test-faults` (SAMPAN_FAULTS) kills at a dozen calls of each process, `SAMPLE=0` at every one, `make test` at a
few. A command is added by a row of CASES.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from invariants import Store, spread

FULL = "SAMPAN_FAULTS" in os.environ
AS_USER = ("run --rm", "run -d", "exec", "rm -f")  # where not FULL
ROLES = ("command", "supervisor", "child")

# What is done first, and the command that is killed; MARK stands for a program that the checker knows.
CASES: dict[str, tuple[list[list[str]], list[str]]] = {
    "run --rm": ([], ["run", "--rm", "base", "true"]),
    "Engine.run": ([], ["Engine.run", "base", "true"]),
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
    "run -d --init": ([], ["run", "-d", "--init", "--name", "t", "base", "sleep", "MARK"]),
    "diff": ([["run", "-d", "--name", "t", "base", "sleep", "MARK"]], ["diff", "t"]),
}

USERS = ["root", "user", *(["mapped"] if FULL else [])]

# What a child does when its work is done: it becomes the program; with --init, it has let it begin and gives itself a
# name; of `diff` it has sent all files (a reader that misses some fails: runtime/tree.py). Nothing, where this run had
# fewer calls than the one that was counted.
AT_WORK = ("execve", "prctl of init", "writev of diff", "exit_group of diff", "")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a tracer of set-uid programs must be root"),
    pytest.mark.parametrize("store", USERS, indirect=True, scope="module"),
]


def traced(store: Store, case: str, role: str, number: int) -> dict[str, Any]:
    """Run a case's command with a process of it killed at a call; give what the tracer says."""
    before, command = CASES[case]
    for words in before:
        store.succeeds(*(store.mark if word == "MARK" else word for word in words))
    return store.traced([store.mark if word == "MARK" else word for word in command], role, number)


def points(case: str, role: str, count: int, sample: int = 0) -> list[int]:
    """Choose the calls before which to kill: all, a sample, or one that differs from case to case."""
    if FULL or count < 2:
        return spread(count, sample)
    places = len(CASES) * len(ROLES)
    place = list(CASES).index(case) * len(ROLES) + ROLES.index(role)
    return [1 + place * 7 % places * count // places]


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_any_call_leaves_a_true_store(store: Store, case: str, request: pytest.FixtureRequest) -> None:
    if store.prefix and not (FULL or case in AS_USER):
        pytest.skip("as an ordinary user only some commands here, all in `make test-faults`")
    store.clear()
    counts = traced(store, case, "command", 0)["counts"]
    store.check()
    for role in ROLES:
        for number in points(case, role, counts[role], request.config.getoption("--sample", 0)):
            found = traced(store, case, role, number)
            if case == "run -d --init" and found["killed"] == "prctl" and number >= counts[role] - 2:
                found["killed"] += " of init"
            elif case == "diff" and found["killed"] and number >= counts[role] - 4:
                found["killed"] += " of diff"  # the report is one call, and counts differ by one
            try:
                assert role != "child" or found["killed"] in AT_WORK or found["code"] != 0, "told as a success"
                store.check()
            except AssertionError as error:
                raise AssertionError(
                    f"{case}: {role} killed before call {number}, {found['killed']}: {error}"
                ) from error
