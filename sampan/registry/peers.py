"""Who answers where a registry sent us: looked at once connected, before anything is sent."""

from __future__ import annotations

from ipaddress import ip_address

from sampan.registry.message import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_METADATA = ("100.100.100.200", "fd00:ec2::254")  # Alibaba's and Amazon's, which are not link-local


def check_peer(sock: Any, host: str, own_host: bool) -> None:
    """Refuse a peer that no registry should send us to."""
    name = sock.getpeername()[0].partition("%")[0]
    address: Any = ip_address(name)
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    here = address.is_loopback or address.is_unspecified
    if address.is_link_local or str(address) in _METADATA or (here and not own_host):
        sock.close()
        raise Refused(f"cannot follow the registry to {host}: {address} is an address of this host or its network")
