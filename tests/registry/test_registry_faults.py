"""What networks do to a pull or a push: it goes on where it was, and asks no more than it must."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import transfersupport as ts
from lyingregistry import RESET, Answer, Asked, LyingRegistry
from lyingsupport import DIGEST, LAYER, ending_at, of_layer, pulled
from waiting import until

import sampan
from sampan.errors import Unavailable
from sampan.oci import reference
from sampan.registry import retry, settings
from sampan.registry.auth import Login
from sampan.registry.client import Registry, Repository
from sampan.registry.message import Interrupted
from sampan.registry.retry import Haste
from sampan.registry.transport import HttpTransport
from sampan.store import gc
from sampan.transfer.registries import RegistrySource

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_connection_that_ends_anywhere_is_gone_on_with(
    registry: LyingRegistry, engine: sampan.Engine, end: str
) -> None:
    registry.hook = ending_at(len(LAYER) // 16 + 1, lambda: iter([RESET] if end == "reset" else []))
    assert pulled(registry, engine)["noise"]
    assert len(registry.asked(DIGEST)) >= 16
    # A reset may take what was sent but not read yet with it.
    assert registry.served < len(LAYER) * (1.2 if end == "close" else 2.2)


def test_resets_at_random_bytes(registry: LyingRegistry, engine: sampan.Engine) -> None:
    chance = random.Random(7)
    cuts = [chance.randrange(1, len(LAYER)) for _ in range(4)]

    def hook(request: Asked) -> Answer | None:
        if not of_layer(request) or request.count >= len(cuts):
            return None
        rest = LAYER[request.offset :]
        headers = {"Content-Range": f"bytes {request.offset}-{len(LAYER) - 1}/{len(LAYER)}"} if request.offset else {}
        status = 206 if request.offset else 200
        return Answer(status, headers, iter([rest[: cuts[request.count]], RESET]), length=len(rest))

    registry.hook = hook
    assert pulled(registry, engine)["noise"]


@pytest.mark.parametrize("how", ["400", "416", "ignored"])
def test_a_server_that_cannot_resume_is_read_from_the_start(
    registry: LyingRegistry, engine: sampan.Engine, how: str
) -> None:
    def hook(request: Asked) -> Answer | None:
        if not of_layer(request):
            return None
        if request.count == 0:
            return Answer(200, {}, iter([LAYER[:300_000]]), length=len(LAYER), close=True)
        if request.offset and how != "ignored":
            return Answer(int(how))
        return Answer(200, {}, LAYER)

    registry.hook = hook
    assert pulled(registry, engine)["noise"]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_failures_are_tried_again(registry: LyingRegistry, engine: sampan.Engine, status: int) -> None:
    registry.hook = lambda request: Answer(status, {"Retry-After": "0"}) if request.count < 2 else None
    assert pulled(registry, engine)["noise"]


def test_lasting_failures_are_given_up(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.hook = lambda request: Answer(503) if of_layer(request) else None
    with pytest.raises(Unavailable, match="cannot pull .*answered 503"):
        engine.images.pull(f"{registry.host}/app:1")
    assert len(registry.asked(DIGEST)) == retry.ATTEMPTS
    assert ts.nothing_left(engine)


def test_a_peer_that_gives_a_byte_each_time_is_not_followed_for_ever(
    registry: LyingRegistry, engine: sampan.Engine
) -> None:
    registry.hook = ending_at(1, lambda: iter([]))
    with pytest.raises(Unavailable, match="too early"):
        engine.images.pull(f"{registry.host}/app:1")
    assert len(registry.asked(DIGEST)) <= retry.ATTEMPTS


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("", 0.1, 1.0),
        ("5", 5, 6),
        ("999999999999999999", 60, 60),
        ("-5", 0.1, 1.0),
        ("nonsense", 0.1, 1.0),
        ("Wed, 01 Jan 2025 00:00:20 GMT", 20, 21),
        ("Wed, 01 Jan 2800 00:00:00 GMT", 60, 60),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 0.1, 1.0),
    ],
)
def test_retry_after_is_followed_within_a_minute(
    said: str, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST", 0.3)
    waits = {retry.wait(0, said, spread, now=1735689600.0) for spread in (0.0, 0.5, 1.0)}
    assert all(least <= seconds <= most for seconds in waits)
    assert len(waits) > 1 or least == 60  # spread


def test_waits_grow_and_are_bounded() -> None:
    waits = [retry.wait(attempt, "", 1.0, 0.0) for attempt in range(30)]
    assert waits == sorted(waits) and waits[-1] <= retry.LONGEST


def test_a_token_that_expires_in_the_middle_is_renewed(registry: LyingRegistry, engine: sampan.Engine) -> None:
    given: list[str] = []

    def hook(request: Asked) -> Answer | None:
        if request.path == "/token":
            given.append(f"token{len(given)}")
            return Answer(200, {}, json.dumps({"token": given[-1], "expires_in": 300}).encode())
        # The first token is refused once the layer is asked for, as if it had expired early.
        good = given and (given[-1] if len(given) > 1 or not of_layer(request) else "another")
        if request.headers.get("Authorization") != f"Bearer {good}":
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="{registry.base}/token",service="s"'})
        return None

    registry.hook = hook
    assert pulled(registry, engine)["noise"]
    assert len(given) == 2


def test_twenty_pulls_at_once_fetch_each_blob_once(registry: LyingRegistry, tmp_path: Path) -> None:
    def hook(request: Asked) -> Answer | None:
        if "/blobs/" in request.path:
            time.sleep(0.5)  # long enough for all of them to come
        return None

    registry.hook = hook
    root = str(tmp_path / "shared")
    sampan.Engine(root).store  # noqa: B018  (made once)
    failures: list[BaseException] = []

    def one() -> None:
        engine = sampan.Engine(root)
        try:
            engine.images.pull(f"{registry.host}/app:1")
        except BaseException as exc:
            failures.append(exc)
        finally:
            engine.close()

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    blobs = [request.path for request in registry.asked("/blobs/")]
    assert len(blobs) > 1 and len(blobs) == len(set(blobs))
    assert os.listdir(f"{root}/ingest") == []


def test_one_who_holds_a_blob_and_does_not_move_is_not_waited_for(
    registry: LyingRegistry, engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    from sampan.store import partials

    path = Path(engine.store.paths.ingest) / f"partial-{DIGEST[7:]}"
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with partials.open_partial(engine.store.paths, DIGEST, patience=0.2) as partial:
            assert partial is None
        gc.collect(engine.store.db, engine.store.content, engine.store.paths, partials_too=True)
        assert path.exists()


def test_interrupted_it_ends_at_once_and_keeps_what_came(registry: LyingRegistry, tmp_path: Path) -> None:
    def hook(request: Asked) -> Answer | None:
        if not of_layer(request):
            return None

        def drip() -> Iterator[bytes]:
            yield LAYER[:500_000]
            for at in range(500_000, len(LAYER), 10):
                time.sleep(0.2)
                yield LAYER[at : at + 10]

        return Answer(200, {}, drip(), length=len(LAYER))

    registry.hook = hook
    root = tmp_path / "store"
    words = [sys.executable, "-m", "sampan", "--root", str(root), "pull", f"{registry.host}/app:1"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    partial = root / "ingest" / f"partial-{DIGEST[7:]}"
    until(lambda: partial.exists() and partial.stat().st_size >= 400_000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)  # the layer would take hours
    assert process.returncode == 130 and b"Traceback" not in err
    (kept,) = os.listdir(root / "ingest")
    assert (root / "ingest" / kept).stat().st_size >= 400_000
    registry.hook = lambda request: None
    registry.served = 0
    engine = sampan.Engine(str(root))
    engine.images.pull(f"{registry.host}/app:1")
    engine.close()
    assert registry.served < len(LAYER) - 400_000 + 10_000


def test_a_slow_drip_is_broken_off(registry: LyingRegistry) -> None:
    from sampan.registry.message import Interrupted, Request
    from sampan.registry.settings import Settings
    from sampan.registry.transport import HttpTransport

    def drip() -> Iterator[bytes]:
        for at in range(200):
            time.sleep(0.05)
            yield LAYER[at : at + 1]

    registry.hook = lambda request: Answer(200, {}, drip(), length=len(LAYER))
    transport = HttpTransport(Settings(), {}, window=0.3)
    response = transport.send(Request("GET", registry.base + "/v2/app/blobs/x"))
    with pytest.raises(Interrupted, match="too slowly"):
        while response.read(1 << 16):
            pass


def dripping(head: bytes) -> Answer:
    """A document that goes on with five kilobytes a second: no connection looks broken, and a minute goes by."""

    def drip() -> Iterator[bytes]:
        yield head
        for _ in range(3000):
            time.sleep(0.02)
            yield b" " * 100

    return Answer(200, {"Content-Type": ts.MANIFEST}, drip(), length=None)


@pytest.mark.parametrize("what", ["manifest", "config", "list", "token"])
def test_no_document_may_drip(registry: LyingRegistry, what: str) -> None:
    document = registry.image([LAYER])
    config = document["config"]
    if what == "config":
        config["size"] = 300_000
        registry.manifest("app", "1", document)

    def hook(request: Asked) -> Answer | None:
        if what == "token" and "/token" not in request.path:
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="{registry.base}/token",service="x"'})
        if what == "config" and not request.path.endswith(config["digest"]):
            return None
        return dripping(b"{") if request.method == "GET" else None

    registry.hook = hook
    setting = settings.Settings()
    transport = HttpTransport(setting, {}, soon=0.3)
    place = setting.place_of(registry.host)
    repository = Repository(Registry(transport, setting, place, Login), "app")
    source = RegistrySource(reference.parse(f"{registry.host}/app:1"), [repository], None)
    with pytest.raises(Unavailable, match=rf"{registry.host} sends it too slowly, \d+ bytes") as caught:
        repository.tags() if what == "list" else source.picture()
    assert not isinstance(caught.value, Interrupted)  # it is not tried again


def test_a_document_on_a_slow_line_arrives() -> None:
    now = [0.0]
    haste = Haste("a list", "x", lambda: now[0])
    for _ in range(200):
        now[0] += 1
        haste.came(20_000)
    now[0] += 44
    haste.came(0)
    drip = Haste("a list", "x", lambda: now[0])
    with pytest.raises(Unavailable, match=r"cannot read a list: x sends it too slowly, 50176 bytes in 49 s"):
        for _ in range(60):
            now[0] += 1
            drip.came(1 << 10)


def test_a_silent_peer_is_not_waited_for(registry: LyingRegistry) -> None:
    from sampan.registry.message import Interrupted, Request
    from sampan.registry.settings import Settings
    from sampan.registry.transport import HttpTransport

    def hook(request: Asked) -> Answer | None:
        time.sleep(1)
        return None

    registry.hook = hook
    transport = HttpTransport(Settings(), {}, read=0.2)
    with pytest.raises(Interrupted, match="does not answer in time"):
        transport.send(Request("GET", registry.base + "/v2/"))


# ---- push ----


FULL = """
set -e
mount -t tmpfs -o size="$1",mode=755 none "$2"
shift 2
code=0
"$@" pull "$IMAGE" > "$SCRATCH/out" 2> "$SCRATCH/err" || code=$?
echo "pull $code, $(grep -c ^sampan: "$SCRATCH/err") error, $(grep -c "^hint: free some space" "$SCRATCH/err") hint"
echo "images $("$@" images -q | wc -l)"
"$@" system check
mount -o remount,size=100m "$STORE"
"$@" pull -q "$IMAGE"
"$@" system check
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small tmpfs")
@pytest.mark.parametrize("size", ["3400k", "4300k", "5000k"])  # where the download ends, and the unpacking
def test_a_full_disk_ends_a_pull_with_one_line_and_nothing_tagged(
    registry: LyingRegistry, tmp_path: Path, size: str
) -> None:
    store, scratch = tmp_path / "small", tmp_path / "scratch"
    store.mkdir()
    scratch.mkdir()
    name = f"{registry.host}/app:1"
    env = {**os.environ, "IMAGE": name, "SCRATCH": str(scratch), "STORE": str(store), "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "sampan", "--root", f"{store}/s"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL, "sh", size, str(store), *program],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["pull 1, 1 error, 1 hint", "images 0"], done.stdout + (scratch / "err").read_text()
    assert (
        lines[2].endswith("all is well")
        and lines[3:-1] == [name]
        and lines[-1].endswith("1 layer, 0 containers, 0 volumes: all is well")
    )
