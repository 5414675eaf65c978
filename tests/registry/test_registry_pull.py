"""Pull from a real registry: what arrives is what was there, and what is here is not fetched again."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, lying
from registrysupport import Registry, needs_registry, needs_skopeo, skopeo
from waiting import until

import sampan
from sampan.errors import NotFound
from sampan.registry.message import Request
from sampan.registry.settings import Settings
from sampan.registry.transport import HttpTransport

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
    """Digests of the blobs that were got, from the registry's log; it writes of a large one after all was sent."""
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
    first = until(lambda: len(found := fetched(plain, before)) >= 3 and found)
    assert len(first) == len(set(first)) == 3  # the config and two layers
    before = plain.log.stat().st_size
    (pulled,) = engine.images.pull(f"{plain.host}/second:1")
    assert not pulled.new and fetched(plain, before) == []


SECOND = """
import sys, sampan
from pathlib import Path
engine = sampan.Engine(sys.argv[1])
(pulled,) = engine.images.pull(sys.argv[2])
assert not pulled.new
heavy = {"urllib3", "http.client", "ssl", "tomllib", "stringprep", "sampan.transfer.pull"}
heavy &= set(sys.modules)
print(sorted(heavy))
"""


def test_a_pull_that_fetches_nothing_loads_little(engine: sampan.Engine) -> None:
    """Also where a token is needed: urllib3's import alone would take longer than all the rest."""

    def hook(request: Asked) -> Answer | None:
        if request.path == "/token":
            return Answer(200, {}, json.dumps({"token": "t"}).encode())
        if request.headers.get("Authorization") != "Bearer t":
            where = f'Bearer realm="{registry.base}/token",service="s"'
            return Answer(401, {"WWW-Authenticate": where}, b"{}")
        return None

    with lying() as registry:
        registry.manifest("app", "1", registry.image([ts.BASE]))
        registry.hook = hook
        engine.images.pull(f"{registry.host}/app:1")
        before = len(registry.requests)
        words = [sys.executable, "-c", SECOND, engine.store.paths.root, f"{registry.host}/app:1"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == "[]\n", done.stdout + done.stderr
        asked = [(one.method, one.path) for one in registry.requests[before:]]
        assert asked == [("HEAD", "/v2/app/manifests/1"), ("GET", "/token"), ("HEAD", "/v2/app/manifests/1")]


def test_a_registry_that_closes_between_requests_is_asked_again(engine: sampan.Engine) -> None:
    with lying() as registry:
        registry.manifest("app", "1", registry.image([ts.BASE]))
        registry.hook = lambda asked: Answer(401, {}, b"", close=True) if asked.path == "/v2/" else None
        transport = HttpTransport(Settings(), {})
        for _ in range(2):
            url = f"{registry.base}/v2/app/manifests/1"
            with transport.send(Request("HEAD", url)) as response:
                assert response.status == 200 and response.read(10) == b""
            ((connection,),) = transport._brief._idle.values()  # type: ignore[union-attr]
            connection.sock.shutdown(socket.SHUT_RDWR)
        transport.close()


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
