"""Commands of sampan without an interpreter's start for each: a process that has loaded them forks for every one.

    forker.py     reads lines of JSON [environment, words], writes {"code", "out", "err"}; without words it collects

What a fault test does after a kill is a dozen commands, most of whose time is the start. The command that is killed is
always started as a user starts it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys

import sampan.engine
import sampan.store
from sampan.cli.main import main


def load() -> None:
    """Import what commands import when they run."""
    for package in (sampan.store, sampan.engine):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


def collect() -> int:
    """Remove what no record tells of, however young: tests do not wait for the minute that others are given."""
    from sampan.engine import leftovers

    leftovers.collect(sampan.Engine(os.environ["SAMPAN_ROOT"]), seconds=0)
    return 0


def child(environment: dict[str, str], words: list[str], out: int, err: int) -> None:
    """Be one command; never returns."""
    code = 125
    try:
        os.environ.update(environment)
        null = os.open("/dev/null", os.O_RDONLY)
        for fd, number in ((null, 0), (out, 1), (err, 2)):
            os.dup2(fd, number)
        os.closerange(3, 64)
        sys.stdin, sys.stdout, sys.stderr = (
            open(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        code = main(words) if words else collect()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def serve() -> None:
    """Answer until the input ends."""
    load()
    answers = os.dup(1)
    for line in sys.stdin:
        environment, words = json.loads(line)
        out, err = os.memfd_create("out"), os.memfd_create("err")
        pid = os.fork()
        if pid == 0:
            child(environment, words, out, err)
        _, status = os.waitpid(pid, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "out": text(out), "err": text(err)}
        os.write(answers, json.dumps(answer).encode() + b"\n")


def text(fd: int) -> str:
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    serve()
