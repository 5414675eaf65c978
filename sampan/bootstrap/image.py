"""What a base image is made of: the tar of its one layer, and its configuration.

Two kinds (`spec`): `host` packs programs of this host (bootstrap/host.py), `debian:SUITE` asks mmdebstrap
(bootstrap/debian.py). Nothing here knows the store: the engine imports the tar as it imports any other.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from sampan.bootstrap.tree import Node

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BLOCK = 512
# Two empty blocks end an archive (POSIX.1-2017 pax, "ustar Interchange Format").
END = bytes(2 * BLOCK)


def layers_for(spec: str, programs: Sequence[str] = ()) -> Iterator[bytes]:
    """Yield the tar of the layer: `programs` are programs of this host, or package names for Debian.

    Raises InvalidArgument for a spec that is neither kind, NotFound for a program that this host does not have,
    NotSupported where the tool for it is missing; all before the first byte.
    """
    kind, suite = _parse(spec)
    if kind == "host":
        from sampan.bootstrap import host

        return tar(host.make(programs))
    from sampan.bootstrap import debian

    return debian.make(suite, programs)


def config_for(spec: str) -> dict[str, Any]:
    """Return the `config` object of the image (image-spec config.md, "config")."""
    kind, _ = _parse(spec)
    return {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh" if kind == "host" else "bash"]}


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, suite = spec.partition(":")
    if (kind == "host" and not colon) or (kind == "debian" and suite):
        return kind, suite
    raise InvalidArgument(f"cannot bootstrap {spec!r}: not a kind of base image", hint="host, or debian:SUITE")


def tar(nodes: Iterator[Node]) -> Iterator[bytes]:
    """Yield the nodes as a tar, in their order, all owned by 0:0."""
    for node in nodes:
        yield _header(node)
        if node.type == "F":
            yield from node.read()
            yield bytes(-node.size % BLOCK)
    yield END


def _header(node: Node) -> bytes:
    import tarfile

    kinds = {"D": tarfile.DIRTYPE, "F": tarfile.REGTYPE, "L": tarfile.SYMTYPE}
    info = tarfile.TarInfo(node.path.lstrip("/"))
    info.type = kinds[node.type]
    info.mode = node.mode
    info.mtime = node.mtime
    info.size = node.size if node.type == "F" else 0
    info.linkname = node.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
