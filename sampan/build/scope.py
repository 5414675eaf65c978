"""Build arguments: which names a stage sees, and with which values.

Pure. Docker's rules: an ARG before the first FROM is seen by FROM lines only; a stage sees a name after its own ARG,
with the value of --build-arg, else the ARG's default, else the global one; a stage built on another sees what that
one declared. The platform names are global arguments that are always set. The proxy names need no ARG to reach RUN,
and without one they are in neither the cache key nor the history, because they describe the place of the build, not
the result.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.oci.platform import Platform

    Expand = Callable[[str, dict[str, str]], str]

PROXIES = frozenset(
    name
    for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (word, word.upper())
)
_SILENT = ("BUILDKIT_", "SOURCE_DATE_EPOCH")


def platform_arguments(target: Platform, build: Platform) -> dict[str, str]:
    """Give the arguments that describe the platforms."""
    values = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        values[f"{prefix}PLATFORM"] = str(platform)
        values[f"{prefix}OS"] = platform.os
        values[f"{prefix}ARCH"] = platform.architecture
        values[f"{prefix}VARIANT"] = platform.variant
    return values


class Arguments:
    """Hold what was given with --build-arg, the global scope, and which names were asked for."""

    def __init__(self, given: dict[str, str], platforms: dict[str, str]) -> None:
        self.given = given
        self.globals = {name: given.get(name, value) for name, value in platforms.items()}
        self.declared: set[str] = set(platforms)

    def declare_global(self, name: str, default: str | None, expand: Expand) -> None:
        """Take an ARG that stands before the first FROM."""
        self.declared.add(name)
        if name in self.given:
            self.globals[name] = self.given[name]
        elif default is not None:
            self.globals[name] = expand(default, self.globals)

    def value(self, name: str, default: str | None) -> str | None:
        """Give what an ARG of a stage has for value, its default being expanded already; None when it is unset."""
        self.declared.add(name)
        if name in self.given:
            return self.given[name]
        return default if default is not None else self.globals.get(name)

    def proxies(self) -> dict[str, str]:
        """Give the proxy settings among the given arguments."""
        return {name: value for name, value in self.given.items() if name in PROXIES}

    def unused(self) -> list[str]:
        """List the given names that no ARG asked for."""
        return sorted(
            name
            for name in self.given
            if name not in self.declared and name not in PROXIES and not name.startswith(_SILENT)
        )
