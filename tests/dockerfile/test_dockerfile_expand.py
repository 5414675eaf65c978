"""Word expansion, against results of Docker's shell-word rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.dockerfile import expand as module
from sampan.dockerfile import substitute
from sampan.dockerfile.expand import expand, expand_text, expand_words
from sampan.errors import BuildError, SampanError

ENV = {
    "PWD": "/home",
    "SHELL": "bash",
    "KO": "한국어",
    "NULL": "",
    "x": "1",
    "path": "/a/b.tar.gz",
    "_": "u",
    "A1": "z",
}

ROWS = [
    # plain, quotes, escapes
    ("hello", "hello"),
    ("he'll'o", "hello"),
    ("he'llo'", "hello"),
    ("he\\'llo", "he'llo"),
    ("he\\\\'llo'", "he\\llo"),
    ("abc\\tdef", "abctdef"),
    ('"abc\\tdef"', "abc\\tdef"),
    ("'abc\\tdef'", "abc\\tdef"),
    ("hello\\", "hello"),
    ("hello\\\\", "hello\\"),
    ('"hello"', "hello"),
    ("\"he'l'lo\"", "he'l'lo"),
    ('"he\\"llo"', 'he"llo'),
    ('"he\\\\llo"', "he\\llo"),
    ('"he\\$PWD"', "he$PWD"),
    ("'he\"llo'", 'he"llo'),
    ("'he$PWD'", "he$PWD"),
    ('""', ""),
    ("''", ""),
    ("a  b\tc", "a  b\tc"),
    ("", ""),
    # $name
    ("$PWD", "/home"),
    ("he$PWD.", "he/home."),
    ("he$PWDx", "he"),
    ('"$PWD"', "/home"),
    ("he$", "he$"),
    ("he$.", "he$."),
    ("he$ x", "he$ x"),
    ("\\$PWD", "$PWD"),
    ("\\\\$PWD", "\\/home"),
    ("$SHELL$PWD", "bash/home"),
    ("$KO", "한국어"),
    ("안녕$KO", "안녕한국어"),
    ("$_", "u"),
    ("$A1", "z"),
    ("$A1b", ""),
    ("$unset", ""),
    ("$NULL", ""),
    ("$1", ""),
    ("$1a", "a"),
    ("$12a", "a"),
    ("$$", ""),
    ("$@x", "x"),
    ("$?", ""),
    ("$!", ""),
    ("$-x", "x"),
    ("$#", ""),
    ("$*", ""),
    ("a$%b", "a$%b"),
    ("$(date)", "$(date)"),
    ("$PWD/$x/$NULL", "/home/1/"),
    # ${name} and defaults
    ("${PWD}", "/home"),
    ("he${PWD}xx", "he/homexx"),
    ("${unset}", ""),
    ("${NULL}", ""),
    ("${1}", ""),
    ("${x:-y}", "1"),
    ("${unset:-y}", "y"),
    ("${NULL:-y}", "y"),
    ("${x-y}", "1"),
    ("${unset-y}", "y"),
    ("${NULL-y}", ""),
    ("${x:+y}", "y"),
    ("${unset:+y}", ""),
    ("${NULL:+y}", ""),
    ("${x+y}", "y"),
    ("${unset+y}", ""),
    ("${NULL+y}", "y"),
    ("${x:-}", "1"),
    ("${unset:-}", ""),
    ("${unset:-$PWD}", "/home"),
    ("${unset:-${PWD}}", "/home"),
    ("${unset:-${also:-${PWD}}}", "/home"),
    ("${unset:-a b}", "a b"),
    ("${unset:-'a}b'}", "a}b"),
    ('${unset:-"a}b"}', "a}b"),
    ("${unset:-a\\}b}", "a}b"),
    ("${unset:-a:b}", "a:b"),
    ("${x:?message}", "1"),
    ("${x?message}", "1"),
    ("${NULL?message}", ""),
    ('"${unset:-a b}"', "a b"),
    ("v${x:+-${x}}.tar", "v-1.tar"),
    # prefixes and suffixes
    ("${path#/}", "a/b.tar.gz"),
    ("${path#*/}", "a/b.tar.gz"),
    ("${path##*/}", "b.tar.gz"),
    ("${path%.*}", "/a/b.tar"),
    ("${path%%.*}", "/a/b"),
    ("${path%/*}", "/a"),
    ("${path%%/*}", ""),
    ("${path#x}", "/a/b.tar.gz"),
    ("${path%x}", "/a/b.tar.gz"),
    ("${path#}", "/a/b.tar.gz"),
    ("${path##}", "/a/b.tar.gz"),
    ("${path%}", "/a/b.tar.gz"),
    ("${path#*}", "/a/b.tar.gz"),
    ("${path##*}", ""),
    ("${path%%*}", ""),
    ("${path#?}", "a/b.tar.gz"),
    ("${path#??}", "/b.tar.gz"),
    ("${path%?}", "/a/b.tar.g"),
    ("${path%.??}", "/a/b.tar"),
    ("${path#/?/}", "b.tar.gz"),
    ("${path##*?.}", "gz"),
    ("${path%${unset:-.gz}}", "/a/b.tar"),
    ("${unset#x}", ""),
    ("${unset##*}", ""),
    # replacement
    ("${path/a/X}", "/X/b.tar.gz"),
    ("${path//a/X}", "/X/b.tXr.gz"),
    ("${path/./-}", "/a/b-tar.gz"),
    ("${path//./-}", "/a/b-tar-gz"),
    ("${path/x/y}", "/a/b.tar.gz"),
    ("${path/.*/}", "/a/b"),
    ("${path/b*r/Z}", "/a/Z.gz"),
    ("${path//?a/Z}", "Z/b.Zr.gz"),
    ("${path/\\//-}", "-a/b.tar.gz"),
    ("${path//\\//\\/}", "\\/a\\/b.tar.gz"),
    ("${path//\\//$x}", "1a1b.tar.gz"),
    ("${path///}", "/a/b.tar.gz"),
    ("${unset/a/b}", ""),
    ("${unset//a/b}", ""),
    ("${x/1/$}", "$"),
    ("${x//*/[&]}", "[&]"),
]

ERRORS = [
    ("'hello", "single-quote"),
    ('"hello', "double-quote"),
    ('"hello$PWD', "double-quote"),
    ("${", "missing '}'"),
    ("${PWD", "missing '}'"),
    ("he${PWD", "missing '}'"),
    ("${PWD:", "missing '}'"),
    ("${PWD:-", "missing '}'"),
    ("${PWD:-x", "missing '}'"),
    ("${PWD:-${x}", "missing '}'"),
    ("${}", "bad substitution"),
    ("${{x}", "bad substitution"),
    ("${:x}", "bad substitution"),
    ("${:}", "bad substitution"),
    ("${PWD=aaa}", "unsupported modifier (=)"),
    ("${PWD:=aaa}", "unsupported modifier (:=)"),
    ("${PWD:1}", "unsupported modifier (:1)"),
    ("${PWD^^}", "unsupported modifier (^)"),
    ("${PWD,,}", "unsupported modifier (,)"),
    ("${#x}", "unsupported modifier (x)"),
    ("${PWD x}", 'unsupported modifier (" ")'),
    ("${unset:?}", "unset: is not allowed to be unset"),
    ("${unset?}", "unset: is not allowed to be unset"),
    ("${NULL:?}", "NULL: is not allowed to be empty"),
    ("${unset:?set it to $PWD}", "unset: set it to /home"),
    ("${path/a}", "missing '/'"),
    ("${path//a}", "missing '/'"),
    ("${path//}", "missing '/'"),
    ("${path/a/b", "missing '}'"),
    ("${path#\\x}", "invalid escape \\x"),
    ("${path#'a}", "single-quote"),
]


@pytest.mark.parametrize(("word", "expected"), ROWS)
def test_expands(word: str, expected: str) -> None:
    assert expand(word, ENV) == expected


@pytest.mark.parametrize(("word", "message"), ERRORS)
def test_refuses(word: str, message: str) -> None:
    with pytest.raises(BuildError, match=re.escape(message)):
        expand(word, ENV)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("hello", ["hello"]),
        ("  hello  bye ", ["hello", "bye"]),
        ("hello\\ bye", ["hello bye"]),
        ("'hello bye'", ["hello bye"]),
        ('"hello bye" abc', ["hello bye", "abc"]),
        ("a'b c'd", ["ab cd"]),
        ("$two", ["a", "b"]),
        ("x$two", ["xa", "b"]),
        ("${two}y", ["a", "by"]),
        ('"$two"', ["a b"]),
        ("'$two'", ["$two"]),
        ("${no:-x y}", ["x", "y"]),
        ("$none", []),
        ("", []),
        ('""', []),
        ("a\tb\u00a0c", ["a", "b", "c"]),
        ("$padded", ["p", "q"]),
        ("1${padded}2", ["1", "p", "q", "2"]),
    ],
)
def test_splits_after_expansion(word: str, expected: list[str]) -> None:
    assert expand_words(word, {"two": "a b", "padded": "  p  q "}) == expected


def test_the_other_escape_character() -> None:
    assert expand("C:\\dir\\$x", ENV, "`") == "C:\\dir\\1"
    assert expand("`$x`", ENV, "`") == "$x"
    assert expand('"`"a`b"', ENV, "`") == '"a`b'


def test_heredoc_text_keeps_quotes() -> None:
    assert expand_text("it's \"$x\" \\$x ${no:-'d'}\n", ENV) == "it's \"1\" $x 'd'\n"
    assert expand_text("nothing to do'", ENV) == "nothing to do'"


def test_special_characters_of_regular_expressions_are_ordinary() -> None:
    value = "()[]{}^$.*?|\\x"
    assert expand("${FOO#()[]{\\}^$.\\*\\?|\\\\}", {"FOO": value}) == "x"
    assert expand("${FOO%%\\**}", {"FOO": "xx**"}) == "xx"
    assert expand("${FOO#*x*y}", {"FOO": "xxyy"}) == "y"
    assert expand("${FOO%%\\**\\*}", {"FOO": "a***yy*"}) == "a"
    assert expand("${FOO#?\\?}", {"FOO": "???y"}) == "?y"
    needle = {"FOO": "/foo*/*/*.txt", "N": "\\*/"}
    assert expand("${FOO/$N/.} - ${FOO//$N/.}", needle) == "/foo.*/*.txt - /foo..*.txt"
    assert expand("${FOO/$N/R}", {"FOO": "http://x", "N": "http://"}) == "Rx"
    assert expand("${FOO//$N/$R}", {"FOO": "/a/foo/b/c", "N": "/?/", "R": "/"}) == "/foo/c"
    assert expand("${FOO/$BAR/ww}", {"FOO": "xxyy", "BAR": ""}) == "wwxxyy"
    assert expand('${FOO#"a\\b"}', {"FOO": "a\\bc"}) == "c"


def _oracle(pattern: str, greedy: bool) -> str:
    star = ".*" if greedy else ".*?"
    return "".join(star if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)


_PATTERNS = st.text("ab*?", max_size=6)
_VALUES = st.text("abc", max_size=10)


@settings(max_examples=400, deadline=None)
@given(_PATTERNS, _VALUES, st.booleans())
def test_patterns_agree_with_regular_expressions(pattern: str, value: str, greedy: bool) -> None:
    segments = substitute.compile_pattern(pattern)
    prefix = re.match(_oracle(pattern, greedy), value, re.DOTALL)
    assert substitute.trim_prefix(segments, value, greedy) == (value[prefix.end() :] if prefix else value)
    suffix = re.match(_oracle(pattern[::-1], greedy), value[::-1], re.DOTALL)
    assert substitute.trim_suffix(segments, value, greedy) == (value[::-1][suffix.end() :][::-1] if suffix else value)
    found = re.search(_oracle(pattern, True), value, re.DOTALL)
    expected = value[: found.start()] + "R" + value[found.end() :] if found else value
    assert substitute.replace_first(segments, value, "R") == expected


def test_replacing_empty_matches_as_go_does() -> None:
    def replaced(pattern: str, value: str) -> str:
        return substitute.replace_all(substitute.compile_pattern(pattern), value, "-", 99)

    assert replaced("", "abc") == "-a-b-c-"
    assert replaced("*", "abc") == "-"
    assert replaced("?", "abc") == "---"
    assert replaced("b*", "abcb") == "a-"
    assert replaced("", "") == "-"


@settings(max_examples=500, deadline=None)
@given(st.text("$ab{}:-+?#%/\\'\"* \t`", max_size=30), st.sampled_from(["\\", "`"]))
def test_any_word_expands_or_is_refused(word: str, escape: str) -> None:
    for function in (expand, expand_words):
        try:
            function(word, {"a": "b a", "b": ""}, escape)
        except SampanError as error:
            assert "\n" not in str(error)


def test_doubling_stops_at_a_megabyte() -> None:
    value = "x"
    with pytest.raises(BuildError, match="longer than 1048576"):
        for _ in range(64):
            value = expand("$A$A", {"A": value})
    assert len(value) == 1 << 20


BIG = {"A": "a" * (1 << 20), "P": "a?" * 20000 + "b", "S": "*a" * 20000 + "b", "T": "ab" * (1 << 19)}


@pytest.mark.parametrize(
    "word",
    [
        "$A$A",
        "${A//a/aa}",
        "${A//a/$A}",
        "${A///x}",
        "${A//$P/x}",
        "${A#$P}" * 300,
        "${A##$S}" * 300,
        "${A%%$S}" * 300,
        "${A//?/}" * 300,
        "${A//a/}" * 300,
        "${A///}" * 300,
        "${T//?b/}" * 300,
        "${A/$P/}" * 300,
        "${A##*}" * 3000,
        "${x:+$A}" * 3000,
        "${A:+${A:+${A:+}}}" * 20000,
        '"$A"' * 3000,
        "${a:-" * 200 + "}" * 200,
        "${a:-" * 60000,
        "\\" * 1_000_000,
        "'" * 1_000_001,
        "$" * 1_000_000,
    ],
)
@pytest.mark.usefixtures("soon")
def test_bombs_end_soon(word: str) -> None:
    try:
        result = expand(word, BIG)
    except BuildError as error:
        assert len(str(error)) < 1000
    else:
        assert len(result) <= module.MAX_RESULT
