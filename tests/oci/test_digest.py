"""Digests: one text form, and the same value from both implementations."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.oci import digest


@given(st.binary(max_size=1000))
def test_both_implementations_agree_with_hashlib(data: bytes) -> None:
    expected = hashlib.sha256(data).hexdigest()
    for bulk in (False, True):
        running = digest.sha256(bulk=bulk)
        running.update(data[:10])
        running.update(data[10:])
        assert running.hexdigest() == expected == digest.sha256_hex(data)
    assert digest.of(data) == "sha256:" + expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:../" + "a" * 61,
        "sha512:" + "a" * 128,
        "SHA256:" + "a" * 64,
        "sha256:" + "a" * 63 + "\n",
        None,
        5,
        b"sha256:" + b"a" * 64,
    ],
)
def test_anything_else_is_no_digest(text: object) -> None:
    assert not digest.is_valid(text)
    with pytest.raises(InvalidArgument):
        digest.validate(text)


def test_hex_of_is_the_name_of_the_blob() -> None:
    assert digest.hex_of("sha256:" + "0f" * 32) == "0f" * 32
