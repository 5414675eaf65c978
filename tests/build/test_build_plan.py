"""The pure parts: stages and their order, arguments, keys, placement of copies, configuration."""

from __future__ import annotations

import pytest

from sampan.build import copying, graph, keys, metadata, running
from sampan.build.scope import Arguments, platform_arguments
from sampan.dockerfile import instructions, lexer
from sampan.errors import BuildError
from sampan.oci.platform import Platform

PLATFORMS = platform_arguments(Platform("linux", "arm64"), Platform("linux", "amd64"))


def made(text: str, target: str = "", **given: str) -> graph.Graph:
    return graph.build(lexer.parse(text.encode()), Arguments(given, PLATFORMS), target)


CHAIN = "FROM a AS one\nFROM one AS two\nFROM b\nCOPY --from=one /x /\nFROM two\nFROM c\nCOPY --from=2 / /\n"


@pytest.mark.parametrize(
    ("target", "order"),
    [("", [0, 2, 4]), ("one", [0]), ("two", [0, 1]), ("2", [0, 2]), ("3", [0, 1, 3]), ("TWO", [0, 1])],
)
def test_only_needed_stages_in_order(target: str, order: list[int]) -> None:
    assert made(CHAIN, target).order == order


def test_names_hide_earlier_ones_and_images() -> None:
    found = made("FROM x AS a\nFROM y AS a\nFROM a\nCOPY --from=a / /\nCOPY --from=elsewhere / /\n")
    assert found.stages[2].parent == 1
    assert found.stages[2].needs == {1}
    assert made("FROM 0\n").stages[0].parent == -1, "a number after FROM is an image"
    assert made("FROM scratch AS scratch\nFROM scratch\n").stages[1].parent == -1


def test_from_lines_use_global_arguments_only() -> None:
    text = "ARG BASE=debian\nARG TAG=12\nARG FULL=$BASE:$TAG\nFROM $FULL AS a\nARG BASE=x\nFROM ${BASE}\n"
    assert [stage.base for stage in made(text).stages] == ["debian:12", "debian"]
    assert [stage.base for stage in made(text, TAG="13").stages] == ["debian:13", "debian"]
    assert made("FROM --platform=$TARGETPLATFORM x\n").stages[0].platform == "linux/arm64"


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("FROM $NOTHING\n", "is empty after expansion", 1),
        ("FROM a\nCOPY --from=0 x y\n", "does not name an earlier stage", 2),
        ("FROM a AS own\nCOPY --from=own x y\n", "does not name an earlier stage", 2),
        ("FROM a\nFROM b\nCOPY --from=7 x y\n", "does not name an earlier stage", 3),
        ("RUN x\n", "before the first FROM", 1),
        ("ARG x=${y:?no}\nFROM a\n", "no", 1),
    ],
)
def test_located_errors(text: str, words: str, line: int) -> None:
    with pytest.raises(BuildError, match=words) as caught:
        made(text)
    assert caught.value.line == line


def test_arguments_of_a_stage() -> None:
    arguments = Arguments({"GIVEN": "1", "LATE": "2", "HTTPS_PROXY": "p", "BUILDKIT_INLINE_CACHE": "1"}, PLATFORMS)
    arguments.declare_global("G", "global", lambda word, _: word)
    arguments.declare_global("GIVEN", "0", lambda word, _: word)
    assert arguments.globals["GIVEN"] == "1"
    assert arguments.value("G", None) == "global"
    assert arguments.value("G", "own") == "own"
    assert arguments.value("GIVEN", "own") == "1"
    assert arguments.value("UNSET", None) is None
    assert arguments.value("TARGETARCH", None) == "arm64"
    assert arguments.value("BUILDPLATFORM", None) == "linux/amd64"
    assert arguments.proxies() == {"HTTPS_PROXY": "p"}
    assert arguments.unused() == ["LATE"]


def test_keys_tell_all_lists_apart() -> None:
    lists: list[keys.Field] = [
        None,
        "",
        b"",
        [],
        {},
        0,
        "a",
        b"a",
        ["a"],
        [["a"]],
        ["a", ""],
        ["", "a"],
        ["a", "b"],
        ["ab"],
        ["ab", ""],
        [["a"], "b"],
        ["a", ["b"]],
        {"a": "b"},
        1,
        "1",
        ["1"],
        -1,
    ]
    encoded = [keys.encode(field) for field in lists]
    assert len(set(encoded)) == len(lists)
    for one in encoded:
        assert not any(one != other and other.startswith(one) for other in encoded), "no encoding begins another"


def test_keys_are_the_same_on_every_machine() -> None:
    """Golden values: a change of these is a change of what every existing cache means (raise keys.VERSION)."""
    assert keys.key("workdir", "", "/app") == GOLDEN_WORKDIR
    assert keys.key("run", "c", ["/bin/sh", "-c", "make"], ["A=1"], "/", "", "none", b"") == GOLDEN_RUN
    assert keys.content([("", "D", 0o755, ""), ("f", "F", 0o644, "sha256:x"), ("l", "L", 0o777, "f")]) == GOLDEN_CONTENT


