"""Empty stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sampan


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[[], sampan.Engine]]:
    made: list[sampan.Engine] = []

    def make() -> sampan.Engine:
        made.append(sampan.Engine(str(tmp_path / f"store{len(made)}")))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(make_engine: Callable[[], sampan.Engine]) -> sampan.Engine:
    return make_engine()
