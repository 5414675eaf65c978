"""What networks do to a pull or a push: it goes on where it was, and asks no more than it must."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import RESET, Answer, Asked, LyingRegistry, lying, noise

import sampan
from sampan.errors import IntegrityError, SampanError, Unavailable
from sampan.registry import retry
from sampan.store import gc

ROOT = Path(__file__).parent.parent.parent
LAYER = noise(1 << 20)
DIGEST = ts.digest(LAYER)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are a hundredth; how long they are is tested by itself."""
    monkeypatch.setattr(retry, "_FIRST", 0.003)


@pytest.fixture
def registry() -> Iterator[LyingRegistry]:
    with lying() as made:
        made.manifest("app", "1", made.image([LAYER]))
        yield made


def pulled(registry: LyingRegistry, engine: sampan.Engine) -> dict[str, tuple[Any, ...]]:
    engine.images.pull(f"{registry.host}/app:1")
    (tree,) = ts.trees(engine, f"{registry.host}/app:1")
    assert os.listdir(engine.store.paths.ingest) == []
    return tree


def of_layer(request: Asked) -> bool:
    return request.path.endswith(DIGEST)


def ending_at(step: int, end: Callable[[], Iterator[Any]]) -> Callable[[Asked], Answer | None]:
    """Serve at most `step` bytes of the layer in each connection, then end it."""

    def hook(request: Asked) -> Answer | None:
        if not of_layer(request):
            return None
        rest = LAYER[request.offset :]
        if len(rest) <= step:
            return None
        headers = {"Content-Range": f"bytes {request.offset}-{len(LAYER) - 1}/{len(LAYER)}"} if request.offset else {}

        def body() -> Iterator[Any]:
            yield rest[:step]
            yield from end()

        return Answer(206 if request.offset else 200, headers, body(), length=len(rest), close=True)

    return hook


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


