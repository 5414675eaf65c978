"""Capabilities: the default is Docker's, and a request is settled as Docker settles it, never to more."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.oci import capabilities

DOCKER = """AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP
SETUID SYS_CHROOT"""
DEFAULT = {f"CAP_{name}" for name in DOCKER.split()}
ALL = set(capabilities.NUMBERS)


def test_numbers_are_the_kernels() -> None:
    known = {"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27, "CAP_SETFCAP": 31, "CAP_SYSLOG": 34, "CAP_BPF": 39}
    assert known.items() <= capabilities.NUMBERS.items()
    assert len(capabilities.NUMBERS) == 41 and capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


def test_default_is_dockers_fourteen() -> None:
    found = capabilities.settle([], [], privileged=False)
    assert set(found) == DEFAULT and len(found) == 14
    assert capabilities.mask(found) == 0xA80425FB


def test_names_are_taken_in_any_case_with_and_without_prefix() -> None:
    for text in ("net_admin", "NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", "Cap_Net_Admin"):
        assert "CAP_NET_ADMIN" in capabilities.settle([text], [], privileged=False)


@pytest.mark.parametrize(
    ("add", "drop", "want"),
    [
        (["NET_ADMIN"], ["MKNOD"], DEFAULT - {"CAP_MKNOD"} | {"CAP_NET_ADMIN"}),
        (["MKNOD"], ["MKNOD"], DEFAULT),
        (["ALL"], ["SYS_ADMIN"], ALL - {"CAP_SYS_ADMIN"}),
        (["CHOWN"], ["all"], {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], want: set[str]) -> None:
    assert set(capabilities.settle(add, drop, privileged=False)) == want


def test_privileged_has_all_but_what_is_dropped() -> None:
    assert set(capabilities.settle([], [], privileged=True)) == ALL
    assert set(capabilities.settle([], ["CHOWN"], privileged=True)) == ALL - {"CAP_CHOWN"}


@pytest.mark.parametrize(
    ("word", "hint"),
    [("SYS_ADMON", "SYS_ADMIN"), ("CAP_CHWON", "CHOWN"), ("foo", "capabilities(7)"), ("", "")],
)
def test_unknown_name_is_refused_with_the_nearest(word: str, hint: str) -> None:
    for add, drop in (([word], []), ([], [word])):
        with pytest.raises(InvalidArgument, match="no such capability") as caught:
            capabilities.settle(add, drop, privileged=False)
        assert repr(word) in caught.value.message and hint in caught.value.hint
