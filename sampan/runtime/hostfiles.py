"""Names for a container in the host's network: copies of the host's resolv.conf, hosts and hostname, bound over its.

As with Docker they are the container's to change, and are taken from the host again at every start. A container
without the host's network keeps what its image has: nothing that they name could be reached. Only hosts that are
missing or empty are replaced there, by localhost alone; its hostname is its own (mounts.hostname). A step of a build
has files of its own in any case. An image whose file is a symbolic link keeps it: it may lead nowhere, and there is no
mounting on that.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMES = ("resolv.conf", "hosts", "hostname")
_MAX_SIZE = 1 << 20
LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def add(spec: dict[str, Any], home: str, layers: list[str]) -> None:
    """Add the binds to a configuration, where nothing else was asked for and the host has the file.

    `layers` are the image's directories, top first.
    """
    taken = {mount["destination"] for mount in spec["mounts"]}
    for name in NAMES:
        path = "/etc/" + name
        if path not in taken and os.path.isfile(path) and not is_link(path, layers):
            bind(spec, home, name)


def bind(spec: dict[str, Any], home: str, name: str) -> None:
    """Bind the container's own file over /etc/NAME."""
    source = os.path.join(home, name)
    spec["mounts"].append({"type": "bind", "source": source, "destination": "/etc/" + name, "options": ["bind"]})


def is_link(path: str, layers: list[str]) -> bool:
    """Say whether a path of the image is a symbolic link."""
    found = next((layer + path for layer in layers if os.path.lexists(layer + path)), "")
    return os.path.islink(found)


def write(spec: dict[str, Any], home: str) -> None:
    """Copy the files that the configuration binds; one that is gone from the host is empty."""
    sources = {mount.get("source") for mount in spec["mounts"]}
    for name in NAMES:
        if os.path.join(home, name) not in sources:
            continue
        data = b""
        if os.path.isfile("/etc/" + name):
            with open("/etc/" + name, "rb") as file:
                data = file.read(_MAX_SIZE)
        write_own(home, name, data)


def add_local(spec: dict[str, Any], home: str, layers: list[str]) -> bool:
    """Bind a container's own hosts where it has none or an empty one; say whether, then `write_local` is wanted.

    `layers` are directories of its own and of its image, top first. The configuration of a start is changed, not what
    is kept: the next start looks again.
    """
    taken = {mount["destination"] for mount in spec["mounts"]}
    if "/etc" in taken or "/etc/hosts" in taken or not _lacking(layers):
        return False
    bind(spec, home, "hosts")
    return True


def add_hostname(spec: dict[str, Any], home: str, layers: list[str], name: str) -> None:
    """Bind a file with a container's name and write it, where mounts.hostname has no tmpfs of its own to use."""
    taken = {mount["destination"] for mount in spec["mounts"]}
    if "/etc" in taken or "/etc/hostname" in taken or is_link("/etc/hostname", layers):
        return
    bind(spec, home, "hostname")
    if spec["root"].get("readonly"):
        spec["mounts"][-1]["options"].append("ro")
    write_own(home, "hostname", f"{name}\n".encode())


def write_local(home: str) -> None:
    """Write the file that `add_local` has bound."""
    write_own(home, "hosts", LOCAL.encode())


def add_for_step(spec: dict[str, Any], home: str, layers: list[str], is_networked: bool) -> list[str]:
    """Bind a build step's own files and write them, as Docker does; give those that its root lacks.

    So what a step writes there gets into no layer. Links, and what cannot be mounted on, are let be. Without the host's
    network the step knows itself and localhost.
    """
    lacking = []
    for name in NAMES:
        size = _size(layers, name)
        if size is None:
            continue
        if size < 0:
            lacking.append("/etc/" + name)
        bind(spec, home, name)
    write(spec, home)
    if not is_networked:
        write_local(home)
        write_own(home, "hostname", f"{spec['hostname']}\n".encode())
    return lacking


def _lacking(layers: list[str]) -> bool:
    """Say whether nothing or an empty file is at /etc/hosts; False too where that cannot be known or mounted on."""
    size = _size(layers, "hosts")
    return size is not None and size <= 0


def _size(layers: list[str], name: str) -> int | None:
    """Give the size of a file of /etc, -1 where there is none; None where that cannot be known or mounted on."""
    for layer in layers:
        try:
            etc = os.lstat(layer + "/etc")
            if not stat.S_ISDIR(etc.st_mode):
                return -1 if _is_whiteout(etc) else None  # a link may lead out of the layer, a file has nothing below
            found = os.lstat(f"{layer}/etc/{name}")
        except FileNotFoundError:
            if _is_opaque(layer + "/etc"):
                return -1
            continue
        except OSError:
            return None  # an ordinary user may not look into every directory of an image
        return -1 if _is_whiteout(found) else found.st_size if stat.S_ISREG(found.st_mode) else None
    return -1


def _is_opaque(directory: str) -> bool:
    """Say whether a layer's directory hides those of the layers below."""
    try:
        return any(name.endswith(".overlay.opaque") for name in os.listxattr(directory, follow_symlinks=False))
    except OSError:  # it is not there
        return False


def _is_whiteout(found: os.stat_result) -> bool:
    """Recognise overlayfs's mark of what a layer deletes (Documentation/filesystems/overlayfs.rst)."""
    return stat.S_ISCHR(found.st_mode) and not found.st_rdev


def write_own(home: str, name: str, data: bytes) -> None:
    """Write the container's own file of a name, for everybody to read."""
    fd = os.open(os.path.join(home, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)  # whatever the umask
        os.write(fd, data)
    finally:
        os.close(fd)
