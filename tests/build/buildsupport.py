"""What the tests of builds share: trees from tables, and a look into what was built."""

from __future__ import annotations

import os
import pathlib
import tarfile
from typing import Any

import pytest

import sampan
from sampan.build.progress import Event
from sampan.runtime import idmap

needs_ids = pytest.mark.skipif(idmap.detect().single, reason="needs a range of ids (subuid(5), newuidmap)")


PROGRAMS = [
    *("sh", "cat", "ls", "id", "sleep", "env", "mkdir", "rm", "rmdir", "touch", "chmod", "chown", "ln", "stat", "head"),
    *("true", "false", "dd", "cp", "mv", "mknod", "mkfifo", "truncate", "sed", "setfattr", "setcap", "find", "nohup"),
    *("setsid", "sort", "chattr", "umount"),
]


def programs() -> list[str]:
    path = os.environ["PATH"].split(":") + ["/usr/sbin", "/sbin"]
    return [name for name in PROGRAMS if any(os.path.exists(f"{place}/{name}") for place in path)]


class Link(str):
    """The target of a symbolic link to be made."""


def write_tree(root: pathlib.Path, files: dict[str, object]) -> None:
    """Make files: text or bytes, (text, mode), Link(target), or None for a directory."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            path.mkdir(exist_ok=True)
        elif isinstance(value, Link):
            path.symlink_to(str(value))
        elif isinstance(value, tuple):
            path.write_bytes(value[0] if isinstance(value[0], bytes) else value[0].encode())
            path.chmod(value[1])
        else:
            data = value if isinstance(value, bytes) else str(value).encode()
            if not path.exists() or path.read_bytes() != data:  # what is the same is left alone
                path.write_bytes(data)


class Built:
    """One build: its image and events."""

    def __init__(self, engine: sampan.Engine, directory: str, settings: dict[str, Any]) -> None:
        self.engine = engine
        self.directory = directory
        self.events: list[Event] = []
        listen = settings.pop("on_event", lambda event: None)
        self.id: str = engine.build(directory, on_event=lambda e: (self.events.append(e), listen(e)), **settings)
        self.image = engine.store.images.resolve(self.id)

    @property
    def config(self) -> dict[str, Any]:
        """The run configuration."""
        found: dict[str, Any] = self.image.config["config"]
        return found

    @property
    def history(self) -> list[str]:
        """What made each layer and setting, without the base's first row."""
        return [row["created_by"] for row in self.image.config["history"]]

    def kinds(self) -> list[str]:
        """The kinds of all events in order."""
        return [event.kind for event in self.events]

    @property
    def cached(self) -> int:
        """How many steps were found, the FROM lines not counted."""
        return self.kinds().count("cached") - sum(e.text.startswith("FROM") for e in self.events if e.kind == "step")

    @property
    def output(self) -> str:
        """All that the steps wrote."""
        return b"".join(event.data for event in self.events if event.kind == "output").decode()

    def layer(self, index: int = -1) -> dict[str, tarfile.TarInfo]:
        """The members of one layer by name."""
        with tarfile.open(self.engine.store.content.path(self.image.diff_ids[index])) as tar:
            return {member.name: member for member in tar.getmembers()}

    def read(self, name: str, index: int = -1) -> bytes:
        """The content of a file in one layer."""
        with tarfile.open(self.engine.store.content.path(self.image.diff_ids[index])) as tar:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

    def files(self) -> dict[str, tarfile.TarInfo]:
        """The members of all layers above the base."""
        found: dict[str, tarfile.TarInfo] = {}
        for index in range(1, len(self.image.diff_ids)):
            found.update(self.layer(index))
        return found


def left_over(engine: sampan.Engine) -> list[str]:
    """What an unfinished build would leave: active snapshots and ingests."""
    paths = engine.store.paths
    return os.listdir(paths.active) + os.listdir(paths.ingest)
