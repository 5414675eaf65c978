"""A store with a base image of this host's programs, and builds of small contexts in it."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest
from buildsupport import Built, programs, write_tree

import sampan


@pytest.fixture(scope="session")
def engine() -> Iterator[sampan.Engine]:
    root = tempfile.mkdtemp(prefix="sampan-build-")
    os.chmod(root, 0o711)
    engine = sampan.Engine(root)
    engine.bootstrap("host", "base", programs())
    yield engine
    engine.remove_tree(engine.store.paths.snapshots)  # an ordinary user's may belong to mapped ids
    shutil.rmtree(root)


@pytest.fixture
def build(engine: sampan.Engine, tmp_path: pathlib.Path) -> Callable[..., Built]:
    """Build a Dockerfile with the given files in a new context."""
    count = iter(range(1000))

    def build(dockerfile: str, files: dict[str, object] | None = None, context: str = "", **settings: object) -> Built:
        directory = pathlib.Path(context) if context else tmp_path / f"context{next(count)}"
        directory.mkdir(exist_ok=True)
        write_tree(directory, {"Dockerfile": dockerfile, **(files or {})})
        if "file" in settings:
            settings["dockerfile"] = settings.pop("file")
        return Built(engine, str(directory), settings)

    return build
