"""What this host gives to all containers of a process: who we are, id maps, capabilities, filters.

Each is found when it is first asked for, and holds while the process lives.
"""

from __future__ import annotations

import os

from sampan import rights
from sampan.errors import InvalidArgument
from sampan.runtime import compile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.compile import Facts
    from sampan.store.paths import Paths

_ALL_IDS = (1 << 32) - 1


class Host:
    """Hold what does not change while this process lives: who we are, id maps, capability mask, filters."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.rootless = rights.rootless()
        self._cap_mask = -1
        self._filters: dict[str, tuple[bytes, int]] = {}
        self._device_programs: dict[str, bytes] = {}
        self.notes: list[str] = []
        self._identity: dict[str, Any] = {}

    def cap_mask(self) -> int:
        """Give the capabilities that this host can grant: its bounding set, or all of a user namespace's."""
        if self._cap_mask < 0:
            self._cap_mask = (1 << 41) - 1
            if not self.rootless:
                self._cap_mask &= rights.bounding()
        return self._cap_mask

    def facts(self) -> Facts:
        """Give the facts for work on files below a root: the id maps, and where roots are mounted."""
        facts = compile.Facts()
        facts.target = self.paths.mount_point
        self.add_idmap(facts)
        return facts

    def add_idmap(self, facts: Facts) -> None:
        """Fill in the id maps of an ordinary user; the note about a single id is kept for the caller to print."""
        if not self.rootless:
            return
        if not self._identity:
            from sampan.runtime import idmap

            found = idmap.detect()
            self._identity = {
                "uid": "\n".join(found.uid_lines),
                "gid": "\n".join(found.gid_lines),
                "newuidmap": found.newuidmap,
                "newgidmap": found.newgidmap,
                "single": found.single,
            }
            self.notes += found.notes
        facts.rootless = True
        facts.uid_map, facts.gid_map = self._identity["uid"], self._identity["gid"]
        facts.newuidmap, facts.newgidmap = self._identity["newuidmap"], self._identity["newgidmap"]
        facts.single_id = self._identity["single"]

    def counts(self) -> tuple[int, int]:
        """Give how many user ids and group ids a container has, from 0 on: for root, all that there are."""
        if not self.rootless:
            return _ALL_IDS, _ALL_IDS
        self.add_idmap(compile.Facts())
        uids, gids = (sum(int(line.split()[2]) for line in self._identity[kind].split("\n")) for kind in ("uid", "gid"))
        return uids, gids

    def device_program(self, rules: list[dict[str, Any]]) -> bytes:
        """Give the eBPF program for device rules."""
        key = repr(rules)
        if key not in self._device_programs:
            from sampan.runtime import devices

            self._device_programs[key] = devices.program(rules)
        return self._device_programs[key]

    def filter(self, setting: str, caps: list[str]) -> tuple[bytes, int]:
        """Give the compiled system call filter and seccomp(2)'s flags: "default", "unconfined" or a profile's path."""
        if setting == "unconfined":
            return b"", 0
        key = f"{setting} {' '.join(sorted(caps))}"
        if key not in self._filters:
            self._filters[key] = self._load_filter(setting, caps)
        return self._filters[key]

    def _load_filter(self, setting: str, caps: list[str]) -> tuple[bytes, int]:
        from sampan.runtime import seccomp

        if setting == "default":
            return seccomp.compile_default(frozenset(caps), os.uname().machine), seccomp.DEFAULT_FLAGS
        from sampan.oci import jsontext

        try:
            with open(setting, "rb") as file:
                profile = jsontext.loads(file.read(1 << 20), f"seccomp profile {setting}")
        except OSError as error:
            raise InvalidArgument(f"cannot read seccomp profile {setting}: {error.strerror}") from error
        if not isinstance(profile, dict):
            raise InvalidArgument(f"seccomp profile {setting} is not a JSON object")
        flags = seccomp.profile_flags(profile)
        return seccomp.compile_profile(profile, caps=frozenset(caps), arch=os.uname().machine), flags
