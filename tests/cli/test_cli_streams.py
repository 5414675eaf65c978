"""Standard streams that are of the wrong kind: a directory, closed, full, open the wrong way, without a reader."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

import sampan

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "bin" / "sampan"
Shell = Callable[..., "subprocess.CompletedProcess[str]"]
FULL = "No space left on device"
BACKWARDS = "it is open for reading only"


@pytest.fixture(scope="module")
def shell(with_base: Callable[[list[str]], AbstractContextManager[sampan.Engine]]) -> Iterator[Shell]:
    """Run a line of bash in which `sampan` is the command; a container `up` runs, `web` has printed a line."""
    with with_base(["sh", "cat", "echo", "sleep", "readlink"]) as engine:

        def run(line: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
            begin = 'set -o pipefail; sampan() { "$LAUNCHER" --root "$ROOT" "$@"; }; '
            env = {**os.environ, "LAUNCHER": str(LAUNCHER), "ROOT": engine.store.paths.root}
            words = ["bash", "-c", begin + line]
            pipes = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.PIPE}
            return subprocess.run(words, env=env, text=True, timeout=60, check=False, **pipes)  # type: ignore[call-overload,no-any-return]

        done = run("sampan run --name web base echo hello && sampan run -d --name up base sleep 1000")
        assert done.returncode == 0, done.stderr
        yield run


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, bool]:
    """Give the exit code, the one error, and whether a hint came with it."""
    first, *rest = done.stderr.splitlines() or [""]
    assert len(rest) == (1 if rest and rest[0].startswith("hint: ") else 0), done.stderr
    return done.returncode, first.removeprefix("sampan: "), bool(rest)


READERS = {
    "load": "images",
    "import -": "a file system",
    "cp - web:/": "an archive",
    "build -": "the Dockerfile",
    "build -f - .": "the Dockerfile",
    "login -u me --password-stdin localhost:1": "the password",
    "image prune": "the answer",
    "system dial-stdio": "requests",
}


@pytest.mark.parametrize("words", READERS)
@pytest.mark.parametrize(("stream", "fault"), [("< /", "is a directory"), ("0> /dev/null", "is open for writing only")])
def test_what_cannot_be_read_is_told(shell: Shell, words: str, stream: str, fault: str) -> None:
    expected = f"cannot read {READERS[words]} from standard input: it {fault}"
    assert said(shell(f"sampan {words} {stream}")) == (1, expected, True)


@pytest.mark.parametrize("stream", ["< /", "0> /dev/null", "<&-"])
def test_who_reads_nothing_does_not_mind(shell: Shell, stream: str) -> None:
    done = shell(f"sampan ps -q {stream} | wc -l; sampan run --rm base echo x {stream}")
    assert (done.stdout, done.stderr) == ("1\nx\n", "")


@pytest.mark.parametrize("words", ["run --rm -i base", "exec -i up", "run --rm -i --name=x base"])
@pytest.mark.parametrize("stream", ["< /", "<&-"])
def test_a_program_is_given_nothing_of_the_hosts_instead(shell: Shell, words: str, stream: str) -> None:
    """Neither the directory, from which `..` leads to all others, nor what got its number when it was closed."""
    done = shell(f"sampan {words} cat {stream}; sampan {words} readlink /proc/self/fd/0 {stream}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("/dev/null", "pipe:"))


PRINTERS = ["images", "ps", "inspect web", "version", "help", "ps --help", "completion bash", "run -d base sleep 0",
            "events --since 1h --until 0s", "system df"]  # fmt: skip


@pytest.mark.parametrize("words", PRINTERS)
@pytest.mark.parametrize(("stream", "why"), [("> /dev/full", FULL), ("1< /dev/null", BACKWARDS)])
def test_what_cannot_be_printed_is_told(shell: Shell, words: str, stream: str, why: str) -> None:
    code, error, hint = said(shell(f"sampan {words} {stream}"))
    assert (code in (1, 125), error, hint) == (True, f"cannot write to standard output: {why}", True)


ARCHIVES = {"save base": "images", "export web": "a file system", "cp web:/ -": "an archive", "logs web": "the log"}


@pytest.mark.parametrize("words", ARCHIVES)
@pytest.mark.parametrize(("stream", "why"), [("> /dev/full", FULL), ("1< /dev/null", BACKWARDS)])
def test_an_archive_that_cannot_be_written_is_told(shell: Shell, words: str, stream: str, why: str) -> None:
    expected = f"cannot write {ARCHIVES[words]} to standard output: {why}"
    assert said(shell(f"sampan {words} {stream}")) == (1, expected, True)


@pytest.mark.parametrize("words", [*PRINTERS, *ARCHIVES])
def test_a_reader_that_has_left_is_worth_no_word(shell: Shell, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = shell(f"sampan {words}", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [*PRINTERS, "save base", "export web", "run --rm base echo x", "logs web"])
def test_a_closed_output_is_nowhere(shell: Shell, words: str) -> None:
    done = shell(f"sampan {words} >&-")
    assert (done.returncode, done.stderr) == (0, "")
