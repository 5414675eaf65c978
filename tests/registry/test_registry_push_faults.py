"""What networks do to a push: it goes on where it was, and the tag appears last."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import RESET, Answer, Asked, LyingRegistry
from lyingsupport import LAYER
from waiting import until

import sampan
from sampan.errors import IntegrityError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def loaded(engine: sampan.Engine, registry: LyingRegistry, tmp_path: Path) -> sampan.Engine:
    """A store with an image of one gzip layer that goes back as it came."""
    registry.blobs.clear()
    registry.manifests.clear()
    layout = ts.Layout()

    layout.add(layout.image([(gzip.compress(LAYER + bytes(2 << 20), 1), "+gzip")], ts.config([LAYER + bytes(2 << 20)])))
    engine.images.load(str(ts.write_tree(tmp_path / "layout", layout.build())))
    engine.images.tag(engine.images.ls()[0]["ID"], f"{registry.host}/pushed:1")
    return engine


def push(registry: LyingRegistry, engine: sampan.Engine) -> None:
    engine.images.push(f"{registry.host}/pushed:1")
    assert ("pushed", "1") in registry.manifests


def test_a_push_that_breaks_goes_on_where_it_was(registry: LyingRegistry, loaded: sampan.Engine) -> None:
    honest = registry.receive
    broken: list[int] = []

    def receive(handler: Any, there: bytearray, limit: int = -1) -> None:
        if handler.command == "PATCH" and len(broken) < 3:
            honest(handler, there, 200_000)
            broken.append(len(there))
            handler.connection.close()
            raise ConnectionAbortedError
        honest(handler, there)

    registry.receive = receive  # type: ignore[method-assign]
    push(registry, loaded)
    ranges = [one.headers.get("Content-Range", "") for one in registry.asked("uploads") if one.method == "PATCH"]
    assert len(broken) == 3 and ranges[1].startswith(f"{broken[0]}-") and ranges[2].startswith(f"{broken[1]}-")


def test_the_tag_appears_only_when_all_is_there(registry: LyingRegistry, loaded: sampan.Engine) -> None:
    registry.hook = lambda request: Answer(507, {}, close=True) if request.method == "PATCH" else None
    with pytest.raises(IntegrityError, match="cannot push"):
        loaded.images.push(f"{registry.host}/pushed:1")
    assert registry.manifests == {}
    assert not [one for one in registry.requests if one.method == "PUT" and "manifests" in one.path]


@pytest.mark.parametrize("status", [416, 503])
def test_an_upload_that_is_refused_once_begins_anew(
    registry: LyingRegistry, loaded: sampan.Engine, status: int
) -> None:
    refused: list[str] = []

    def hook(request: Asked) -> Answer | None:
        if request.method == "PATCH" and not refused:
            refused.append(request.path)
            return Answer(status, close=True)
        return None

    registry.hook = hook
    push(registry, loaded)


def test_the_place_of_an_upload_may_move(registry: LyingRegistry, loaded: sampan.Engine) -> None:
    moves: list[str] = []

    def hook(request: Asked) -> Answer | None:
        if request.method == "PATCH" and "moved" not in request.query:
            moves.append(request.path)
            return Answer(307, {"Location": request.path + "?moved=1"}, close=True)
        return None

    registry.hook = hook
    push(registry, loaded)
    assert moves


def test_a_refused_mount_is_an_upload(registry: LyingRegistry, loaded: sampan.Engine) -> None:
    loaded.images.tag(f"{registry.host}/pushed:1", f"{registry.host}/other:1")
    push(registry, loaded)
    assert [one for one in registry.requests if "mount=" in one.query]


def test_an_upload_that_has_all_before_anything_was_sent_is_begun_anew(
    registry: LyingRegistry, loaded: sampan.Engine
) -> None:
    """The token server breaks off, so nothing was read of the layer; the registry says that it has all of it."""
    broken: list[str] = []
    begun: list[str] = []
    blobs = sorted((loaded.store.content.read(digest, 1 << 30) for digest in loaded.store.content.ls()), key=len)
    size, there = len(blobs[-1]), [registry.blob(data) for data in blobs[:-1]]  # one upload, so that all has one order

    def asked_for_all() -> bool:
        heads = [one.path for one in registry.requests if one.method == "HEAD" and "Authorization" in one.headers]
        return any(path.endswith(tuple(there)) for path in heads)

    def hook(request: Asked) -> Answer | None:
        if request.path == "/token":
            if begun and not broken:
                broken.append(request.path)
                return Answer(200, {}, iter([RESET]), length=9)
            return Answer(200, {}, json.dumps({"token": "t", "expires_in": 1}).encode())
        if "Authorization" not in request.headers:
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="{registry.base}/token"'})
        if request.method == "POST":
            until(asked_for_all)
            begun.append(request.path)  # only now: from here on all requests are those of the upload
        if request.method == "GET" and "uploads" in request.path and len(broken) < 2:
            broken.append(request.path)
            return Answer(204, {"Location": request.path, "Range": f"0-{size - 1}"}, close=True)
        return None

    registry.hook = hook
    push(registry, loaded)
    assert len(broken) == 2
