"""Filters and templates that are wrong: the exit codes are those of docker 28's client, seen side by side."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

import sampan

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "bin" / "sampan"
Ending = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def ending() -> Iterator[Ending]:
    """Give a function that runs a command on a store with one image, and tells its exit code and its error."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-") as root:
        os.chmod(root, 0o711)
        engine = sampan.Engine(root)
        engine.bootstrap("host", "base", ["true"])
        engine.volumes.create("data")
        engine.close()
        env = {**os.environ, "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"]}

        def run(*words: str) -> tuple[int, str]:
            argv = [str(LAUNCHER), "--root", root, *words]
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=env
            )
            return done.returncode, done.stderr

        yield run


FILTERED = [
    *("ps", "events --since 1s --until 0s", "images", "volume ls", "search x", "container prune -f", "image prune -f"),
    *("volume prune -f", "builder prune -f", "system prune -f"),
]


@pytest.mark.parametrize("words", FILTERED)
def test_a_filter_without_a_value_is_a_wrong_option(ending: Ending, words: str) -> None:
    code, said = ending(*words.split(), "--filter", "foo")
    assert code == 125, said
    assert said.startswith("sampan: option --filter of ")
    assert said.endswith(": 'foo' is not KEY=VALUE\n")


@pytest.mark.parametrize("words", FILTERED)
def test_a_filter_that_there_is_not_is_a_failure(ending: Ending, words: str) -> None:
    code, said = ending(*words.split(), "--filter", "foo=x")
    assert code == 1, said
    assert "filter" in said and "foo" in said and "hint: " in said


@pytest.mark.parametrize(
    "words",
    [
        "ps --filter =x",
        "ps --filter status=bogus",
        "ps --filter status=",
        "ps --filter exited=x",
        "ps --filter before=nosuch",
        "images --filter dangling=maybe",
        "images --filter reference=[",
        "volume ls --filter dangling=maybe",
        "image prune -f --filter until=abc",
        "search --filter stars=abc x",
    ],
)
def test_a_value_that_a_filter_does_not_take_is_a_failure(ending: Ending, words: str) -> None:
    code, said = ending(*words.split())
    assert code == 1, said
    assert said.startswith("sampan: ")


def test_an_empty_filter_asks_for_nothing(ending: Ending) -> None:
    assert ending("ps", "--filter", "") == (0, "")


@pytest.mark.parametrize("broken", ["{{", "{{if .Id}}", "{{nosuch .Id}}", "{{$x}}", "{{end}}"])
@pytest.mark.parametrize(
    "words",
    ["inspect base", "inspect nosuch", "volume inspect data", "version", "info", "events --since 1s --until 0s"],
)
def test_a_template_that_cannot_be_read_ends_inspect_and_a_few_others_with_64(
    ending: Ending, words: str, broken: str
) -> None:
    code, said = ending(*words.split(), "--format", broken)
    assert code == 64, said
    assert said.startswith("sampan: format template, line 1 column ")


@pytest.mark.parametrize("words", ["ps", "images", "history base", "volume ls", "system df"])
def test_a_template_that_cannot_be_read_is_a_failure_elsewhere(ending: Ending, words: str) -> None:
    for broken in ("{{", "{{nosuch .ID}}", "table {{"):
        code, said = ending(*words.split(), "--format", broken)
        assert code == 1, said
        assert said.startswith("sampan: format template, line 1 column ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("inspect base", 1),
        ("volume inspect data", 1),
        ("version", 1),
        ("info", 1),
        ("images", 1),
        ("history base", 1),
        ("system df", 1),
        ("events --since 1h --until 0s", 64),
    ],
)
def test_a_field_that_there_is_not_is_a_failure(ending: Ending, words: str, code: int) -> None:
    found, said = ending(*words.split(), "--format", "{{.Nosuch}}")
    assert found == code, said
    assert "there is no field .Nosuch" in said
