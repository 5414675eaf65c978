"""What a container resolves names by when it was told: --add-host, --dns, --dns-search and --dns-option.

The files are the container's own, written again at every start and bound over /etc/hosts and /etc/resolv.conf. What is
not asked for is the host's in the host's network; without a network it is localhost alone. That one has also untold,
where its image has no /etc/hosts or an empty one: Docker always binds its own, so many images have none.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, NotSupported
from sampan.runtime import hostfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.options import RunOptions

_LOCAL = hostfiles.LOCAL
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_MOST = 1 << 20


def prepare(engine: Engine, spec: dict[str, Any], options: RunOptions, container_id: str, diff_ids: list[str]) -> None:
    """Add to a new container's configuration what few ask for: other containers' mounts, and these names."""
    if options.volumes_from:
        from sampan.engine import volumemounts

        volumemounts.borrow(engine, spec, options)
    layers = engine.store.snapshots.directories(diff_ids)
    add(spec, engine.store.paths.container(container_id), layers, options)


def add(spec: dict[str, Any], home: str, layers: list[str], options: RunOptions) -> None:
    """Add the binds of what was asked to a configuration; raise InvalidArgument where they cannot be in force.

    `layers` are the image's directories, top first.
    """
    _check(options)
    wanted = {"hosts": "--add-host"} if options.add_host else {}
    if options.dns or options.dns_search or options.dns_option:
        wanted["resolv.conf"] = "--dns"
    sources = {mount["destination"]: mount.get("source") for mount in spec["mounts"]}
    for name, option in wanted.items():
        path, source = "/etc/" + name, os.path.join(home, name)
        if sources.get(path, source) != source:
            raise InvalidArgument(f"invalid {option}: another mount has the destination {path}")
        if hostfiles.is_link(path, layers):
            raise InvalidArgument(
                f"invalid {option}: {path} of the image is a symbolic link", "replace it in the image"
            )
        if path not in sources:
            hostfiles.bind(spec, home, name)


def write(options: dict[str, Any], home: str) -> None:
    """Write the files that `add` has bound, from the options that are kept with the container."""
    if options.get("add_host"):
        base = _read("/etc/hosts") if options.get("network") == "host" else _LOCAL
        lines = [f"{address}\t{name}\n" for name, address in map(_split, options["add_host"])]
        hostfiles.write_own(home, "hosts", _data(base + "".join(lines)))
    if any(options.get(key) for key in ("dns", "dns_search", "dns_option")):
        hostfiles.write_own(home, "resolv.conf", _data(resolver(_read("/etc/resolv.conf"), options)))


def _data(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def resolver(base: str, options: dict[str, Any]) -> str:
    """Return resolv.conf: each kind of line that was asked for replaces the host's (resolv.conf(5))."""
    lines = [line.split("#")[0].split(";")[0].split() for line in base.splitlines()]
    kept = [words for words in lines if len(words) > 1 and words[0] in ("nameserver", "search", "domain", "options")]
    found = []
    for key, asked in (("nameserver", options.get("dns")), ("search", options.get("dns_search"))):
        kinds = ("search", "domain") if key == "search" else (key,)
        if not asked:
            found += [" ".join(words) for words in kept if words[0] in kinds]
        elif key == "nameserver":
            found += [f"nameserver {address}" for address in asked]
        elif asked != ["."]:
            found.append("search " + " ".join(asked))
    if options.get("dns_option"):
        found.append("options " + " ".join(options["dns_option"]))
    else:
        found += [" ".join(words) for words in kept if words[0] == "options"]
    return "".join(line + "\n" for line in found)


def _check(options: RunOptions) -> None:
    for text in options.add_host:
        _split(text)
    for address in options.dns:
        _address(address, f"--dns {address[:60]!r}")
    for word in options.dns_search:
        if not word or not _NAME.issuperset(word) or len(word) > 253:
            raise InvalidArgument(f"invalid --dns-search {word[:60]!r}: it is not a domain")
    for word in options.dns_option:
        if not word or not word.isprintable() or " " in word or len(word) > 100:
            raise InvalidArgument(f"invalid --dns-option {word[:60]!r}")


def _split(text: str) -> tuple[str, str]:
    """Return name and address of `name:address` or `name=address`; the address may be in brackets."""
    at = text.find("=") if "=" in text else text.find(":")
    name, address = text[: max(at, 0)], text[at + 1 :]
    if not name or not address or not _NAME.issuperset(name):
        raise InvalidArgument(f"invalid --add-host {text[:100]!r}: write NAME:ADDRESS")
    if address == "host-gateway":
        raise NotSupported("option --add-host: host-gateway needs a bridge network, which is not available yet")
    if address[0] == "[" and address[-1] == "]":
        address = address[1:-1]
    _address(address, f"--add-host {text[:100]!r}")
    return name, address


def _address(text: str, what: str) -> None:
    import _socket

    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):
        raise InvalidArgument(f"invalid {what}: {text[:60]!r} is not an IP address") from None


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
