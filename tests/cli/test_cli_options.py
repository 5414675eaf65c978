"""The option parser: Docker's ways of writing options, values with units, and errors that help."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli import help as helps
from sampan.cli import quantities
from sampan.cli.options import BYTES, DURATION, FLAG, INT, LIST, MAP, NUMBER, Command, HelpAsked, Option, parse
from sampan.errors import InvalidArgument, NotSupported

OPTIONS = (
    Option("rm", "", FLAG, "Remove it"),
    Option("interactive", "i", FLAG, "Keep standard input open"),
    Option("tty", "t", FLAG),
    Option("sig-proxy", "", FLAG, default=True),
    Option("env", "e", LIST, "Set a variable"),
    Option("name", "", help="A name"),
    Option("memory", "m", BYTES),
    Option("tail", "n", INT),
    Option("cpus", "", NUMBER),
    Option("time", "", DURATION, aliases=("timeout",)),
    Option("build-arg", "", MAP),
    Option("pull", "", choices=("always", "never"), default="never"),
    Option("publish", "p", LIST, refuse="it needs a bridge network", hint="use --network host"),
)
RUN = Command("run", "Run it", "IMAGE [COMMAND] [ARG...]", OPTIONS, interspersed=False, examples=("sampan run x",))
BUILD = Command("build", "Build it", "PATH", OPTIONS)


def values(*words: str, command: Command = RUN) -> Any:
    return parse(words, command)


def test_defaults() -> None:
    got = values("image")
    assert (got.rm, got.sig_proxy, got.env, got.name, got.memory, got.build_arg) == (False, True, [], "", None, {})
    assert got.args == ["image"]
    assert got.given == set()


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--name", "web"], "name", "web"),
        (["--name=web"], "name", "web"),
        (["--name="], "name", ""),
        (["--name", "--rm"], "name", "--rm"),
        (["--name=a=b"], "name", "a=b"),
        (["--rm"], "rm", True),
        (["--rm=false"], "rm", False),
        (["--rm=1"], "rm", True),
        (["--sig-proxy=false"], "sig_proxy", False),
        (["-it"], "tty", True),
        (["-it=false"], "tty", False),
        (["-e", "A=1", "-e", "B=2"], "env", ["A=1", "B=2"]),
        (["-eA=1"], "env", ["A=1"]),
        (["-e=A=1"], "env", ["A=1"]),
        (["-iteA=1"], "env", ["A=1"]),
        (["-ite", "A=1"], "env", ["A=1"]),
        (["-e", "-"], "env", ["-"]),
        (["-m", "64m"], "memory", 64 << 20),
        (["-m64m"], "memory", 64 << 20),
        (["--memory=-1"], "memory", -1),
        (["-n", "-1"], "tail", -1),
        (["--cpus", "1.5"], "cpus", 1.5),
        (["--time", "1m30s"], "time", 90.0),
        (["--timeout=5"], "time", 5.0),
        (["--build-arg", "A=1", "--build-arg", "B", "--build-arg=A=2"], "build_arg", {"A": "2", "B": ""}),
        (["--pull", "always"], "pull", "always"),
    ],
)
def test_ways_to_write_an_option(words: list[str], name: str, expected: object) -> None:
    assert getattr(values(*words, "image"), name) == expected


def test_program_options_are_its_own() -> None:
    got = values("--rm", "image", "ls", "-la", "--name", "x", "--", "y")
    assert got.args == ["image", "ls", "-la", "--name", "x", "--", "y"]
    assert got.name == ""


def test_double_dash_ends_options() -> None:
    assert values("--rm", "--", "image", "--name").args == ["image", "--name"]
    assert values("--", "-x", command=BUILD).args == ["-x"]


def test_options_may_follow_arguments_of_other_commands() -> None:
    got = values(".", "--name", "x", command=BUILD)
    assert (got.args, got.name) == (["."], "x")


def test_a_lone_dash_is_an_argument() -> None:
    assert values("-", command=BUILD).args == ["-"]


@pytest.mark.parametrize(
    ("words", "why", "hint"),
    [
        (["--nmae", "x", "image"], "unknown option --nmae of run", "did you mean --name?"),
        (["--qqqqq", "image"], "unknown option --qqqqq", "sampan run --help"),
        (["-z", "image"], "unknown option -z", "sampan run --help"),
        (["-iz", "image"], "unknown option -z", ""),
        (["--name"], "option --name of run needs a value", ""),
        (["-e"], "option -e of run needs a value", ""),
        (["--rm=maybe", "image"], "option --rm of run: 'maybe' is neither true nor false", ""),
        (["-m", "64q", "image"], "'64q' is not a size", ""),
        (["-n", "x", "image"], "'x' is not an integer", ""),
        (["--cpus", "nan", "image"], "'nan' is not a number", ""),
        (["--pull", "often", "image"], "'often' is none of always, never", ""),
        (["--build-arg", "=x", "image"], "not KEY=VALUE", ""),
        ([], "run needs at least 1 argument", "usage: sampan run [OPTIONS] IMAGE"),
    ],
)
def test_errors_say_which_option_and_why(words: list[str], why: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        values(*words)
    assert why in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == (125 if words else 1)


def test_too_many_arguments() -> None:
    with pytest.raises(InvalidArgument, match="takes at most 1 argument, not 2"):
        values("a", "b", command=BUILD)
    with pytest.raises(InvalidArgument, match="takes no arguments"):
        parse(["a"], Command("ps", "List"))


def test_a_refused_option_says_what_to_do_instead() -> None:
    with pytest.raises(NotSupported) as caught:
        values("-p", "80:80", "image")
    assert "bridge network" in caught.value.message
    assert caught.value.hint == "use --network host"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--rm", "--help"]])
def test_help_is_asked_anywhere(words: list[str]) -> None:
    with pytest.raises(HelpAsked):
        values(*words)


def test_help_text_shows_every_option_and_what_is_not_there() -> None:
    text = helps.help_text(RUN)
    for option in OPTIONS:
        assert "--" + option.long in text
    assert "Usage:  sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]" in text
    assert "refused here:\n  --publish" in text
    assert "(always, never) (default never)" in text
    assert "sampan run x" in text


def test_many_options_are_shown_in_groups_each_once() -> None:
    from sampan.cli import main

    for word in ("run", "create"):
        text = helps.help_text(main.load_command(word).OPTIONS)
        for option in main.load_command(word).OPTIONS.options:
            assert text.count(f"--{option.long} ") + text.count(f"--{option.long},") >= 1 or option.refuse, option.long
        assert "\nLimits:\n" in text and "\nRights and namespaces:\n" in text and "\nMore options:\n" in text
        assert max(len(line) for line in text.splitlines()) <= 120
        limits = text.partition("\nLimits:\n")[2].partition("\n\n")[0]
        assert "--memory bytes" in limits and "--hostname" not in limits


def test_the_overview_shows_every_command_once() -> None:
    from sampan.cli import main

    text = helps.overview(main.COMMANDS, ["volume"])
    for word in main.COMMANDS:
        assert text.count(f"\n  {word} ") == 1, word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1024),
        ("1KB", 1024),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("0.5 k", 512),
        ("2t", 2 << 40),
        ("-1", -1),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert quantities.parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "m", "-5", "1.m.", "1e3", "64x", "1..5g", "1mm", "bb", "٣", "1 2", "nan", "0x10", "1ib"]
)
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        quantities.parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", 10.0),
        ("10s", 10.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("300ms", 0.3),
        ("-5s", -5.0),
        ("0", 0.0),
        (".5s", 0.5),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert quantities.parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "-", "1x", "1m30", "1 s", "1..2s", ".s", "1d", "٣s", "1s\n"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        quantities.parse_duration(text)
