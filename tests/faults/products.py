"""What commands write for the caller, after a kill: nothing but whole files under their own names."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

END_OF_TAR = bytes(1024)  # two blocks of zeros, POSIX pax, "ustar Interchange Format"


class Products:
    """The files that the killed commands write below one directory; `keep` notes what a command makes that is not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._whole: dict[str, str] = {}

    def keep(self) -> None:
        """Note the files that were copied out of a container."""
        self._whole |= {str(path): _hashed(path) for path in self._copied()}

    def check(self, *, after_kill: bool) -> None:
        """Assert that what has a name is whole, and, when the command was repeated, that nothing else lies there."""
        for path in self.directory.glob("*.tar"):
            assert path.read_bytes().endswith(END_OF_TAR), f"{path.name} is half an archive"
        for path in self._copied():
            whole = self._whole.get(str(path))
            assert whole in (None, _hashed(path)) or path.name.startswith("."), f"{path} is half a file"
        index = self.directory / "layout/index.json"
        for path in self.directory.glob("layout/blobs/sha256/[0-9a-f]*"):
            assert path.name == _hashed(path), f"a blob of the layout is damaged: {path}"
        if index.exists():
            for entry in json.loads(index.read_bytes())["manifests"]:
                assert (self.directory / "layout/blobs/sha256" / entry["digest"][7:]).exists(), "a blob is missing"
        if not after_kill:
            assert self.strange() == [], self.strange()

    def strange(self) -> list[str]:
        """List temporary files: what no name of ours was asked for."""
        found = [path for path in self.directory.rglob(".*") if "registry" not in path.parts]
        return sorted(str(path) for path in found if path.name != ".docker")

    def _copied(self) -> list[Path]:
        top = self.directory / "copied"
        return [Path(at, name) for at, _, names in os.walk(top) for name in names if not Path(at, name).is_symlink()]


def _hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