def test_what_arrived_is_used_by_the_next_pull(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.hook = lambda request: (
        (Answer(404) if request.count else Answer(200, {}, iter([LAYER[:700_000]]), length=len(LAYER), close=True))
        if of_layer(request)
        else None
    )
    with pytest.raises(SampanError):
        engine.images.pull(f"{registry.host}/app:1")
    (kept,) = os.listdir(engine.store.paths.ingest)
    assert os.stat(f"{engine.store.paths.ingest}/{kept}").st_size == 700_000
    gc.collect(engine.store.db, engine.store.content, engine.store.paths)  # which leaves it
    registry.hook = lambda request: None
    registry.served = 0
    assert pulled(registry, engine)["noise"]
    assert registry.served < len(LAYER) - 700_000 + 10_000
    assert registry.asked(DIGEST)[-1].headers["Range"] == "bytes=700000-"


def test_what_arrived_but_is_damaged_is_fetched_again(registry: LyingRegistry, engine: sampan.Engine) -> None:
    partial = f"{engine.store.paths.ingest}/partial-{DIGEST[7:]}"
    Path(partial).write_bytes(b"\0" * 700_000)  # as a power cut may leave it
    assert pulled(registry, engine)["noise"]
    assert registry.asked(DIGEST)[-1].offset == 0


def spoilt(engine: sampan.Engine, digest: str, change: Callable[[bytes], bytes]) -> None:
    path = Path(engine.store.paths.blob(digest))
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_layer_whose_blob_is_damaged_here_is_fetched_again(
    registry: LyingRegistry, engine: sampan.Engine, zipped: bool
) -> None:
    """Its unpacked files are gone, so a pull unpacks what lies here, and finds out."""
    document, blob = registry.image([LAYER]), LAYER
    if zipped:
        blob = gzip.compress(LAYER)
        (layer,) = document["layers"]
        layer |= {"mediaType": ts.LAYER + "+gzip", "digest": registry.blob(blob), "size": len(blob)}
    registry.manifest("app", "1", document)
    assert pulled(registry, engine)["noise"]
    digest = ts.digest(blob)
    for change in (lambda data: data[:5000] + bytes(100) + data[5100:], bytes, lambda data: data[:-1]):
        engine.store.snapshots.remove(ts.digest(LAYER))
        spoilt(engine, digest, change)
        before = len(registry.asked(digest))
        assert pulled(registry, engine)["noise"]
        assert engine.store.content.verify(digest)
        fetched = len(registry.asked(digest)) - before
        assert fetched == (0 if change is bytes else 1)  # what is intact is unpacked from here


def test_what_became_shorter_here_is_fetched_again(registry: LyingRegistry, engine: sampan.Engine) -> None:
    """A blob without its end shows by its size alone; a manifest and a config are compared with their digests."""
    assert pulled(registry, engine)["noise"]
    image = engine.images.resolve(f"{registry.host}/app:1")
    for digest in engine.store.images.blobs(image):
        spoilt(engine, digest, lambda data: data[:-1])
        engine.images.pull(f"{registry.host}/app:1")
        assert engine.store.content.verify(digest)
    for digest in (image.manifest_digest, image.id):
        spoilt(engine, digest, lambda data: b"[" + data[1:])
        engine.images.pull(f"{registry.host}/app:1")
        assert engine.store.content.verify(digest)


def test_the_collector_takes_what_nobody_came_back_for(engine: sampan.Engine) -> None:
    store = engine.store
    paths = [f"{store.paths.ingest}/partial-{letter * 64}" for letter in "abc"]
    for path in paths:
        Path(path).write_bytes(b"x")
    os.utime(paths[0], (0, 0))
    gc.collect(store.db, store.content, store.paths)
    assert [os.path.exists(path) for path in paths] == [False, True, True]
    gc.collect(store.db, store.content, store.paths, partials_too=True)
    assert os.listdir(store.paths.ingest) == []


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
        thread.join(60)
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
    started = threading.Event()

    def hook(request: Asked) -> Answer | None:
        if not of_layer(request):
            return None

        def drip() -> Iterator[bytes]:
            yield LAYER[:500_000]
            started.set()
            for at in range(500_000, len(LAYER), 10):
                time.sleep(0.2)
                yield LAYER[at : at + 10]

        return Answer(200, {}, drip(), length=len(LAYER))

    registry.hook = hook
    root = tmp_path / "store"
    words = [sys.executable, "-m", "sampan", "--root", str(root), "pull", f"{registry.host}/app:1"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert started.wait(60)
    time.sleep(0.5)
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
mount -t tmpfs -o size="$1" none "$2"
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


@pytest.fixture
def loaded(engine: sampan.Engine, registry: LyingRegistry, tmp_path: Path) -> sampan.Engine:
    """A store with an image of one gzip layer that goes back as it came."""
    registry.blobs.clear()
    registry.manifests.clear()
    layout = ts.Layout()
    import gzip

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


def test_a_pull_removes_what_a_killed_one_had_unpacked(registry: LyingRegistry, engine: sampan.Engine) -> None:
    from sampan.store import owner

    dead = f"{owner.boot_id()}.{os.stat('/proc/self/ns/pid').st_ino}.4194305.1.abcd"
    left = Path(engine.store.paths.active) / dead
    (left / "upper").mkdir(parents=True)
    (Path(engine.store.paths.ingest) / dead).write_bytes(b"x")
    assert pulled(registry, engine)["noise"]
    assert not left.exists()


def test_a_prune_of_the_system_takes_what_was_kept_for_the_next_try(engine: sampan.Engine) -> None:
    from sampan.engine import pruning
    from sampan.store import ledger

    path = Path(engine.store.paths.ingest) / f"partial-{'a' * 64}"
    path.write_bytes(b"x" * 5000)
    assert "ingest/" + path.name in [line.path for line in ledger.read(engine.store.db, engine.store.paths)]
    pruning.measured(engine, lambda done: None, "image")
    assert path.exists()
    pruning.everything(engine, pruning.Wanted())
    assert not path.exists()


def test_what_a_crash_left_of_a_config_goes_with_the_next_pull(registry: LyingRegistry, engine: sampan.Engine) -> None:
    engine.store.images.ls()
    config = next(path.rpartition("/")[2] for path in _blobs_asked(registry))
    left = f"{engine.store.paths.ingest}/partial-{config.removeprefix('sha256:')}"
    with open(left, "wb") as file:
        file.write(b"half")
    engine.images.pull(f"{registry.host}/app:1")
    assert os.listdir(engine.store.paths.ingest) == []


def _blobs_asked(registry: LyingRegistry) -> list[str]:
    """The paths of the blobs that a pull asks for, the config's first."""
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        other = sampan.Engine(root)
        other.images.pull(f"{registry.host}/app:1")
        other.close()
    return [request.path for request in registry.asked("/blobs/")]
