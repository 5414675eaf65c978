"""References: Docker's grammar, its short forms, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.oci import reference

DIGEST = "sha256:" + "0123456789abcdef" * 4

# The grammar once more, as regular expressions: an independent reading of it.
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])"
FULL = re.compile(
    rf"({HOST}(?::[0-9]+)?)/({COMPONENT}(?:/{COMPONENT})*)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    r"(?:@(sha256:[a-f0-9]{64}))?"
)


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("ghcr.io/a/b_c__d---e.f", "ghcr.io/a/b_c__d---e.f:latest", "ghcr.io/a/b_c__d---e.f:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/app", "[2001:db8::1]/app:latest", "[2001:db8::1]/app:latest"),
        ("127.0.0.1:80/app", "127.0.0.1:80/app:latest", "127.0.0.1:80/app:latest"),
        ("EXAMPLE/app", "EXAMPLE/app:latest", "EXAMPLE/app:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        (f"alpine:1@{DIGEST}", f"docker.io/library/alpine:1@{DIGEST}", f"alpine:1@{DIGEST}"),
        ("a" * 63, "docker.io/library/" + "a" * 63 + ":latest", "a" * 63 + ":latest"),
    ],
)
def test_short_forms_mean_what_they_mean_to_docker(text: str, full: str, familiar: str) -> None:
    found = reference.parse(text)
    assert (str(found), found.familiar()) == (full, familiar)
    assert reference.parse(full) == found == reference.parse(familiar)
    assert hash(reference.parse(full)) == hash(found)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "@",
            "/",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a@",
            "-a",
            "a-",
            "a..b",
            "a/../b",
            "../a",
            ".a",
            "a._b",
            "a___b",
        ),
        *(
            "Alpine",
            "docker.io/Alpine",
            "a/B",
            "alpine:-x",
            "alpine:.x",
            "alpine:a b",
            "alpine:" + "x" * 129,
            "al pine",
        ),
        *("a" * 64, "http://x/y", "[::1/app", "[]/app", "[::1]x/app", "-x.com/app", "x-.com/app", "x..com/app"),
        *(
            "x.com:/app",
            "x.com:5a/app",
            "alpine@sha256:abc",
            f"alpine@{DIGEST.upper()}",
            f"@{DIGEST}",
            f"alpine@@{DIGEST}",
        ),
        *(
            "é",
            "alpine:é",
            "x.com/é",
            "ALPINE:latest",
            "a\nb",
            "alpine\n",
            "alpine:1\n",
            "a\0",
            "x.com/" + "a/" * 130 + "a",
        ),
        *("alpine@sha512:" + "a" * 128, "٣.com/a", "x.com:٣/a", "--privileged", "a:b:c", "a" * 256),
    ],
)
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        reference.parse(text)


@given(st.text(st.sampled_from("aB0.:/-_@[]x"), max_size=18))
def test_every_parsed_reference_is_in_the_grammar_and_stable(text: str) -> None:
    try:
        found = reference.parse(text)
    except InvalidArgument:
        first, slash, _ = text.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            match = FULL.fullmatch(text)
            assert match is None or match[1] in ("docker.io", "index.docker.io")
        return
    match = FULL.fullmatch(str(found))
    assert match and (match[1], match[2], match[3] or "") == (found.domain, found.path, found.tag)
    assert reference.parse(str(found)) == found == reference.parse(found.familiar())


@given(st.from_regex(FULL, fullmatch=True))
def test_every_full_reference_of_the_grammar_is_accepted(text: str) -> None:
    first = text.partition("/")[0]
    if not ("." in first or ":" in first or first != first.lower()) or len(text) > 255:
        return
    found = reference.parse(text)
    assert str(found) in (text, text + ":latest")


def test_a_repository_can_be_named_by_tag_or_digest() -> None:
    found = reference.parse("app:1")
    assert str(found.with_tag("2")) == "docker.io/library/app:2"
    assert str(found.with_digest(DIGEST)) == f"docker.io/library/app@{DIGEST}"
    assert reference.parse("app", default_tag=False).tag == ""
    for tag in ("", "-", "a/b"):
        with pytest.raises(InvalidArgument):
            found.with_tag(tag)
