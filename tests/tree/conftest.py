"""Fixtures of the tree tests: the harness, plain and with sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest
from treesupport import Harness, compile_harness


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return Harness(compile_harness(tmp_path_factory.mktemp("harness") / "harness"))


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    """The harness with address and undefined-behaviour sanitizers: any finding makes it exit with another status."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    return Harness(compile_harness(tmp_path_factory.mktemp("harness") / "checked", *flags))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path
