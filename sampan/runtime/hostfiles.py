"""Names for a container in the host's network: copies of the host's resolv.conf, hosts and hostname, bound over its.

As with Docker they are the container's to change, and are taken from the host again at every start. A container
without the host's network keeps what its image has: nothing that they name could be reached. Only hosts that are
missing or empty are replaced there, by localhost alone (engine/naming.py). An image whose file is a symbolic link keeps
it: it may lead nowhere, and there is no mounting on that.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMES = ("resolv.conf", "hosts", "hostname")
_MAX_SIZE = 1 << 20


def add(spec: dict[str, Any], home: str, layers: list[str]) -> None:
    """Add the binds to a configuration, where nothing else was asked for and the host has the file.

    `layers` are the image's directories, top first.
    """
    taken = {mount["destination"] for mount in spec["mounts"]}
    for name in NAMES:
        path = "/etc/" + name
        if path not in taken and os.path.isfile(path) and not is_link(path, layers):
            source = os.path.join(home, name)
            spec["mounts"].append({"type": "bind", "source": source, "destination": path, "options": ["bind"]})


def is_link(path: str, layers: list[str]) -> bool:
    """Say whether a path of the image is a symbolic link."""
    found = next((layer + path for layer in layers if os.path.lexists(layer + path)), "")
    return os.path.islink(found)


def write(spec: dict[str, Any], home: str) -> None:
    """Copy the files that the configuration binds; one that is gone from the host is empty."""
    sources = {mount.get("source") for mount in spec["mounts"]}
    for name in NAMES:
        target = os.path.join(home, name)
        if target not in sources:
            continue
        data = b""
        if os.path.isfile("/etc/" + name):
            with open("/etc/" + name, "rb") as file:
                data = file.read(_MAX_SIZE)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask
            os.write(fd, data)
        finally:
            os.close(fd)
