"""Pull from a real registry: what arrives is what was there, and what is here is not fetched again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import transfersupport as ts
from registrysupport import Registry, needs_registry, needs_skopeo, skopeo

import sampan
from sampan.errors import NotFound

pytestmark = [needs_registry, needs_skopeo]


def fill(registry: Registry, tmp_path: Path, name: str, **settings: str) -> None:
    """Put the small image of the transfer tests into a registry, with skopeo."""
    source = ts.write_tree(
        tmp_path / f"layout-{name.replace('/', '-').replace(':', '-')}", ts.simple_layout(**settings).build()
    )
    skopeo(
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
        f"oci:{source}",
        f"docker://{registry.host}/{name}",
    )


def fetched(registry: Registry, since: int = 0) -> list[str]:
    """Digests of the blobs that were got, from the registry's log."""
    log = registry.log.read_bytes()[since:].decode()
    return re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]+)', log)


@pytest.mark.parametrize("suffix", ["", "+gzip"])
def test_what_arrives_is_what_was_there(
    plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path, suffix: str
) -> None:
    name = f"arrives{suffix.strip('+')}:1"
    fill(plain, tmp_path, name, suffix=suffix)
    engine, other = make_engine(), make_engine()
    (pulled,) = engine.images.pull(f"{plain.host}/{name}")
    files = ts.write_tree(tmp_path / "tar", ts.simple_layout(suffix=suffix).build())
    other.images.load(str(files))
    assert ts.trees(engine, f"{plain.host}/{name}") == ts.trees(other, "app:1")
    assert engine.images.resolve(f"{plain.host}/{name}").id == other.images.resolve("app:1").id
    assert pulled.new and pulled.digest == engine.images.resolve(pulled.id).manifest_digest
    assert os.listdir(engine.store.paths.ingest) == [] and engine.store.db.query("SELECT * FROM leases") == []


def test_a_second_pull_fetches_nothing(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> None:
    fill(plain, tmp_path, "second:1")
    before = plain.log.stat().st_size
    engine.images.pull(f"{plain.host}/second:1")
    first = fetched(plain, before)
    assert len(first) == len(set(first)) == 3  # the config and two layers
    before = plain.log.stat().st_size
    (pulled,) = engine.images.pull(f"{plain.host}/second:1")
    assert not pulled.new and fetched(plain, before) == []


def test_a_digest_names_what_it_was_pulled_by(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> None:
    fill(plain, tmp_path, "bydigest:1")
    (first,) = engine.images.pull(f"{plain.host}/bydigest:1")
    engine.images.remove(f"{plain.host}/bydigest:1")
    name = f"{plain.host}/bydigest@{first.digest}"
    engine.images.pull(f"{plain.host}/bydigest:ignored@{first.digest}")  # Docker ignores a tag beside a digest
    assert engine.images.resolve(name).id == engine.images.resolve(f"{plain.host}/bydigest:other@{first.digest}").id
    assert [(row["Repository"], row["Tag"]) for row in engine.images.ls()] == [(f"{plain.host}/bydigest", "<none>")]
    assert engine.images.inspect(name)["RepoDigests"] == [name] and engine.images.inspect(name)["RepoTags"] == []
    with pytest.raises(NotFound):
        engine.images.resolve(f"{plain.host}/bydigest:1")
    engine.images.remove(name)
    assert engine.images.ls() == []


def test_all_tags(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> None:
    for tag in ("1", "2", "v3"):
        fill(plain, tmp_path, f"many:{tag}")
    found = engine.images.pull(f"{plain.host}/many", all_tags=True)
    assert [one.reference.tag for one in found] == ["1", "2", "v3"]
    assert len(engine.images.ls()) == 3


def test_what_is_not_there_is_said_with_the_registry(plain: Registry, engine: sampan.Engine) -> None:
    with pytest.raises(NotFound, match=f"cannot pull {plain.host}/no/such:1: {plain.host} does not have it"):
        engine.images.pull(f"{plain.host}/no/such:1")
    assert ts.nothing_left(engine)
