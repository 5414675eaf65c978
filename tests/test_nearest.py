"""Guesses of what was meant: near ones are made, others are not."""

from __future__ import annotations

import pytest

from sampan.cli import create, run
from sampan.errors import InvalidArgument
from sampan.nearest import did_you_mean, nearest

KEYWORDS = ["RUN", "FROM", "COPY", "ENTRYPOINT", "CMD"]
LONGS = [option.long for option in run.OPTIONS.options]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("rnu", "RUN"),
        ("FORM", "FROM"),
        ("ENTRYPIONT", "ENTRYPOINT"),
        ("ENTYPOIN", "ENTRYPOINT"),
        ("ENTRY", "ENTRYPOINT"),
        ("MAKE", ""),
        ("", ""),
        ("R", ""),
        ("EN", ""),
        ("X" * 100_000, ""),
    ],
)
def test_keywords(typed: str, meant: str) -> None:
    assert nearest(typed, KEYWORDS) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nmae", "name"),
        ("netwrok", "network"),
        ("memroy", "memory"),
        ("detach-key", "detach-keys"),
        ("privilige", "privileged"),
        ("read_only", "read-only"),
        ("env-files", "env-file"),
        ("stop-timout", "stop-timeout"),
        ("nosuch", ""),
        ("bogus", ""),
        ("xyz", ""),
        ("foo", ""),
        ("colour", ""),
        ("dry-run", ""),
        ("verbose", ""),
    ],
)
def test_options(typed: str, meant: str) -> None:
    assert nearest(typed, LONGS) == meant


def test_of_two_letters_no_half_is_guessed() -> None:
    assert nearest("qs", ["ps", "ls"]) == "" and nearest("wb", ["web"]) == "web" and nearest("x", ["y"]) == ""


def test_the_nearest_wins_over_one_that_begins_so() -> None:
    assert nearest("web", ["web-server", "wed"]) == "wed"
    assert did_you_mean("data", ["database-of-all", "database"]) == "did you mean database?"


@pytest.mark.parametrize("words", [["--nosuch", "x"], ["--bogus", "x"]])
def test_an_option_like_no_other_leads_to_the_help(words: list[str]) -> None:
    from sampan.cli.options import parse

    for command in (run.OPTIONS, create.OPTIONS):
        with pytest.raises(InvalidArgument) as caught:
            parse(words, command)
        assert caught.value.hint.startswith("see ") or "--help" in caught.value.hint
