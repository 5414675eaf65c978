"""Platforms: operating system, architecture and variant, with the specification's names (those of the Go language).

A platform is kept in its normal form: arm64 has no variant "v8" and amd64 no "v1" (the base of each), and arm without a
variant is v7.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "loongarch64": "loong64",
}
_ARM = {"armhf": "v7", "armel": "v6", "armv7l": "v7", "armv8l": "v7", "armv6l": "v6", "armv5tel": "v5"}
_KNOWN = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le")
    + ("ppc64", "ppc64le", "riscv64", "s390x", "wasm")
)
_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "plan9", "wasip1"))
_BASE_VARIANT = {"arm64": "v8", "amd64": "v1"}
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Platform:
    """One platform: `os`, `architecture`, `variant`."""

    __slots__ = ("os", "architecture", "variant")

    def __init__(self, os: str, architecture: str, variant: str = "") -> None:
        self.os = os.lower()
        architecture = architecture.lower()
        variant = variant.lower()
        if architecture in _ARM:
            architecture, variant = "arm", variant or _ARM[architecture]
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if variant.isdecimal():
            variant = "v" + variant
        if architecture == "arm" and not variant:
            variant = "v7"
        self.architecture = architecture
        self.variant = "" if variant == _BASE_VARIANT.get(architecture) else variant

    def descriptor(self) -> dict[str, str]:
        """Return the `platform` object of a descriptor (image-spec image-index.md)."""
        value = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            value["variant"] = self.variant
        return value

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")

    def __repr__(self) -> str:
        return f"Platform({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Platform) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def host() -> Platform:
    """Return the platform of this machine."""
    return Platform("linux", os.uname().machine)


def parse(text: str) -> Platform:
    """Return what `os/architecture[/variant]`, or one of the first two alone, means; raise InvalidArgument."""
    parts = text.split("/")
    if len(parts) > 3 or not all(part.strip(".-_") == part != "" and _ALLOWED.issuperset(part) for part in parts):
        raise InvalidArgument(f"invalid platform {text[:100]!r}: write os/architecture or os/architecture/variant")
    if len(parts) > 1:
        return Platform(*parts)
    if parts[0].lower() in _SYSTEMS:
        here = host()
        return Platform(parts[0], here.architecture, here.variant)
    alone = Platform("linux", parts[0])
    if alone.architecture not in _KNOWN:
        raise InvalidArgument(f"unknown platform {text[:100]!r}: it is neither an operating system nor an architecture")
    return alone


def from_descriptor(value: dict[str, Any]) -> Platform:
    """Return the platform of an image config or of a descriptor's `platform`; what is missing is ""."""
    fields = (value.get(key) for key in ("os", "architecture", "variant"))
    return Platform(*(field if isinstance(field, str) else "" for field in fields))


def rank(wanted: Platform, offered: Platform) -> int | None:
    """Return how well `offered` runs where `wanted` is asked for: 0 is exact, higher is worse, None is not at all."""
    if wanted.os != offered.os or wanted.architecture != offered.architecture:
        return None
    if wanted.variant == offered.variant:
        return 0
    above, below = _level(wanted), _level(offered)
    return above - below if 0 < below < above else None


def matches(wanted: Platform, offered: Platform) -> bool:
    """Tell whether `offered` runs where `wanted` is asked for: a lower variant does, a higher one does not."""
    return rank(wanted, offered) is not None


def _level(platform: Platform) -> int:
    # Only these have variants that build on each other; any other unequal variant does not fit (0).
    variant = platform.variant or _BASE_VARIANT.get(platform.architecture, "")
    if platform.architecture in ("arm", "arm64", "amd64") and variant[1:2].isdecimal() and variant.startswith("v"):
        return int(variant[1:2])
    return 0