GOLDEN_WORKDIR = "6ac2ecdb9637b902c431ab850dcc13f4b225fb97767f330b753d558d787b96cf"
GOLDEN_RUN = "d1e8ebc58111e997b90ad07434534e131026f729dbb89180287f9cb4c56bef1e"
GOLDEN_CONTENT = "d23f557ef7ab7a6425c8c06f5be00f0075a710c334a5b19f4e2e41d76c7be1cc"


def test_content_tells_names_from_texts() -> None:
    rows = [("a", "F", 0o644, "bc"), ("ab", "F", 0o644, "c"), ("abc", "F", 0o644, ""), ("a", "L", 0o644, "bc")]
    assert len({keys.content([row]) for row in rows}) == 4
    assert keys.content(rows[:2]) != keys.content([("a", "F", 0o644, "bc\nF644 2 1 abc")])


def test_content_ignores_the_mode_of_links() -> None:
    assert keys.content([("l", "L", 0o777, "f")]) == keys.content([("l", "L", 0o755, "f")])
    assert keys.content([("f", "F", 0o644, "x")]) != keys.content([("f", "F", 0o600, "x")])


FILE, DIRECTORY = [("f", False)], [("d", True)]


@pytest.mark.parametrize(
    ("dest", "sources", "kind", "base", "rename"),
    [
        ("/x", FILE, "", "/", "x"),
        ("/x", FILE, "F", "/", "x"),
        ("/x", FILE, "D", "/x", ""),
        ("/x/", FILE, "", "/x", ""),
        ("/a/b", FILE, "", "/a", "b"),
        ("b", FILE, "", "/w", "b"),
        (".", FILE, "D", "/w", ""),
        ("./", FILE, "", "/w", ""),
        ("/x", DIRECTORY, "", "/", "x"),
        ("/x/", DIRECTORY, "", "/", "x"),
        ("/x", DIRECTORY, "D", "/x", ""),
        ("/x/", FILE + DIRECTORY, "", "/x", ""),
        ("/", FILE, "D", "/", ""),
        ("../../up", FILE, "", "/", "up"),
    ],
)
def test_placement(dest: str, sources: list[tuple[str, bool]], kind: str, base: str, rename: str) -> None:
    step = instructions.instruction(lexer.parse(f"COPY a {dest}\n".encode()).nodes[0])
    assert isinstance(step, instructions.Copy)
    words = copying.Words(step, lambda word: word, "/w")
    found = copying.place(step, words, sources, kind)
    assert (found.base, found.rename) == (base, rename)


def test_environment_keeps_places() -> None:
    state = metadata.State()
    state.config["Env"] = ["A=1", "broken", "B=2"]
    state.set_env("A", "3")
    state.set_env("C", "x=y")
    assert state.config["Env"] == ["A=3", "broken", "B=2", "C=x=y"]
    assert state.env() == {"A": "3", "B": "2", "C": "x=y"}
    state.args["A"] = "argument"
    assert state.scope()["A"] == "3"


def test_ports_are_expanded_with_the_escape_character_of_the_file() -> None:
    _, stages = instructions.stages(lexer.parse(b"# escape=`\nFROM a\nEXPOSE 8`0\n"))
    state = metadata.State()
    assert metadata.apply(state, stages[0].instructions[0], lambda word: word) == "EXPOSE 80/tcp"


def test_a_stage_does_not_change_the_one_it_stands_on() -> None:
    state = metadata.scratch()
    new = state.copy()
    new.set_env("A", "1")
    new.config["Labels"] = {"a": "b"}
    new.diff_ids.append("x")
    new.row("text", "", True)
    assert state.config == metadata.scratch().config
    assert state.diff_ids == [] and state.history == []


@pytest.mark.parametrize(
    ("start", "path", "result"),
    [
        ("", "a", "/a"),
        ("/a", "b", "/a/b"),
        ("/a", "/b", "/b"),
        ("/a", "../../c", "/c"),
        ("/a", ".", "/a"),
        ("/", "//x//y/", "/x/y"),
    ],
)
def test_workdir(start: str, path: str, result: str) -> None:
    state = metadata.State()
    state.config["WorkingDir"] = start
    assert state.workdir(path) == result


def test_a_failed_step_is_told_of_the_network_or_of_the_one_id() -> None:
    process = running.Process([], [], "/", "", "none", b"")
    assert "only one id" in running._hint(process, "make && chown -R app:app /srv", True)
    assert running._hint(process, "make && chown -R app:app /srv", False) == ""
    assert "--network host" in running._hint(process, "apt-get install -y x", True)
    process.network = "host"
    assert "only one id" in running._hint(process, "apt-get install -y x", True)
    assert running._hint(process, "apt-get install -y x", False) == ""
