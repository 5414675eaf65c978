"""Platforms: one normal form, and which fits where."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.oci import platform


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armel", "linux/arm/v6"),
        ("riscv64", "linux/riscv64"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_platform_has_one_normal_form(text: str, normal: str) -> None:
    found = platform.parse(text)
    assert str(found) == normal
    assert platform.parse(normal) == found == platform.from_descriptor(found.descriptor())


def test_an_operating_system_alone_has_this_machines_architecture() -> None:
    assert platform.parse("linux") == platform.host()


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux//v8", "a/b/c/d", "pdp11", "linux/am d64", "linux/../x", "é"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        platform.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "rank"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/arm/v7", "linux/arm/v6", 1),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/amd64/v3", "linux/amd64", 2),
        ("linux/amd64", "linux/amd64/v2", None),
        ("linux/amd64", "linux/arm64", None),
        ("linux/amd64", "windows/amd64", None),
        ("linux/ppc64le/power9", "linux/ppc64le", None),
    ],
)
def test_a_lower_variant_runs_a_higher_one_does_not(wanted: str, offered: str, rank: int | None) -> None:
    assert platform.rank(platform.parse(wanted), platform.parse(offered)) == rank
    assert platform.matches(platform.parse(wanted), platform.parse(offered)) is (rank is not None)
