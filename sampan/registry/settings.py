"""How registries are reached: mirrors, blocked ones, those allowed in plain HTTP.  For pull and build alike.

Read, in this order, later ones winning where they speak of the same prefix:

    /etc/containers/registries.conf and registries.conf.d/*.conf    (containers-registries.conf(5), version 2)
    ~/.config/containers/registries.conf, in place of the first
    /etc/sampan/registries.toml, ~/.config/sampan/registries.toml   the same format
    SAMPAN_REGISTRIES_CONF=FILE                                     this file in place of all of those
    SAMPAN_REGISTRY_MIRRORS="docker.io=mirror.example,…"            PREFIX=LOCATION; http:// before it allows plain HTTP
    SAMPAN_BLOCKED_REGISTRIES, SAMPAN_INSECURE_REGISTRIES           prefixes; for the latter networks too (10.0.0.0/8)

Rules: a name without a registry is Docker's (unqualified-search-registries is not used: one name, one meaning).  Plain
HTTP needs permission by prefix or network; 127.0.0.0/8 and ::1 have it, as in Docker.
"""

from __future__ import annotations

import os

from sampan.errors import Denied, InvalidArgument
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from sampan.oci.reference import Reference

DOCKER_HOST = "registry-1.docker.io"
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_ALL, _DIGEST, _TAG = "all", "digest-only", "tag-only"


class Place:
    """One place to get a repository from: `host` (with a port perhaps), `path` there, and what is allowed there.

    `plain`: plain HTTP is allowed.  `unverified`: so is a certificate that cannot be verified.
    """

    __slots__ = ("host", "mirror", "path", "plain", "unverified")

    def __init__(self, host: str, path: str, plain: bool, unverified: bool, mirror: bool = False) -> None:
        self.host = host
        self.path = path
        self.plain = plain
        self.unverified = unverified
        self.mirror = mirror

    def __repr__(self) -> str:
        return f"Place({self.host}/{self.path})"


class Rule:
    """What the configuration says of the references that begin with `prefix`."""

    def __init__(self, prefix: str, table: Mapping[str, Any], where: str) -> None:
        self.prefix = prefix
        self.location = _text(table, "location", where) or ("" if prefix.startswith("*.") else prefix)
        self.blocked = _flag(table, "blocked", where)
        self.insecure = _flag(table, "insecure", where)
        digest_only = _flag(table, "mirror-by-digest-only", where)
        mirrors = table.get("mirror", [])
        if not isinstance(mirrors, list) or not all(isinstance(one, dict) for one in mirrors):
            raise InvalidArgument(f"cannot read {where}: the mirrors of {prefix} are not tables")
        self.mirrors: list[tuple[str, bool, str]] = []
        for one in mirrors:
            place = _text(one, "location", where)
            if not place:
                raise InvalidArgument(f"cannot read {where}: a mirror of {prefix} has no location")
            kind = _text(one, "pull-from-mirror", where) or (_DIGEST if digest_only else _ALL)
            self.mirrors.append((place, _flag(one, "insecure", where), kind))

    def fits(self, name: str, domain: str) -> bool:
        """Tell whether the rule is about a repository (its full name) of a registry."""
        if self.prefix.startswith("*."):
            return domain.partition(":")[0].endswith(self.prefix[1:])
        return name == self.prefix or name.startswith((self.prefix + "/", self.prefix + ":", self.prefix + "@"))


class Settings:
    """All rules; the one with the longest prefix that fits a reference counts."""

    def __init__(self, rules: Iterable[Rule] = (), plain_networks: Iterable[str] = ()) -> None:
        self.rules = {rule.prefix: rule for rule in rules}
        self.plain_networks = [*_LOOPBACK, *plain_networks]

    def places(self, ref: Reference, *, push: bool = False) -> list[Place]:
        """Give the places to try for a reference, best first; raise Denied for a blocked registry."""
        rule = self._rule(ref)
        if rule is None:
            return [self._place(ref.name, False)]
        if rule.blocked:
            raise Denied(f"cannot reach {ref.familiar_name()}: registry {rule.prefix} is blocked by the configuration")
        found = []
        for location, insecure, kind in rule.mirrors if not push else ():
            if kind == _ALL or kind == (_DIGEST if ref.digest else _TAG):
                found.append(self._place(self._moved(ref, rule, location), insecure, mirror=True))
        return [*found, self._place(self._moved(ref, rule, rule.location), rule.insecure)]

    def place_of(self, domain: str) -> Place:
        """Give the place of a registry itself, which is no repository's."""
        try:
            found = self.places(reference.Reference(domain, "x"), push=True)[0]
        except Denied as exc:
            raise Denied(f"cannot reach {domain}: it is blocked by the configuration") from exc
        found.path = ""
        return found

    def plain_allowed(self, host: str) -> bool:
        """Tell whether plain HTTP is allowed for a host name or address (with a port perhaps), whoever names it."""
        rule = self.rules.get(host)
        return (rule is not None and rule.insecure) or self._in_plain_network(host)

    def _rule(self, ref: Reference) -> Rule | None:
        fitting = [rule for rule in self.rules.values() if rule.fits(ref.name, ref.domain)]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)

    def _moved(self, ref: Reference, rule: Rule, location: str) -> str:
        if rule.prefix.startswith("*."):
            return (location or ref.domain) + "/" + ref.path
        return location + ref.name[len(rule.prefix) :]

    def _place(self, name: str, insecure: bool, mirror: bool = False) -> Place:
        host, _, path = name.partition("/")
        if host == reference.DEFAULT_DOMAIN:
            host = DOCKER_HOST
        return Place(host, path, insecure or self.plain_allowed(host), insecure, mirror)

    def _in_plain_network(self, host: str) -> bool:
        from sampan.registry import proxies

        name = host.partition(":")[0].lower()
        if name == "localhost":
            return True
        if "[" not in host and not name.replace(".", "").isdecimal():
            return False  # a name: what it means is not looked at
        if "[" not in host and tuple(self.plain_networks) == _LOOPBACK:
            return proxies.is_loopback(name)
        return self._in_network(host)

    def _in_network(self, host: str) -> bool:
        from ipaddress import ip_address, ip_network
        from urllib.parse import urlsplit

        try:
            address = ip_address(urlsplit("//" + host).hostname or "")
        except ValueError:
            return False
        return any(address in ip_network(network, strict=False) for network in self.plain_networks)


