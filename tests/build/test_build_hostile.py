"""Hostile Dockerfiles and steps: bounded time and memory, located errors, everything cleaned up."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable

import pytest
from buildsupport import Built, left_over

import sampan
from sampan.errors import BuildError, SampanError

Build = Callable[..., Built]

MEBIBYTE = "FROM base\nENV A=xxxxxxxxxxxxxxxx\n" + "ENV A=$A$A\n" * 15

BOMBS = {
    "copies of a variable": MEBIBYTE + "".join(f"ENV B{n}=$A\n" for n in range(9000)),
    "a variable again and again": MEBIBYTE + "ENV A=$A\n" * 9000,
    "labels of a mebibyte": MEBIBYTE + "LABEL " + " ".join(f"l{n}=$A" for n in range(5000)) + "\n",
    "sources of a mebibyte": MEBIBYTE + "COPY " + "$A " * 9000 + "/x/\n",
    "here-documents of a mebibyte": MEBIBYTE
    + "".join(["COPY ", *(f"<<D{n} " for n in range(3000)), "/x/\n", *(f"$A\nD{n}\n" for n in range(3000))]),
    "bases of a mebibyte": "ARG A=xxxxxxxxxxxxxxxx\n" + "ARG A=$A$A\n" * 15 + "FROM x$A\n" * 9000,
    "all ports a thousand times": "FROM base\nEXPOSE " + "1-65535 " * 8000 + "\n",
    "stages with variables": "FROM base AS s0\n"
    + "".join(f"FROM s{n - 1} AS s{n}\nENV N{n}={n}\n" for n in range(1, 4999)),
    "ten thousand variables": "FROM base\n" + "".join(f"ENV A{n}=$A{n - 1}x{n}\n" for n in range(9000)),
    "doubling": "FROM base\nENV A=xxxxxxxxxxxxxxxx\n" + "ENV A=$A$A\n" * 64,
    "doubling arguments": "ARG A=xxxxxxxxxxxxxxxx\n" + "ARG A=$A$A\n" * 64 + "FROM $A\n",
    "many stages": "".join(f"FROM {'base' if n == 0 else f's{n - 1}'} AS s{n}\nENV N={n}\n" for n in range(4000)),
    "many unknown bases": "FROM base AS x\n" + "FROM nothing\n" * 9000 + "FROM x\n",
    "many labels": "FROM base\nLABEL " + " ".join(f"l{n}=v" for n in range(5000)) + "\n",
    "many ports": "FROM base\nEXPOSE 1-65535\n",
    "nested expansions": "FROM base\nENV A=" + "${A:-" * 5000 + "}" * 5000 + "\n",
    "long line": "FROM base\nRUN " + "x" * (10 << 20) + "\n",
    "nul": "FROM base\nRUN a\0b\n",
    "open here-document": "FROM base\nRUN <<EOF\n" + "x\n" * 1000,
    "wildcard": "FROM base\nCOPY " + "*?" * 2000 + "x /x/\n",
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_soon(build: Build, engine: sampan.Engine, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        build(BOMBS[name], {"aaaaaaaaaaaaaaaaaaaaaaaa": ""})
    except BuildError as error:
        assert error.line > 0
        assert len(error.message) < 2000 and len(error.excerpt) < 8000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10
    assert left_over(engine) == []


def test_a_step_cannot_reach_the_helper_or_the_store(build: Build, engine: sampan.Engine) -> None:
    root = engine.store.paths.root
    built = build(
        "FROM base\nRUN ls -l /proc/self/fd; ls /proc/self/fd | cat; cat /proc/1/cmdline | head -c 40; echo;"
        f" ls {root} 2>&1 || true; cat /proc/self/status\n"
    )
    assert "No such file" in built.output
    assert "/memfd" not in built.output
    status = dict(line.split(":\t", 1) for line in built.output.splitlines() if ":\t" in line)
    assert status["Seccomp"].strip() == "2"
    assert int(status["CapBnd"], 16) == 0xA80425FB, "Docker's fourteen"
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    numbers = [line for line in built.output.splitlines() if line.isdecimal()]
    assert set(numbers) <= {"0", "1", "2", "3"}, "3 is the directory that ls itself reads"


def test_what_a_step_leaves_behind_is_removed(build: Build, engine: sampan.Engine) -> None:
    with pytest.raises(BuildError):
        build(
            "FROM base\nRUN mkdir -p /deep/a/b && touch /deep/a/b/f && chown -R 1234:5 /deep"
            " && chmod 000 /deep/a/b /deep && mkfifo /fifo && (sleep 300 &) && false\n"
        )
    assert left_over(engine) == []
    assert "/snapshots/.active/" not in open("/proc/self/mountinfo").read()


def test_image_users_that_lie(build: Build) -> None:
    for user in ("4294967295", "2147483648", "-1", "18446744073709551616"):
        with pytest.raises(SampanError, match="out of range|invalid user"):
            build(f"FROM base\nUSER {user}\nRUN id -u\n")


def test_passwd_that_leads_outside(build: Build) -> None:
    with pytest.raises(BuildError, match="no such user"):
        build(
            "FROM base\nRUN mkdir -p /etc; rm -f /etc/passwd; mkfifo /etc/passwd\nCOPY --chown=root f /f\n", {"f": ""}
        )
    with pytest.raises(BuildError, match="no such user"):
        build(
            "FROM base\nRUN mkdir -p /etc; rm -f /etc/passwd; truncate -s 64M /etc/passwd\nCOPY --chown=root f /f\n",
            {"f": ""},
        )


def test_workdir_cannot_be_a_descriptor(build: Build) -> None:
    for number in (3, 7, 8, 10):
        try:
            built = build(
                f"FROM base\nWORKDIR /proc/self/fd/{number}\nRUN cat /etc/hostname ../../../etc/hostname; ls -d .\n"
            )
        except SampanError:
            continue
        assert os.uname().nodename not in built.output


def test_a_destination_cannot_leave_the_root(build: Build, engine: sampan.Engine) -> None:
    canary = engine.store.paths.root + "-canary"
    os.mkdir(canary)
    try:
        build(
            f"FROM base\nRUN ln -s {canary} /out && ln -s ../../../../..{canary} /up\n"
            "COPY f /out/\nCOPY f /up/g\nADD f /out/h\n",
            {"f": "x"},
        )
        assert os.listdir(canary) == []
    finally:
        os.rmdir(canary)


@pytest.mark.parametrize("step", ["COPY f /q/", "WORKDIR /q", "RUN mkdir /q && sleep 30"])
def test_interrupted_while_a_helper_starts_nothing_is_left(build: Build, engine: sampan.Engine, step: str) -> None:
    for number in range(8):
        stop = threading.Event()
        waiting = threading.Thread(target=interrupt_at_the_first_helper, args=(stop, set(children(os.getpid()))))
        waiting.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                build(
                    f"FROM base\nENV N={number}\nLABEL x=y\n{step}\nRUN sleep 30\n", {"f": str(number)}, no_cache=True
                )
        finally:
            stop.set()
            waiting.join()
        assert left_over(engine) == []


def interrupt_at_the_first_helper(stop: threading.Event, others: set[int]) -> None:
    """Send SIGINT to the main thread as soon as a helper of this process has begun with a child of its own."""
    while not stop.is_set():
        if any(children(helper) for helper in children(os.getpid()) if helper not in others):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found
