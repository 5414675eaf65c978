"""COPY wildcards: the rules of Go's filepath.Match."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.dockerfile.wildcard import has_wildcard, match

YES = """
abc abc|* abc|*c abc|a* a|a* abc|a*/b abc/b|a*b*c*d*e*/f axbxcxdxe/f|a*b*c*d*e*/f axbxcxdxexxx/f
a*b?c*x abxbbxdbxebxczzx|ab[c] abc|ab[b-d] abc|ab[^e-g] abc|a\\*b a*b|a?b a☺b|a[^a]b a☺b|[a-ζ]* α
[\\]a] ]|[\\-] -|[x\\-] x|[x\\-] -|[\\-x] x|[\\-x] -|*x xxx|a**b axxb|** ab|hom*.txt home.txt|dir/*.t dir/x.t
[^a] /|a[/]b a/b|src/[[]x src/[x|a\\bc abc
"""
NO = """
a* ab/c|a*/b a/c/b|a*b*c*d*e*/f axbxcxdxe/xxx/f|a*b*c*d*e*/f axbxcxdxexxx/fff|a*b?c*x abxbbxdbxebxczzy|ab[e-g] abc
ab[^c] abc|ab[^b-d] abc|a\\*b ab|a???b a☺b|a[^a][^a][^a]b a☺b|*[a-ζ] A|a?b a/b|a*b a/b|[x\\-] z|[\\-x] a
** a/b|abc abcd|abcd abc|? ab|[a] b|[z-a] b|*.txt x.txt/y
"""


def _pairs(text: str) -> list[list[str]]:
    return [pair.split(" ") for line in text.strip().split("\n") for pair in line.split("|")]


@pytest.mark.parametrize(("pattern", "path"), _pairs(YES))
def test_matches(pattern: str, path: str) -> None:
    assert match(pattern, path)


@pytest.mark.parametrize(("pattern", "path"), _pairs(NO))
def test_does_not_match(pattern: str, path: str) -> None:
    assert not match(pattern, path)


@pytest.mark.parametrize(
    "pattern", ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[\\", "a\\"]
)
def test_malformed(pattern: str) -> None:
    with pytest.raises(ValueError, match="syntax error in pattern"):
        match(pattern, "a")


def test_an_empty_pattern_matches_the_empty_path_only() -> None:
    assert match("", "")
    assert not match("", "a")
    assert match("*", "")


def test_has_wildcard() -> None:
    assert has_wildcard("a*") and has_wildcard("?") and has_wildcard("[x]") and has_wildcard("\\\\*")
    assert not has_wildcard("a\\*b") and not has_wildcard("plain/path") and not has_wildcard("")


@settings(max_examples=400, deadline=None)
@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_agrees_with_fnmatch_without_slashes(pattern: str, name: str) -> None:
    assert match(pattern, name) is fnmatch.fnmatchcase(name, pattern)
