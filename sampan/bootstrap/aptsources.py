"""Read where this host's apt gets its packages: one-line `.list` files and deb822 `.sources` files (sources.list(5)).
Pure but for `load`.

Only what a new system needs is kept: the addresses, suites, components and keys of binary packages.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20


class Source:
    """One archive: `signed_by` is the path of a keyring, or ""."""

    __slots__ = ("components", "signed_by", "suites", "uris")

    def __init__(self, uris: list[str], suites: list[str], components: list[str], signed_by: str = "") -> None:
        self.uris = uris
        self.suites = suites
        self.components = components
        self.signed_by = signed_by

    def line(self, suite: str) -> str:
        """Return this archive as one line of sources.list for `suite`."""
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uris[0]} {suite} {' '.join(self.components)}"


def parse_list(text: str) -> Iterator[Source]:
    """Yield the sources of a one-line-style file: `deb [option=value …] uri suite component…`."""
    for line in text.splitlines():
        words = line.split("#", 1)[0].replace("[", " [ ", 1).replace("]", " ] ", 1).split()
        if len(words) < 3 or words[0] != "deb":
            continue
        signed_by = ""
        if words[1] == "[":
            if "]" not in words:
                continue
            end = words.index("]")
            options = dict(word.split("=", 1) for word in words[2:end] if "=" in word)
            signed_by = options.get("signed-by", "")
            words = [words[0], *words[end + 1 :]]
        if len(words) >= 4:
            yield Source([words[1]], [words[2]], words[3:], _keyring(signed_by))


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the enabled sources of a deb822-style file."""
    for fields in _stanzas(text):
        types, uris, suites = (fields.get(name, "").split() for name in ("types", "uris", "suites"))
        components = fields.get("components", "").split()
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off", "without", "disable")
        if enabled and "deb" in types and uris and suites and components:
            yield Source(uris, suites, components, _keyring(fields.get("signed-by", "")))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each stanza, names in lower case, folded lines joined."""
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t":
            if last:
                fields[last] += "\n" + line.strip()
        elif ":" in line:
            last, value = line.split(":", 1)
            last = last.strip().lower()
            fields[last] = value.strip()


def _keyring(value: str) -> str:
    """Return the first keyring file named; keys given inline or by fingerprint are left to apt's own trusted keys."""
    words = value.replace(",", " ").split()
    return words[0] if words and words[0].startswith("/") else ""


def load(root: str = "") -> list[Source]:
    """Return all sources of the host, sources.list first, then the parts by name, as apt reads them."""
    parts = f"{root}/etc/apt/sources.list.d"
    names = [f"{parts}/{name}" for name in sorted(os.listdir(parts))] if os.path.isdir(parts) else []
    found: list[Source] = []
    for name in [f"{root}/etc/apt/sources.list", *names]:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(os.path.splitext(name)[1])
        if parse is None or not os.path.isfile(name):
            continue
        with open(name, encoding="utf-8", errors="replace") as file:
            found.extend(parse(file.read(MAX_BYTES)))
    return found


def choose(sources: list[Source], suite: str) -> Source | None:
    """Return the source that offers `suite`, else the host's main Debian archive (it has them all), else None."""
    for source in sources:
        if suite in source.suites:
            return source
    for source in sources:
        plain = [name for name in source.suites if "-" not in name and "/" not in name]
        if plain and "main" in source.components and "debian" in source.uris[0].rstrip("/").rsplit("/", 1)[-1]:
            return source
    return None
