"""Mistyped words: the message names what is meant, or does not guess."""

from __future__ import annotations

import pytest

import sampan
from sampan.engine import imageviews
from sampan.errors import InvalidArgument, NotFound

KNOWN = ["docker.io/library/alpine:3.20", "docker.io/library/base:latest", "docker.io/library/base:old"]


@pytest.mark.parametrize(
    "typed,meant",
    [
        ("alpine", "alpine:3.20"),
        ("alpne:3.20", "alpine:3.20"),
        ("bse", "base:latest"),
        ("base:odl", "base:old"),
        ("nosuchimage", ""),
        ("UPPER", ""),
        ("one", ""),
    ],
)
def test_only_a_name_that_is_like_it_is_offered(typed: str, meant: str) -> None:
    assert imageviews.nearest(typed, KNOWN) == meant


def test_a_name_that_no_image_can_have_is_told_why(engine: sampan.Engine) -> None:
    with pytest.raises(NotFound, match="no such image: UPPER") as caught:
        engine.run("UPPER", ["true"])
    assert "must be lower case" in caught.value.hint


def test_an_unknown_limit_is_called_unknown(engine: sampan.Engine) -> None:
    with pytest.raises(InvalidArgument, match="there is no such limit") as caught:
        engine.run("base", ["true"], ulimits=["bogus=1"])
    assert "nofile" in caught.value.hint
    with pytest.raises(InvalidArgument, match="NAME=SOFT"):
        engine.run("base", ["true"], ulimits=["nofile"])
