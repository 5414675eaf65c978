"""Capabilities: the default is Docker's, and a request is settled as Docker settles it, never to more."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.runtime import capabilities
from sampan.runtime.capabilities import resolve

DOCKER = """AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP
SETUID SYS_CHROOT"""


def test_numbers_are_the_kernels() -> None:
    known = {"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27, "CAP_SETFCAP": 31, "CAP_SYSLOG": 34, "CAP_BPF": 39}
    assert known.items() <= capabilities.NUMBERS.items()
    assert len(capabilities.NUMBERS) == 41 and capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


def test_default_is_dockers_fourteen() -> None:
    found = resolve([], [])
    assert sorted(found.names) == [f"CAP_{name}" for name in DOCKER.split()]
    assert found.mask == 0xA80425FB and found.warnings == []


def test_names_are_taken_in_any_case_with_and_without_prefix() -> None:
    for text in ("net_admin", "NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", "Cap_Net_Admin"):
        assert "CAP_NET_ADMIN" in resolve([text], []).names


@pytest.mark.parametrize(
    ("add", "drop", "want"),
    [
        (["NET_ADMIN"], ["MKNOD"], set(f"CAP_{n}" for n in DOCKER.split()) - {"CAP_MKNOD"} | {"CAP_NET_ADMIN"}),
        (["MKNOD"], ["MKNOD"], set(f"CAP_{n}" for n in DOCKER.split())),
        (["ALL"], ["SYS_ADMIN"], set(capabilities.NUMBERS) - {"CAP_SYS_ADMIN"}),
        (["CHOWN"], ["all"], {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], want: set[str]) -> None:
    assert set(resolve(add, drop).names) == want


def test_privileged_has_all() -> None:
    assert resolve([], ["CHOWN"], privileged=True).mask == capabilities.ALL_MASK


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match="SYS_ADMON") as caught:
        resolve(["SYS_ADMON"], [])
    assert "CAP_SYS_ADMIN" in caught.value.hint
    with pytest.raises(InvalidArgument):
        resolve([], [""])


def test_what_the_host_lacks_is_dropped_with_a_warning() -> None:
    available = capabilities.ALL_MASK & ~capabilities.mask(["CAP_NET_RAW"])
    found = resolve([], [], available_mask=available)
    assert "CAP_NET_RAW" not in found.names and len(found.names) == 13
    assert found.warnings == ["this host lacks capability CAP_NET_RAW: it is dropped"]