def load(environ: Mapping[str, str]) -> Settings:
    """Read the configuration of this user; raise InvalidArgument for a file that cannot be understood."""
    rules: list[Rule] = []
    networks: list[str] = []
    for path in _files(environ):
        rules += _read(path, networks)
    rules += _from_environment(environ, networks, {rule.prefix: rule for rule in rules})
    return Settings(rules, networks)


def _files(environ: Mapping[str, str]) -> list[str]:
    if environ.get("SAMPAN_REGISTRIES_CONF"):
        return [environ["SAMPAN_REGISTRIES_CONF"]]
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = f"{home}/containers/registries.conf"
    first = environ.get("CONTAINERS_REGISTRIES_CONF") or (
        own if os.path.exists(own) else "/etc/containers/registries.conf"
    )
    found = [first]
    for directory in ("/etc/containers/registries.conf.d", f"{home}/containers/registries.conf.d"):
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        found += [f"{directory}/{name}" for name in names if name.endswith(".conf")]
    found += ["/etc/sampan/registries.toml", f"{home}/sampan/registries.toml"]
    return [path for path in found if os.path.exists(path)]


def _says_nothing(data: bytes) -> bool:
    """Tell whether a file has only comments and short names, as distributions bring it: loading tomllib takes 10 ms."""
    aliases = False
    for line in data.splitlines():
        line = line.strip()
        if line == b"[aliases]":
            aliases = True
        elif line and not line.startswith(b"#"):
            is_pair = line[:1] == line[-1:] == b'"' and line.count(b'"') == 4 and b'" = "' in line
            if not (aliases and is_pair and b"\\" not in line):
                return False
    return True


def _read(path: str, networks: list[str]) -> list[Rule]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as exc:
        raise InvalidArgument(f"cannot read {path}: {exc.strerror}") from exc
    if _says_nothing(data):
        return []
    import tomllib

    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidArgument(f"cannot read {path}: {exc}") from exc
    if "registries" in document:
        raise InvalidArgument(f"cannot read {path}: it has the old version 1 of its format", "use [[registry]] tables")
    networks += _networks(document.get("insecure-networks", []), path)
    tables = document.get("registry", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidArgument(f"cannot read {path}: registry is not a list of tables")
    rules = []
    for table in tables:
        prefix = _text(table, "prefix", path) or _text(table, "location", path)
        if not prefix:
            raise InvalidArgument(f"cannot read {path}: a registry has neither prefix nor location")
        rules.append(Rule(prefix, table, path))
    return rules


def _from_environment(environ: Mapping[str, str], networks: list[str], known: dict[str, Rule]) -> list[Rule]:
    changed: dict[str, Rule] = {}

    def rule(prefix: str, name: str) -> Rule:
        changed[prefix] = known.setdefault(prefix, Rule(prefix, {}, name))
        return changed[prefix]

    for word in _words(environ, "SAMPAN_REGISTRY_MIRRORS"):
        prefix, equals, location = word.partition("=")
        if not equals or not prefix or not location:
            raise InvalidArgument(f"cannot read SAMPAN_REGISTRY_MIRRORS: {word[:200]!r} is not PREFIX=LOCATION")
        plain = location.startswith("http://")
        place = location.removeprefix("http://").removeprefix("https://").rstrip("/")
        rule(prefix, "SAMPAN_REGISTRY_MIRRORS").mirrors.append((place, plain, _ALL))
    for word in _words(environ, "SAMPAN_BLOCKED_REGISTRIES"):
        rule(word, "SAMPAN_BLOCKED_REGISTRIES").blocked = True
    for word in _words(environ, "SAMPAN_INSECURE_REGISTRIES"):
        if "/" in word and word.rpartition("/")[2].isdecimal():
            networks += _networks([word], "SAMPAN_INSECURE_REGISTRIES")
        else:
            rule(word, "SAMPAN_INSECURE_REGISTRIES").insecure = True
    return list(changed.values())


def _words(environ: Mapping[str, str], name: str) -> list[str]:
    return environ.get(name, "").replace(",", " ").split()


def _networks(values: object, where: str) -> list[str]:
    from ipaddress import ip_network

    if not isinstance(values, list):
        raise InvalidArgument(f"cannot read {where}: insecure-networks is not a list")
    for value in values:
        try:
            ip_network(value, strict=False)
        except (ValueError, TypeError) as exc:
            raise InvalidArgument(f"cannot read {where}: {str(value)[:100]!r} is no network: {exc}") from exc
    return list(values)


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"cannot read {where}: {key} is not a text")
    return value.rstrip("/")


def _flag(table: Mapping[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"cannot read {where}: {key} is neither true nor false")
    return value
