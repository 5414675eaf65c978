"""The .dockerignore rules: a table worked out from Docker's rules, and an oracle of regular expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.dockerfile.ignore import Patterns, clean, read
from sampan.errors import BuildError

# Each row: the file's lines, the paths that are excluded, the paths that stay.
TABLE: list[tuple[str, str, str]] = [
    # exact names, and everything below a directory of that name
    ("foo", "foo foo/bar foo/bar/baz", "foo2 bar/foo xfoo Foo"),
    ("foo/bar", "foo/bar foo/bar/x", "foo foo/ba foo/barx bar a/foo/bar"),
    (".git", ".git .git/config", "x/.git .gitignore git"),
    ("Makefile", "Makefile Makefile/x", "makefile GNUMakefile"),
    # cleaning: leading slash, ./, trailing slash, doubled slashes, ..
    ("/foo", "foo foo/x", "a/foo"),
    ("./foo", "foo foo/x", "a/foo"),
    ("foo/", "foo foo/x", "a/foo"),
    ("/foo/", "foo foo/x", "a/foo"),
    ("foo//bar", "foo/bar foo/bar/x", "foo"),
    ("foo/./bar", "foo/bar", "foo"),
    ("foo/../bar", "bar bar/x", "foo foo/bar"),
    ("../foo", "", "foo a/foo"),
    ("/../foo", "foo", "a/foo"),
    (".", "", "a a/b"),
    ("/", "", "a a/b"),
    ("./", "", "a"),
    ("..", "", "a"),
    ("foo/..", "", "foo a"),
    # * stays within one component
    ("*", "a a/b a/b/c .hidden", ""),
    ("*.md", "README.md .md x.md/y", "a/README.md README.mdx md"),
    ("*/temp*", "a/temp a/temporary.txt a/temp/x", "temp a/b/temp a/xtemp"),
    ("*/*/temp*", "a/b/temp a/b/temporary.txt", "a/temp temp a/b/c/temp"),
    ("temp?", "tempa tempb temp1/x", "temp tempab a/tempa"),
    ("a*b", "ab axb axxb", "a/b axbx ba"),
    ("a*/b", "a/b axx/b axx/b/c", "a b ax/x/b"),
    ("a*b*c", "abc axbxc abbcc", "ac abcd a/b/c"),
    ("*x*", "x axb xa x/y", "a a/x"),
    (".*", ".a .a/b ..x", "a a/.b"),
    ("**", "a a/b a/b/c .x", ""),
    ("**/", "a a/b", ""),
    ("*/", "a a/b", ""),
    ("***", "a a/b a/b/c", ""),
    ("**/**", "a a/b", ""),
    ("**/*", "a a/b a/b/c", ""),
    # ** crosses components
    ("**/foo", "foo a/foo a/b/foo foo/x a/foo/x", "foox a/xfoo afoo a/foox"),
    ("**/foo/bar", "foo/bar a/foo/bar a/b/foo/bar/x", "foo bar afoo/bar foo/x/bar"),
    ("**/*.go", "x.go a/x.go a/b/x.go .go", "go a/go x.gox"),
    ("**/*.py[co]", "a.pyc a/b.pyo", "a.py a/b.pyx"),
    ("**/__pycache__", "__pycache__ a/__pycache__ a/__pycache__/x.pyc", "a/__pycache__x"),
    ("**/node_modules/", "node_modules a/node_modules/x", "node_modulesx"),
    ("**/.*", ".a a/.b a/.b/c", "a a/b a.b"),
    ("**/a*/b", "a/b ax/b x/a/b x/ay/b", "b xa/b a/x/b"),
    ("**/temp?", "tempa a/tempb", "temp a/temp a/tempab"),
    ("foo/**", "foo/a foo/a/b", "foo foox/a a/foo/b"),
    ("foo/**/bar", "foo/bar foo/a/bar foo/a/b/bar foo/bar/x", "foo/barx foo/xbar foo bar"),
    ("foo/**/*.js", "foo/x.js foo/a/x.js foo/a/b/x.js", "x.js foo/x.jsx a/foo/x.js"),
    ("foo/*/bar", "foo/a/bar foo/a/bar/x", "foo/bar foo/a/b/bar"),
    ("foo/*", "foo/a foo/a/b", "foo a/foo/b"),
    ("foo*", "foo foox foo/a foox/a", "afoo a/foo"),
    ("**foo", "foo xfoo a/foo a/xfoo", "foox a/foox"),
    ("foo**", "foo foox foo/a foox/b/c", "afoo a/foo"),
    ("a**b", "ab axx/b a/b a/x/b", "axb a/xb"),
    ("a**/b", "ab a/b axx/b a/x/b", "axb a/xb"),
    ("**a**", "a xa/a/y a/b ax x/ab", "b xa xay b/xa"),
    ("**/foo/**", "foo/a x/foo/a x/foo/a/b", "foo x/foo afoo/b"),
    ("**/dir2/*", "dir/dir2/file dir2/file", "dir/dir2 dir2"),
    ("**/file*txt", "dir/dir/file.txt filetxt", "dir/file.txtx"),
    ("**/**/*.txt", "file.txt dir/dir/file.txt", "file.txt2"),
    ("a/*.txt**", "a/file.txt a/file.txt2 a/b.txtx/y", "a/b/file.txt a/txt"),
    # ? and classes
    ("?", "a é a/b", "ab"),
    ("a?c", "abc aéc", "ac a/c abbc"),
    ("a[b-d]e", "abe ace ade", "ae aae aee a[b-d]e"),
    ("a[^b-d]e", "aze a1e", "abe ace ae"),
    ("[abc]", "a b c a/x", "d ab"),
    ("[!a]", "! a", "b"),
    ("[a-cx-z]1", "a1 y1", "d1 w1"),
    ("[\\]a]", "] a", "b"),
    ("[\\-x]", "- x", "a"),
    ("[a-ζ]*", "α b", "A"),
    ("**/[Bb]in", "bin a/Bin a/b/bin/x", "BIN a/bIn"),
    # characters that only regular expressions know
    ("abc.def", "abc.def", "abcdef abcZdef"),
    ("a+b", "a+b", "aab ab"),
    ("a(b)c/def", "a(b)c/def", "abc/def"),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", "abc"),
    ("$x", "$x", "x"),
    ("a]b", "a]b", "ab"),
    ("{a,b}", "{a,b}", "a b"),
    ("x.py-2.4.0+g08-none.whl", "x.py-2.4.0+g08-none.whl", "x.py-2.4.0g08-none.whl"),
    # escapes
    ("a\\*b", "a*b", "axb ab a\\*b"),
    ("a\\?b", "a?b", "axb"),
    ("a\\[b", "a[b", "ab"),
    ("a\\\\", "a\\", "a"),
    ("\\!foo", "!foo", "foo"),
    ("\\#foo", "#foo", "foo"),
    ("\\foo", "foo", "\\foo"),
    # comments, blanks, line ends, byte order mark
    ("# foo", "", "foo #"),
    ("#foo", "", "#foo foo"),
    (" #foo", "#foo", "foo"),
    ("foo #bar", "", "foo"),
    ("  foo  ", "foo", ""),
    ("foo\t", "foo", ""),
    ("\tfoo", "foo", ""),
    ("foo\r", "foo", ""),
    ("\ufefffoo", "foo", ""),
    ("\ufeff# foo\nbar", "bar", "foo"),
    ("\n\nfoo\n\n", "foo", ""),
    ("foo\r\nbar\r\n", "foo bar", "baz"),
    ("", "", "a a/b"),
    # negation: the last match wins
    ("*.md\n!README.md", "a.md", "README.md"),
    ("*.md\n!README*.md\nREADME-secret.md", "a.md README-secret.md", "README.md README-x.md"),
    ("*.md\nREADME-secret.md\n!README*.md", "a.md", "README.md README-secret.md"),
    ("!foo\nfoo", "foo foo/x", ""),
    ("foo\n!foo", "", "foo foo/x"),
    ("foo\n!foo\nfoo", "foo", ""),
    ("!foo", "", "foo bar"),
    ("*\n!src", "a b/c", "src src/x src/x/y"),
    ("*\n!src/", "a", "src/x"),
    ("*\n!/src", "a", "src/x"),
    ("*\n!./src", "a", "src/x"),
    ("*\n! src", "a", "src/x"),
    ("*\n!src/*", "a src", "src/x src/x/y"),
    ("*\n!src/**", "a src", "src/x src/x/y"),
    ("*\n!src/**/*.go", "a src src/x src/x/y.txt", "src/y.go src/x/y.go"),
    ("*\n!src/*.go", "a src/x.txt src/x/y.go", "src/y.go"),
    ("**\n!util/docker/web", "a util util/docker util/docker/x", "util/docker/web util/docker/web/foo"),
    ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", "util/docker/web util/docker/web/bar"),
    ("**\n!dist/*.whl", "dist dist/x.tar a", "dist/x-1.0.whl"),
    ("docs\n!docs/README.md", "docs docs/x docs/a/README.md", "docs/README.md"),
    ("docs/\n!docs/README.md", "docs/x", "docs/README.md"),
    ("docs/*\n!docs/README.md", "docs/x", "docs docs/README.md"),
    ("docs/**\n!docs/README.md", "docs/x docs/a/b", "docs docs/README.md"),
    ("**/docs\n!**/docs/keep", "docs a/docs a/docs/x", "docs/keep a/docs/keep a/docs/keep/y"),
    ("**/*.log\n!important.log", "a.log x/important.log", "important.log"),
    ("**/*.log\n!**/important.log", "a.log x/a.log", "important.log x/important.log"),
    ("foo\n!foo/bar\nfoo/bar/baz", "foo foo/x foo/bar/baz foo/bar/baz/y", "foo/bar foo/bar/x"),
    ("*\n!*", "", "a a/b"),
    ("*\n!*.go\n*_test.go", "a x_test.go", "x.go"),
    ("*\n!a\n!b\nb/c", "c b/c d/a", "a b b/d"),
    ("!!foo\n*", "foo !foo", ""),
    ("*\n!!foo", "foo", "!foo"),
    # BuildKit's walk does not ask a pattern that would change nothing about a directory
    ("foo/bar\n!foo", "foo/bar foo/bar/x", "foo foo/y"),
    ("foo/bar\n!foo/bar", "", "foo foo/bar foo/bar/x"),
    ("foo/bar\n!foo/*", "", "foo foo/bar foo/bar/x"),
    ("a/b\n!a\na/b/c", "a/b a/b/c a/b/d", "a a/x"),
    ("a\n!a/x\na", "a a/y", "a/x"),
    ("a\n!a/x\na/*", "a a/y a/x", ""),
    ("a\n!a/x\na/**", "a a/y a/x", ""),
]


def _rows() -> list[tuple[str, str, bool]]:
    rows = []
    for lines, excluded, kept in TABLE:
        rows += [(lines, path, True) for path in excluded.split(" ") if path]
        rows += [(lines, path, False) for path in kept.split(" ") if path]
    return rows


def test_the_table_is_large() -> None:
    assert len(_rows()) >= 300


@pytest.mark.parametrize(("lines", "path", "expected"), _rows())
def test_docker_rules(lines: str, path: str, expected: bool) -> None:
    assert read(lines.encode()).matches(path) is expected


def test_paths_with_blanks_and_slashes_around() -> None:
    patterns = Patterns(["a b", "c d/*"])
    assert patterns.matches("a b")
    assert patterns.matches("/a b/")
    assert patterns.matches("c d/e f")
    assert not patterns.matches("a")
    assert not patterns.matches(".")
    assert not patterns.matches("")


def test_bytes_that_are_not_utf8() -> None:
    patterns = read(b"caf\xe9*\n")
    assert patterns.matches("caf\udce9.txt")
    assert not patterns.matches("café.txt")


@pytest.mark.parametrize(
    ("lines", "number"),
    [("a\n!", 2), ("!/", 1), ("! ", 1), ("[", 1), ("a\n\n[a-", 3), ("[]a]", 1), ("[-]", 1), ("[x-]", 1), ("[-x]", 1)]
    + [("[a-b-c]", 1), ("[^", 1), ("[^bc", 1), ("a[", 1), ("a\\", 1), ("[]", 1), ("[\\", 1), ("x" * 5000 + "?", 1)],
)
def test_malformed_patterns_are_located(lines: str, number: int) -> None:
    with pytest.raises(BuildError) as caught:
        read(lines.encode())
    assert caught.value.file == ".dockerignore"
    assert caught.value.line == number
    assert f"{number} | >>>" in caught.value.excerpt


def test_an_empty_file_excludes_nothing_and_is_false() -> None:
    assert not read(b"")
    assert not read(b"# only\n\n")
    assert read(b"x")


@pytest.mark.parametrize(
    ("lines", "directory", "expected"),
    [
        ("a", "a", True),
        ("a\n!b", "a", True),
        ("a\n!a/b", "a", False),
        ("a\n!a/b", "a/c", True),
        ("a\n!a/b/c", "a/b", False),
        ("*\n!src", "doc", True),
        ("*\n!src", "srcs", True),
        ("*\n!src/x", "src", False),
        ("*\n!*.go", "a", True),
        ("*\n!*/x.go", "a", False),
        ("*\n!*/x.go", "a/b", True),
        ("*\n!**/*.go", "a/b/c", False),
        ("*\n!src/**/x", "src/a/b", False),
        ("*\n!src/**/x", "doc", True),
        ("*\n!src/**", "src", False),
        ("*\n!src/**", "doc", True),
        ("*\n!**/keep", "a", False),
        ("*\n!s?c/x", "src", False),
        ("*\n!s?c/x", "srrc", True),
    ],
)
def test_a_directory_is_skipped_when_nothing_below_can_come_back(lines: str, directory: str, expected: bool) -> None:
    assert read(lines.encode()).is_skippable(directory) is expected


def test_clean() -> None:
    for path, expected in {
        "": ".",
        "a/./b": "a/b",
        "a//b/": "a/b",
        "../../a": "../../a",
        "/../a": "/a",
        "a/b/../../..": "..",
        "/": "/",
    }.items():
        assert clean(path) == expected


@pytest.mark.usefixtures("soon")
def test_pathological_patterns_are_quick() -> None:
    path = "/".join(["a" * 50] * 79)
    for pattern in (
        "*a" * 2000,
        "**/" * 1300 + "b",
        "a*" * 2000 + "b",
        "**a" * 1300,
        "*/" * 2000,
        "[a-z]*" * 600 + "!",
        "?" * 4000,
        "***/" * 1000 + "b",
        "".join(f"[a{chr(0x4E00 + n)}]*" for n in range(800)),
    ):
        patterns = Patterns([pattern, "!" + pattern + "x"])
        patterns.matches(path)
        patterns.is_skippable("a" * 200)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "shape",
    ["d{0}/f{0}", "d{0}/**", "**/f{0}", "**/x{0}*.t", "d{0}/*{0}.txt", "d?{0}[ab]/x*", "**/f?{0}", "d/*/*{0}"],
)
def test_many_patterns_on_many_files_are_quick(shape: str) -> None:
    """Each way of its own would take a minute, were each file compared with each pattern."""
    lines = [f"{'!' if n % 3 == 2 else ''}{shape.format(n)}" for n in range(10_000)]
    patterns = Patterns(lines)
    files = [f"d{n % 60}/e{n % 7}/file{n}.txt" for n in range(5_000)]
    found = [patterns.matches(name) for name in files]
    skipped = [patterns.is_skippable(name) for name in files[:500]]
    for at in (0, 1, 4_999):
        one = [line for line in lines if Patterns([line.removeprefix("!")]).matches(files[at])]
        assert found[at] is (bool(one) and not one[-1].startswith("!"))
        may = [line for line in lines if line[0] == "!" and not Patterns([line]).is_skippable(files[at % 500])]
        assert skipped[at % 500] is not bool(may)


def test_many_patterns_are_refused() -> None:
    with pytest.raises(BuildError, match="more than 10000 patterns"):
        Patterns(["x"] * 10_001)
    with pytest.raises(BuildError, match="larger than 4 MiB"):
        read(b"x\n" * (3 << 20))


# An oracle: each pattern as a regular expression, and the rule "last match wins" of the walk, spelled out slowly.


def _regex(pattern: str) -> re.Pattern[str]:
    if pattern.startswith("**") and not any(c in pattern[2:] for c in "*?[\\"):
        tail = pattern[2:]
        return re.compile(
            f"(?:.*{re.escape(tail)}|{re.escape(tail[1:])})" if tail[:1] == "/" else f".*{re.escape(tail)}"
        )
    out = ""
    while pattern:
        if pattern in ("**", "**/"):
            out, pattern = out + ".*", ""
        elif pattern.startswith("**"):
            out, pattern = out + "(?:.*/)?", pattern[2:].removeprefix("/")
        elif pattern.startswith("*"):
            out, pattern = out + "[^/]*", pattern[1:]
        elif pattern.startswith("?"):
            out, pattern = out + "[^/]", pattern[1:]
        else:
            out, pattern = out + re.escape(pattern[0]), pattern[1:]
    return re.compile(out, re.DOTALL)


def _oracle(lines: list[str], path: str) -> bool:
    rules = [(line.startswith("!"), _regex(clean(line.removeprefix("!")))) for line in lines]
    inherited = [False] * len(rules)
    excluded = False
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        prefix = "/".join(parts[:depth])
        found, excluded = [], False
        for before, (negated, regex) in zip(inherited, rules, strict=True):
            hit = before or (negated == excluded and regex.fullmatch(prefix) is not None)
            found.append(hit)
            if hit:
                excluded = not negated
        inherited = found
    return excluded


_NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_GLOBS = st.lists(
    st.one_of(_NAMES, st.sampled_from(["*", "**", "?", "*a", "a*", "**b", "a**", "*.b", "?*", "a*b", "***"])),
    min_size=1,
    max_size=4,
).map("/".join)
_LINES = st.lists(st.tuples(st.sampled_from(["", "", "!"]), _GLOBS).map("".join), min_size=1, max_size=5)


@settings(max_examples=600, deadline=None)
@given(_LINES, _PATHS)
def test_agrees_with_the_oracle(lines: list[str], path: str) -> None:
    assert Patterns(lines).matches(path) is _oracle(lines, path)


_OTHERS = [f"q?{n}" for n in range(130)]
_CLASSES = st.lists(
    st.one_of(_NAMES, st.sampled_from(["[ab]", "[^a]?", "\\a*", "*[.b]", "**/[a-b]"])), min_size=1, max_size=3
).map("/".join)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "!"]), _CLASSES).map("".join), min_size=1, max_size=5), _PATHS)
def test_patterns_that_share_an_automaton_match_as_each_of_them(lines: list[str], path: str) -> None:
    """Some hundred others stand between: they are in several automata."""
    many = [one for line in lines for one in (*_OTHERS, line)]
    hits = [line.startswith("!") for line in lines if _matches_alone(line, path)]
    assert "/" in path or Patterns(many).matches(path) is (bool(hits) and not hits[-1])
    assert Patterns(many).matches(path) is Patterns(lines).matches(path)
    alone = [Patterns([line]).is_skippable(path) for line in lines]
    assert Patterns(many).is_skippable(path) is all(alone)


def _matches_alone(line: str, path: str) -> bool:
    return Patterns([line.removeprefix("!")]).matches(path)


@settings(max_examples=300, deadline=None)
@given(_LINES, _PATHS, _PATHS)
def test_what_is_skipped_hides_nothing(lines: list[str], directory: str, below: str) -> None:
    patterns = Patterns(lines)
    if patterns.matches(directory) and patterns.is_skippable(directory):
        assert patterns.matches(f"{directory}/{below}")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.text(max_size=20))
def test_any_bytes_are_read_or_refused(data: bytes, path: str) -> None:
    try:
        patterns = read(data)
    except BuildError as error:
        assert error.line > 0
        return
    patterns.matches(path, False)
    patterns.is_skippable(path)
