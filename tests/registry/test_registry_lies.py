"""A registry that lies: nothing of it is believed, nothing is tagged, no secret leaves.

The control at the end shows that a client without these checks is taken in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry
from lyingsupport import layer_with, refused

import sampan
from sampan.errors import (
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotSupported,
    SampanError,
)

ROOT = Path(__file__).parent.parent.parent


LAYER = ts.BASE


DIGEST = ts.digest(LAYER)


OTHER = ts.digest(b"other")


def manifest_with(registry: LyingRegistry, **changes: Any) -> dict[str, Any]:
    return {**registry.image([LAYER]), **changes}


def index_of(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": ts.INDEX, "manifests": list(entries)}


# ---- digests (52) ----


@pytest.mark.parametrize("what", ["layer", "config"])
def test_a_blob_with_another_content_is_refused(registry: LyingRegistry, engine: sampan.Engine, what: str) -> None:
    document = registry.image([LAYER])
    digest = (document["layers"][0] if what == "layer" else document["config"])["digest"]
    real = registry.blobs[digest]
    registry.blobs[digest] = real[:-1] + bytes([real[-1] ^ 1])
    refused(registry, engine, match="digest|diff_id")
    assert os.listdir(engine.store.paths.ingest) == [] and not engine.store.content.has(digest)


@pytest.mark.parametrize("by", ["tag", "digest", "both"])
def test_a_manifest_with_another_content_is_refused(registry: LyingRegistry, engine: sampan.Engine, by: str) -> None:
    data, kind = registry.manifests["app", "1"]
    digest = ts.digest(data)
    for key in list(registry.manifests):
        registry.manifests[key] = (data + b" ", kind)
    registry.hook = lambda request: (
        Answer(200, {"Content-Type": kind, "Docker-Content-Digest": digest}, data + b" ")
        if "manifests" in request.path
        else None
    )
    name = {"tag": "app:1", "digest": f"app@{digest}", "both": f"app:1@{digest}"}[by]
    refused(registry, engine, match="has the digest", name=name)


def test_head_and_get_must_agree(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.hook = lambda request: (
        Answer(200, {"Docker-Content-Digest": OTHER}, b"{}") if request.method == "HEAD" else None
    )
    refused(registry, engine, NotFound)  # what HEAD announced is asked for, and is not there


def test_a_false_digest_header_is_refused(registry: LyingRegistry, engine: sampan.Engine) -> None:
    data, kind = registry.manifests["app", "1"]
    registry.hook = lambda request: (
        (
            Answer(405)
            if request.method == "HEAD"
            else Answer(200, {"Content-Type": kind, "Docker-Content-Digest": OTHER}, data)
        )
        if "manifests" in request.path
        else None
    )
    refused(registry, engine, match="has the digest")


def test_wrong_diff_ids_are_refused(registry: LyingRegistry, engine: sampan.Engine) -> None:
    config = json.loads(ts.config([LAYER]))
    for wrong in ([OTHER], [DIGEST, OTHER], []):
        config["rootfs"]["diff_ids"] = wrong
        data = json.dumps(config).encode()
        described = {"mediaType": ts.CONFIG, "digest": registry.blob(data), "size": len(data)}
        registry.manifest("app", "1", manifest_with(registry, config=described))
        refused(registry, engine, match=f"cannot pull {registry.host}/app:1: (invalid image: |.*diff_id)")


# ---- sizes (53) ----


@pytest.mark.parametrize(
    "size", [0, 1, len(LAYER) - 1, len(LAYER) + 1, 1 << 40, -1, 1 << 63, "1e400", "NaN", '"5"', "null", "1.5", "[]"]
)
def test_a_size_that_lies_is_refused(registry: LyingRegistry, engine: sampan.Engine, size: Any) -> None:
    text = json.dumps(registry.image([LAYER])).replace(f'"size": {len(LAYER)}', f'"size": {size}')
    registry.manifest("app", "1", text.encode())
    refused(registry, engine)
    assert os.listdir(engine.store.paths.ingest) == []


@pytest.mark.parametrize("what", ["manifest", "layer", "config", "token"])
def test_an_endless_body_is_not_read_to_its_end(registry: LyingRegistry, engine: sampan.Engine, what: str) -> None:
    stop = [False]

    def endless() -> Iterator[bytes]:
        while not stop[0]:
            yield b"{" * (1 << 16)

    document = registry.image([LAYER])
    targets = {"layer": DIGEST, "config": document["config"]["digest"]}

    def hook(request: Asked) -> Answer | None:
        if what == "token":
            if request.path != "/token":
                return Answer(401, {"WWW-Authenticate": f'Bearer realm="{registry.base}/token"'})
        elif what == "manifest":
            if "manifests" not in request.path or request.method == "HEAD":
                return None
        elif not request.path.endswith(targets[what]):
            return None
        return Answer(200, {"Content-Type": ts.MANIFEST}, endless(), length=None)

    registry.hook = hook
    refused(registry, engine)
    stop[0] = True
    # What the kernel buffers on a loopback connection may be a few megabytes.
    assert registry.served < 40 << 20


def test_a_manifest_that_says_it_is_huge_is_not_begun(registry: LyingRegistry, engine: sampan.Engine) -> None:
    data, kind = registry.manifests["app", "1"]
    registry.hook = lambda request: (
        Answer(200, {"Content-Type": kind}, iter([data]), length=1 << 30, close=True)
        if "manifests" in request.path and request.method == "GET"
        else None
    )
    refused(registry, engine, match="more than")


def test_a_content_encoding_is_not_undone(registry: LyingRegistry, engine: sampan.Engine) -> None:
    import gzip

    packed = gzip.compress(LAYER)
    registry.hook = lambda request: (
        Answer(200, {"Content-Encoding": "gzip"}, packed) if request.path.endswith(DIGEST) else None
    )
    refused(registry, engine)
    asked = registry.asked(DIGEST)[0].headers
    assert asked["Accept-Encoding"] == "identity"


# ---- ambiguous manifests (54) ----


@pytest.mark.parametrize("sent", [ts.MANIFEST, ts.INDEX, "text/plain", ""])
def test_a_manifest_that_is_also_an_index_is_refused(registry: LyingRegistry, engine: sampan.Engine, sent: str) -> None:
    for own in (ts.MANIFEST, ts.INDEX):
        both = manifest_with(registry, manifests=[], mediaType=own)
        registry.manifest("app", "1", both, sent)
        refused(registry, engine)


def test_a_type_that_differs_from_its_header_is_refused(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.manifest("app", "1", registry.image([LAYER]), ts.INDEX)
    refused(registry, engine, match="calls itself")


def test_an_index_that_lies_about_what_it_lists_is_refused(registry: LyingRegistry, engine: sampan.Engine) -> None:
    digest = registry.manifest("app", "below", registry.image([LAYER]))
    size = len(registry.manifests["app", digest][0])
    entry = {"mediaType": ts.MANIFEST, "digest": digest, "size": size}
    for wrong in ({"size": size + 1}, {"mediaType": ts.INDEX}, {"digest": OTHER}):
        registry.manifest("app", "1", index_of(entry | wrong), ts.INDEX)
        refused(registry, engine, (IntegrityError, NotFound))  # type: ignore[arg-type]
    registry.manifest("app", "1", index_of(entry), ts.INDEX)
    engine.images.pull(f"{registry.host}/app:1")


def test_indexes_within_indexes_end(registry: LyingRegistry, engine: sampan.Engine) -> None:
    digest = registry.manifest("app", "m", registry.image([LAYER]))
    kind = ts.MANIFEST
    for _ in range(6):
        entry = {"mediaType": kind, "digest": digest, "size": len(registry.manifests["app", digest][0])}
        digest = registry.manifest("app", "1", index_of(entry), ts.INDEX)
        kind = ts.INDEX
    refused(registry, engine, match="nested")


# ---- layers that are none, bombs (47, 51) ----


def test_a_layer_of_an_unknown_kind_is_refused(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.manifest("app", "1", layer_with(registry, mediaType="application/x-thing"))
    refused(registry, engine, NotSupported, "no image layer")


# ---- references (61), errors ----


@pytest.mark.parametrize(
    "name",
    ["../x", "-x", "a//b", "a/B:1", "[::1]:5000/a:-", "a@sha256:0", "a@sha512:" + "0" * 128, "a:" + "x" * 129, ""],
)
def test_a_reference_that_is_none_asks_nobody(engine: sampan.Engine, name: str) -> None:
    with pytest.raises(InvalidArgument):
        engine.images.pull(name)


def test_what_a_registry_says_is_shown_safely(registry: LyingRegistry, engine: sampan.Engine) -> None:
    words = json.dumps({"errors": [{"code": "X", "message": "\x1b[2J\nboo" + "o" * 9999}]}).encode()
    registry.hook = lambda request: Answer(403, {}, words) if request.method == "GET" else None
    error = refused(registry, engine, SampanError, "denies")
    assert "\x1b" not in error.message and len(error.message) < 500


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"tags": {}}', b'{"tags": ["../x", "-y", 5]}', b"{" * 5000])
def test_a_list_of_tags_that_is_none(registry: LyingRegistry, engine: sampan.Engine, body: bytes) -> None:
    registry.hook = lambda request: Answer(200, {}, body) if "tags/list" in request.path else None
    with pytest.raises((IntegrityError, NotFound)):
        engine.images.pull(f"{registry.host}/app", all_tags=True)


def test_tags_come_in_pages_and_circles_end(registry: LyingRegistry, engine: sampan.Engine) -> None:
    def hook(request: Asked) -> Answer | None:
        if "tags/list" not in request.path:
            return None
        last = request.query.rpartition("last=")[2] if "last=" in request.query else "0"
        link = {"Link": f'</v2/app/tags/list?n=1&last={int(last) + 1}>; rel="next"'} if int(last) < 3 else {}
        return Answer(200, link, json.dumps({"tags": [f"t{last}"]}).encode())

    registry.hook = hook
    for number in range(4):
        registry.manifest("app", f"t{number}", registry.image([LAYER]))
    assert len(engine.images.pull(f"{registry.host}/app", all_tags=True)) == 4
    registry.hook = lambda request: (
        Answer(200, {"Link": '</v2/app/tags/list?n=1>; rel="next"'}, b'{"tags": ["t"]}')
        if "tags" in request.path
        else None
    )
    with pytest.raises(IntegrityError, match="circle"):
        engine.images.pull(f"{registry.host}/app", all_tags=True)


def test_a_schema_1_manifest_is_refused_by_name(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.manifest("app", "1", {"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    refused(registry, engine, NotSupported, "schema 1")
