"""Documents that put together what does not belong together, or that have no end: whatever is here already.

Each is refused before anything is named, and in bounded time and memory.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, lying
from lyingsupport import refused

import sampan
from sampan.engine import manifests
from sampan.errors import IntegrityError
from sampan.oci import image as documents
from sampan.registry import client, message
from sampan.store.leases import Leases
from sampan.transfer import pull
from sampan.transfer.copy import of_manifest

LAYER = ts.BASE
IDS = [ts.digest(ts.BASE), ts.digest(ts.TOP)]
WHERE = "application/vnd.oci.image.layer.nondistributable.v1.tar"


def put(registry: LyingRegistry, name: str, layers: list[bytes], diff_ids: list[str] | None = None) -> None:
    """Put an image whose layers are compressed; its config may say something else of them."""
    document = registry.image(layers)
    config = json.loads(ts.config(layers))
    config["rootfs"]["diff_ids"] = diff_ids or config["rootfs"]["diff_ids"]
    data = json.dumps(config).encode()
    document["config"] = {"mediaType": ts.CONFIG, "digest": registry.blob(data), "size": len(data)}
    for described, layer in zip(document["layers"], layers, strict=True):
        packed = gzip.compress(layer, mtime=0)
        described |= {"mediaType": ts.LAYER + "+gzip", "digest": registry.blob(packed), "size": len(packed)}
    registry.manifest(name, "1", document)


def forget_pairs(engine: sampan.Engine) -> None:
    """Make the store one on a file system without extended attributes."""
    for digest in engine.store.content.ls():
        path = engine.store.content.path(digest)
        for name in os.listxattr(path):
            os.removexattr(path, name)


# ---- layers of one image under the diff_ids of another (51) ----


@pytest.mark.parametrize("remembered", [True, False])
def test_diff_ids_that_are_here_do_not_vouch_for_other_layers(
    registry: LyingRegistry, engine: sampan.Engine, remembered: bool
) -> None:
    put(registry, "good", [ts.BASE, ts.TOP])
    put(registry, "evil", [ts.BASE, ts.TOP], IDS[::-1])
    engine.images.pull(f"{registry.host}/good:1")
    if not remembered:
        forget_pairs(engine)
    with pytest.raises(IntegrityError, match="its diff_id is sha256:.*, not sha256:.* as its image says"):
        engine.images.pull(f"{registry.host}/evil:1")
    names = engine.store.db.query("SELECT name FROM image_references WHERE name NOT LIKE '%@%'")
    assert names == [(f"{registry.host}/good:1",)]


@pytest.mark.parametrize("remembered", [True, False])
def test_layers_that_were_compared_are_neither_fetched_nor_read_again(
    registry: LyingRegistry, engine: sampan.Engine, remembered: bool
) -> None:
    put(registry, "one", [ts.BASE, ts.TOP])
    engine.images.pull(f"{registry.host}/one:1")
    if not remembered:
        forget_pairs(engine)
    before = len(registry.asked("/blobs/"))
    put(registry, "two", [ts.BASE, ts.TOP])
    heard: list[tuple[str, str]] = []
    engine.images.pull(f"{registry.host}/two:1", listen=lambda event: heard.append((event.kind, event.part)))
    assert len(registry.asked("/blobs/")) == before
    assert {kind for kind, part in heard if part} == {"exists"}


def test_one_layer_with_two_diff_ids_is_refused(registry: LyingRegistry, engine: sampan.Engine) -> None:
    put(registry, "app", [ts.BASE, ts.BASE], [ts.digest(b"nowhere"), IDS[0]])
    refused(registry, engine, match="two diff_ids")


def test_what_another_host_names_must_have_been_compared(registry: LyingRegistry, engine: sampan.Engine) -> None:
    put(registry, "good", [ts.BASE, ts.TOP])
    put(registry, "evil", [ts.BASE, ts.TOP], IDS[::-1])
    engine.images.pull(f"{registry.host}/good:1")
    data = registry.manifests["evil", "1"][0]
    document = documents.parse_manifest(data)
    config = registry.blobs[document["config"]["digest"]]
    store = engine.store
    with Leases(store.db).take("copy") as lease:
        end = pull.StoreDestination(store, engine.host.facts, lease, lambda _: ["docker.io/library/x:1"])
        store.content.add(config, lease=lease)
        with pytest.raises(IntegrityError, match="nobody has seen"):
            end.finish(of_manifest(data, ts.MANIFEST, ts.digest(data), document, config, "x"))
    assert not store.images.has("x:1")


# ---- descriptors ----


@pytest.mark.parametrize("urls", [5, True, {"a": "b"}, "http://a.example/", [1], [None]])
def test_addresses_that_are_no_list_of_texts_are_refused(
    registry: LyingRegistry, engine: sampan.Engine, urls: Any
) -> None:
    document = registry.image([LAYER])
    document["layers"][0] |= {"mediaType": WHERE, "urls": urls}
    registry.manifest("app", "1", document)
    refused(registry, engine, match="urls")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1\n:1/", "http://exa\tmple/", "http://a.example /", "http://a\x00b/"]
    + ["http://a.example\\@b/", "http://127.0.0.1\\a.example/", "http://a;b/", "http://a,b/"],
)
def test_an_address_with_what_parsers_drop_is_not_asked(
    registry: LyingRegistry, engine: sampan.Engine, url: str
) -> None:
    document = registry.image([LAYER])
    document["layers"][0] |= {"mediaType": WHERE, "urls": [url]}
    del registry.blobs[document["layers"][0]["digest"]]
    registry.manifest("app", "1", document)
    with pytest.raises(message.Refused):
        message.origin(url)
    assert "\n" not in refused(registry, engine, sampan.errors.SampanError).message


def test_names_of_platforms_are_short(registry: LyingRegistry, engine: sampan.Engine) -> None:
    document = registry.image([LAYER])
    data = ts.config([LAYER], variant="v" * 1000)
    document["config"] |= {"digest": registry.blob(data), "size": len(data)}
    registry.manifest("app", "1", document)
    refused(registry, engine, match="variant has 1000 characters")


# ---- indexes and lists without end ----


def described(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": ts.digest(data), "size": len(data)}


def index(registry: LyingRegistry, entries: list[dict[str, Any]]) -> dict[str, Any]:
    data = json.dumps({"schemaVersion": 2, "mediaType": ts.INDEX, "manifests": entries}).encode()
    registry.manifest("app", "1", data, ts.INDEX)
    return described(data, ts.INDEX)


def copied(registry: LyingRegistry, engine: sampan.Engine, directory: Path) -> set[str]:
    """Copy the whole index to a layout; give its blobs."""
    engine.images.copy(f"docker://{registry.host}/app:1", f"oci:{directory}", every=True)
    return {"sha256:" + name for name in os.listdir(directory / "blobs/sha256")}


def test_indexes_of_indexes_arrive_whole_and_each_document_once(
    registry: LyingRegistry, engine: sampan.Engine, tmp_path: Path
) -> None:
    image = registry.manifests["app", "1"][0]
    inner = index(registry, [described(image, ts.MANIFEST)] * 500)
    outer = index(registry, [inner] * 500)
    there = copied(registry, engine, tmp_path / "out")
    assert {outer["digest"], inner["digest"], ts.digest(image)} <= there
    assert len(registry.asked("manifests/")) < 10
    with lying() as other:
        engine.images.copy(f"docker://{registry.host}/app:1", f"docker://{other.host}/app:1", every=True)
        assert {name for _, name in other.manifests} == {outer["digest"], inner["digest"], ts.digest(image), "1"}


def test_an_index_of_too_many_is_refused(registry: LyingRegistry, engine: sampan.Engine, tmp_path: Path) -> None:
    image = json.loads(registry.manifests["app", "1"][0])
    entries = []
    for number in range(600):
        data = json.dumps(image | {"annotations": {"n": str(number)}}).encode()
        registry.manifest("app", f"n{number}", data)
        entries.append(described(data, ts.MANIFEST))
    index(registry, entries)
    with pytest.raises(IntegrityError, match="more than 512 manifests"):
        copied(registry, engine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_index_of_too_many_is_not_fetched_to_be_described(registry: LyingRegistry) -> None:
    index(registry, [described(registry.manifests["app", "1"][0], ts.MANIFEST)] * 513)
    with pytest.raises(IntegrityError, match="lists more than 512 manifests"):
        manifests.describe(f"{registry.host}/app:1")
    assert len(registry.requests) < 10


def test_an_index_of_large_documents_is_refused(registry: LyingRegistry, engine: sampan.Engine, tmp_path: Path) -> None:
    image = registry.manifests["app", "1"][0]
    entries = []
    for number in range(18):
        data = image + b" " * ((4 << 20) - len(image) - number)
        registry.manifest("app", f"n{number}", data)
        entries.append(described(data, ts.MANIFEST))
    index(registry, entries)
    with pytest.raises(IntegrityError, match="its documents have more than 67108864 bytes"):
        copied(registry, engine, tmp_path / "out")


@pytest.mark.parametrize("entries", [0, 400_000])
def test_a_list_of_tags_without_end_is_an_error(
    registry: LyingRegistry, engine: sampan.Engine, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither believed to be whole where it was cut, nor followed for ever."""
    monkeypatch.setattr(client, "_MAX_PAGES", 20)
    body = json.dumps({"tags": ["a"] * entries}).encode()

    def hook(request: Asked) -> Answer | None:
        if "tags/list" not in request.path:
            return None
        return Answer(200, {"Link": f'</v2/app/tags/list?last={request.count}>; rel="next"'}, body)

    registry.hook = hook
    with pytest.raises(IntegrityError, match="sends a list without end"):
        engine.images.pull(f"{registry.host}/app", all_tags=True)
