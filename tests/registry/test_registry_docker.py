"""A registry between sampan and docker: what one pushes the other pulls, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dockersupport
import pytest
import transfersupport as ts
from dockersupport import Docker
from registrysupport import Registry, needs_registry

import sampan

pytestmark = [needs_registry, pytest.mark.skipif(bool(dockersupport.NEEDS), reason=dockersupport.NEEDS)]


@pytest.fixture
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with Docker(tmp_path_factory.mktemp("docker")) as daemon:
        yield daemon


def test_docker_pulls_what_was_pushed_and_sends_it_back(
    plain: Registry, docker: Docker, make_engine: Callable[[], sampan.Engine]
) -> None:
    engine, other = make_engine(), make_engine()
    engine.bootstrap("host", "base", ["sh", "cat"])
    name, back = f"{plain.host}/docker/ours:1", f"{plain.host}/docker/theirs:1"
    engine.images.tag("base", name)
    (pushed,) = engine.images.push(name)
    assert pushed.digest in docker("pull", name)
    assert docker("image", "inspect", "--format", "{{.Id}}", name).strip() == engine.images.resolve(name).id
    docker("tag", name, back)
    docker("push", back)
    (pulled,) = other.images.pull(back)
    assert pulled.id == engine.images.resolve(name).id
    assert ts.trees(other, back) == ts.trees(engine, name)
    other.images.tag(back, f"{plain.host}/docker/again:1")
    assert other.images.push(f"{plain.host}/docker/again:1")[0].digest == pulled.digest  # Docker's own manifest
