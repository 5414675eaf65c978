"""The lexer against hostile and random files: only SampanError escapes, soon, and it says where."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.dockerfile import lexer
from sampan.dockerfile.expand import expand
from sampan.dockerfile.instructions import From, Instruction, Run, onbuild, stages
from sampan.dockerfile.lexer import parse
from sampan.dockerfile.located import excerpt, shown
from sampan.errors import BuildError, SampanError

SERVICE = b"""# syntax=docker/dockerfile:1
FROM python:3.12-slim
WORKDIR /app
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt
COPY --chown=app:app . .
ENV A=1 B="two words"
CMD ["python", "-m", "app"]
"""

BOMBS = {
    "a 10 MiB line": b"FROM a\nRUN " + b"x" * (10 << 20) + b"\n",
    "a 10 MiB line of flags": b"FROM a\nRUN " + b"--mount=type=bind " * (10 << 16) + b"\n",
    "a 17 MiB file": b"FROM a\n" + b"# x\n" * (17 << 18),
    "two million lines": b"FROM a\n" + b"\n" * 2_000_000,
    "100k instructions": b"FROM a\n" + b"RUN x\n" * 100_000,
    "a million continuations": b"FROM a\nRUX \\\n" + b"x \\\n" * 999_000,
    "a million comments in a continuation": b"FROM a\nRUX \\\n" + b"#\n" * 999_000,
    "an open heredoc": b"FROM a\nRUN <<EOF\n" + b"x\n" * 900_000,
    "ten thousand heredocs": b"FROM a\nRUN cat " + b"<<a " * 10_000 + b"\n" + b"a\n" * 9_999,
    "ten thousand open quotes": b"FROM a\n" + b"RUN '<<a\n" * 9_998 + b"RUX\n",
    "NUL": b"FROM a\nRUN x\n" * 1000 + b"\0",
    "deep JSON": b"FROM a\nCMD " + b"[" * 60_000 + b"\nRUX\n",
    "deep JSON, closed": b"FROM a\nCMD " + b"[" * 30_000 + b"]" * 30_000 + b"\nRUX\n",
    "a JSON number of 60k digits": b"FROM a\nCMD [" + b"1" * 60_000 + b"]\nRUX\n",
    "many long JSON arrays": b"FROM a\n" + (b'CMD ["' + b"x" * 1500 + b'", 1 ]x\n') * 9000 + b"RUX\n",
    "many words": b"FROM a\n" + (b"ENV " + b"a=b " * 16_000 + b"\n") * 200 + b"RUX\n",
    "a wide exposed range": b"FROM a\n" + b"EXPOSE 1-65535 1-65535\n" * 9000 + b"RUX\n",
    "deep ONBUILD": b"FROM a\n" + b"ONBUILD " * 8000 + b"RUN x\n",
    "escapes": b"FROM a\nENV a=" + b"\\" * 65_000 + b"\nRUX\n",
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_give_a_located_error_soon(name: str) -> None:
    with pytest.raises(BuildError) as caught:
        stages(parse(BOMBS[name]))
    assert caught.value.line > 0
    assert caught.value.file == "Dockerfile"
    assert len(caught.value.excerpt) < 4000
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["a 10 MiB line", "a 17 MiB file", "a million continuations", "an open heredoc"])
def test_bombs_use_little_memory(name: str) -> None:
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20))\n"
        "from sampan.dockerfile.instructions import stages\n"
        "from sampan.dockerfile.lexer import parse\n"
        "from sampan.errors import BuildError\n"
        "try:\n    stages(parse(sys.stdin.buffer.read()))\n"
        "except BuildError as error:\n    print('refused', error.line)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], input=BOMBS[name], capture_output=True, timeout=60, check=True
    )
    assert done.stdout.startswith(b"refused "), done.stderr


def test_env_doubling_is_refused_with_its_line() -> None:
    _, found = stages(parse(b"FROM a\n" + b"ENV A=$A$A\n" * 64))
    variables = {"A": "x"}
    with pytest.raises(BuildError) as caught:
        for one in found[0].instructions:
            try:
                variables["A"] = expand("$A$A", variables)
            except BuildError as error:
                raise one.locate(error) from None
    assert caught.value.line == 22
    assert "22 | >>> ENV A=$A$A" in caught.value.excerpt


def test_a_line_of_the_allowed_length_is_read() -> None:
    line = b"RUN " + b"x" * (lexer.MAX_LINE - 4)
    assert parse(b"FROM a\n" + line).nodes[1].value == "x" * (lexer.MAX_LINE - 4)
    with pytest.raises(BuildError, match="Dockerfile:2: the line has 65536 bytes"):
        parse(b"FROM a\n" + line + b"x")


def test_a_service_is_read_with_few_calls() -> None:
    stages(parse(SERVICE))
    calls = 0

    def count(frame: object, event: str, what: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        stages(parse(SERVICE))
    finally:
        sys.setprofile(None)
    assert calls < 1000


def test_only_cheap_modules_are_imported() -> None:
    script = (
        "import sys\nbefore = set(sys.modules)\n"
        "from sampan.dockerfile import expand, ignore, instructions\n"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('sampan')))\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) <= {"__future__", "_json", "_signal"}


def test_the_name_of_the_file_is_in_errors() -> None:
    with pytest.raises(BuildError) as caught:
        parse(b"", "dir/Dockerfile.x")
    assert caught.value.file == "dir/Dockerfile.x"
    assert str(caught.value).startswith("dir/Dockerfile.x:1: ")


@pytest.mark.parametrize(
    "reference",
    ["docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.4", "docker.io/docker/dockerfile:1-labs"]
    + ["docker/dockerfile:1.7.0-labs", "docker/dockerfile:latest", "docker/dockerfile:experimental"],
)
def test_our_syntax(reference: str) -> None:
    assert parse(f"#syntax={reference}\nFROM a\n".encode()).directives["syntax"] == reference


@pytest.mark.parametrize(
    "reference",
    ["docker/dockerfile:2", "docker/dockerfile:10", "docker/dockerfilex:1", "x/docker/dockerfile:1", "evil.io/x"],
)
def test_other_syntaxes_are_refused(reference: str) -> None:
    with pytest.raises(BuildError, match="external syntax"):
        parse(f"# syntax = {reference}\nFROM a\n".encode())


def test_a_no_break_space_before_a_comment() -> None:
    assert [node.keyword for node in parse("\u00a0# x\nFROM a\n\u00a0RUN b \\\n\u00a0#c\n d\n".encode()).nodes] == [
        "FROM",
        "RUN",
    ]


def trigger(text: str, name: str) -> Instruction:
    return onbuild(text, parse(text.encode(), name))


def test_a_trigger_is_read_again() -> None:
    file = parse(b"FROM a\nONBUILD RUN --mount=type=cache,target=/c <<E\nmake\nE\n")
    text = stages(file)[1][0].instructions[0].instruction  # type: ignore[attr-defined]
    one = trigger(text, "ONBUILD of a")
    assert isinstance(one, Run)
    assert one.command() == "make\n"
    assert one.mounts[0]["target"] == "/c"


@pytest.mark.parametrize("text", ["FROM x", "ONBUILD RUN x", "MAINTAINER x", "RUN x\nRUN y", "", "NOPE", "RUN <<E\n"])
def test_a_hostile_trigger_is_refused(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        trigger(text, "ONBUILD of evil")
    assert caught.value.file == "ONBUILD of evil"


def test_excerpt_marks_lines_and_keeps_within_the_file() -> None:
    lines = [b"one", b"two", b"three\r", b"\tfour"]
    assert excerpt(lines, 1, 1) == "   1 | >>> one\n   2 |     two\n   3 |     three"
    assert excerpt(lines, 4, 9) == "   2 |     two\n   3 |     three\n   4 | >>>     four"
    assert excerpt(lines, 0, 0).startswith("   1 | >>> one")
    assert excerpt([], 1, 1) == ""
    assert "\x1b" not in excerpt([b"\x1b[2J\x9b\xe2\x80\xae" + "\u202e".encode()], 1, 1)
    assert "\u202e" not in excerpt(["\u202e".encode()], 1, 1)
    assert len(excerpt([b"x" * 9999], 1, 1)) < 200


def test_shown_is_one_printable_line() -> None:
    assert shown("a\nb\x1b") == "a\\x0ab\\x1b"
    assert shown("") == '""'
    assert shown(" a") == '" a"'
    assert len(shown("x" * 1000)) == 80


_KEYWORDS = st.sampled_from(
    ["FROM a", "RUN", "COPY", "ADD", "ENV", "ARG", "LABEL", "CMD", "EXPOSE", "HEALTHCHECK", "ONBUILD", "SHELL", "USER"]
    + ["VOLUME", "STOPSIGNAL", "WORKDIR", "# escape=`", "# syntax=", "#", "", "  "]
)
_PIECES = st.sampled_from(
    [
        "--mount=",
        "--from=",
        "type=cache",
        ",target=/x",
        "<<EOF",
        "<<-'E F'",
        "EOF",
        "\\\n",
        "`\n",
        "\n",
        "[",
        "]",
        '"a"',
    ]
    + [",", " ", "\t", "$x", "${x", "'", '"', "\\", "a=b", "=", "--", "80/tcp", "1-2", "CMD", "NONE", "--interval=1s"]
    + ["é", "\u00a0", "\r\n", "AS", "/", ":", "\x1b", "RUN", "\\u0000"]
)
_LINES = st.tuples(_KEYWORDS, st.lists(_PIECES, max_size=8).map("".join)).map(" ".join)


@settings(max_examples=800, deadline=None)
@given(st.lists(_LINES, max_size=6).map("\n".join))
def test_any_dockerfile_is_read_or_refused(text: str) -> None:
    _read_or_refuse(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _read_or_refuse(b"FROM a\n" + data)
    _read_or_refuse(data)


def _read_or_refuse(data: bytes) -> None:
    try:
        _, found = stages(parse(data))
    except SampanError as error:
        assert isinstance(error, BuildError) and error.line > 0
        assert "\n" not in str(error) and str(error).isprintable()
        return
    for stage in found:
        assert isinstance(stage.from_, From)
        for one in [stage.from_, *stage.instructions]:
            assert 0 < one.line <= one.end_line
            if isinstance(one, Run) and one.is_shell:
                one.command()
                one.script()
