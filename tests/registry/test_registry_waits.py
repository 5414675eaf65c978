"""A registry that asks for patience: the wait is told, and ends at once with Ctrl-C.  Pages that are no manifests."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, lying, noise
from waiting import until

import sampan
from sampan.errors import IntegrityError, NotSupported, Unauthorized
from sampan.registry import connect, upload

ROOT = Path(__file__).parent.parent.parent
LAYER = ts.BASE
DIGEST = ts.digest(LAYER)


@pytest.fixture
def registry() -> Iterator[LyingRegistry]:
    with lying() as made:
        made.manifest("app", "1", made.image([LAYER]))
        yield made


def busy(path: str, status: int) -> Callable[[Asked], Answer | None]:
    """Answer the first request for what ends with `path` with a request to come again in half a minute."""

    def hook(request: Asked) -> Answer | None:
        wanted = request.path.endswith(path) and not request.count and request.method == "GET"
        return Answer(status, {"Retry-After": "30"}) if wanted else None

    return hook


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits that a user would notice are noted down in place of being waited for."""
    waited: list[float] = []
    monkeypatch.setattr(connect.Registries, "_sleep", lambda self, seconds: waited.append(seconds))
    return waited


@pytest.mark.parametrize(("path", "status"), [(DIGEST, 429), ("manifests/2", 503)])
def test_a_wait_is_told(
    registry: LyingRegistry, engine: sampan.Engine, hurry: list[float], path: str, status: int
) -> None:
    told: list[str] = []
    registry.manifest("app", "2", registry.image([LAYER]))
    asked = busy(path, status)
    # Without HEAD the registry tells the digest with the manifest only, which is then asked for by its tag.
    registry.hook = lambda request: Answer(405) if request.method == "HEAD" else asked(request)
    engine.images.pull(f"{registry.host}/app:2", listen=lambda event: told.append(event.text))
    (line,) = [text for text in told if "trying again" in text]
    assert line.startswith(f"{registry.host} answered {status}, ") and "(attempt 2 of 6)" in line
    assert f"in {hurry[0]:.0f} s" in line and 30 <= hurry[0] <= 60


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_upload_waits_as_it_is_asked_and_says_so(
    registry: LyingRegistry, engine: sampan.Engine, hurry: list[float], method: str
) -> None:
    told: list[str] = []
    layer = ts.BASE if method == "PUT" else ts.tar_of({"big": noise(2 * upload.MONOLITHIC)})
    layout = ts.Layout()
    layout.add(layout.image([(layer, "")], ts.config([layer])), f"{registry.host}/new:1")
    saved = io.BytesIO(ts.tar_of(layout.build()))
    engine.images.load(saved)
    asked: list[str] = []

    def hook(request: Asked) -> Answer | None:
        if request.method != method or "/uploads/" not in request.path or asked:
            return None
        asked.append(request.path)
        return Answer(429, {"Retry-After": "30"}, close=True)

    registry.hook = hook
    engine.images.push(f"{registry.host}/new:1", listen=lambda event: told.append(event.text))
    (line,) = [text for text in told if "trying again" in text]
    assert line.startswith(f"{registry.host} answered 429") and 30 <= hurry[0] <= 60


def test_a_short_wait_is_not_worth_a_word(registry: LyingRegistry, engine: sampan.Engine, hurry: list[float]) -> None:
    told: list[str] = []
    registry.hook = lambda request: Answer(503) if request.path.endswith(DIGEST) and not request.count else None
    engine.images.pull(f"{registry.host}/app:1", listen=lambda event: told.append(event.text))
    assert hurry and not [text for text in told if "trying again" in text]


@pytest.mark.parametrize("words", [("pull", "{}/app:1"), ("manifest", "inspect", "{}/app:1"), ("search", "{}/x")])
def test_ctrl_c_ends_a_wait_at_once(registry: LyingRegistry, tmp_path: Path, words: tuple[str, ...]) -> None:
    def hook(request: Asked) -> Answer | None:
        if request.path == "/v2/" or (words[0] == "pull" and not request.path.endswith(DIGEST)):
            return None
        return Answer(429, {"Retry-After": "60"})

    registry.hook = hook
    line = [word.format(registry.host) for word in words]
    command = ["env", "--default-signal=INT", sys.executable, "-m", "sampan", "--root", str(tmp_path / "store"), *line]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = b""
    while b"answered 429, too many requests: trying again in 60 s (attempt 2 of 6)" not in told:
        assert (line_of_it := process.stderr.readline()), told
        told += line_of_it
    until(lambda: is_asleep(process.pid))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)  # the wait would end later
    assert process.returncode == 130 and b"Traceback" not in err, err


def is_asleep(pid: int) -> bool:
    """Say whether no thread of a process runs or could run."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(text.rpartition(")")[2].split()[0] == "S" for text in stats)


# ---- what is no manifest ----


@pytest.mark.parametrize("sent", ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "image/png\x1b[31m"])
def test_a_page_in_place_of_a_manifest_is_refused(registry: LyingRegistry, engine: sampan.Engine, sent: str) -> None:
    """security: what the document calls itself counts for nothing when it came as something else."""
    document = {**registry.image([LAYER]), "mediaType": ts.MANIFEST}
    for content in (document, b"<!doctype html><title>Log in</title>"):
        registry.manifest("app", "1", content, sent)
        with pytest.raises(IntegrityError) as caught:
            engine.images.pull(f"{registry.host}/app:1")
        kind = sent.partition(";")[0].lower().replace("\x1b", "?")
        assert caught.value.message.startswith(f"cannot pull {registry.host}/app")
        assert caught.value.message.endswith(f": {registry.host} sent {kind}, not a manifest")
        assert ("login page" in caught.value.hint) == ("html" in kind)
    assert engine.images.ls() == []


@pytest.mark.parametrize(
    "sent", ["", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain; charset=utf-8"]
)
@pytest.mark.parametrize("own", [ts.MANIFEST, None])
def test_a_registry_of_plain_files_is_read(
    registry: LyingRegistry, engine: sampan.Engine, sent: str, own: str | None
) -> None:
    document = {**registry.image([LAYER]), "mediaType": own}
    registry.manifest("app", "1", {key: value for key, value in document.items() if value}, sent)
    engine.images.pull(f"{registry.host}/app:1")


def test_a_manifest_of_another_kind_is_called_that(registry: LyingRegistry, engine: sampan.Engine) -> None:
    sent = "application/vnd.oci.artifact.manifest.v1+json"
    for own in (sent, ts.MANIFEST):
        registry.manifest("app", "1", {**registry.image([LAYER]), "mediaType": own}, sent)
        with pytest.raises(NotSupported, match="sent a manifest of type 'application/vnd.oci.artifact"):
            engine.images.pull(f"{registry.host}/app:1")


def test_what_is_sent_as_schema_1_is_refused_by_that_name(registry: LyingRegistry, engine: sampan.Engine) -> None:
    sent = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    registry.manifest("app", "1", {**registry.image([LAYER]), "mediaType": ts.MANIFEST}, sent)
    with pytest.raises(NotSupported, match="schema 1"):
        engine.images.pull(f"{registry.host}/app:1")


# ---- what fails before a manifest is there ----


def test_errors_of_a_token_server_say_what_was_tried_and_where(
    registry: LyingRegistry, engine: sampan.Engine, tmp_path: Path
) -> None:
    from sampan.engine import manifests

    with lying() as server:
        server.hook = lambda request: Answer(403) if request.path == "/token" else None
        realm = f'Bearer realm="{server.base}/token",service="x"'
        registry.hook = lambda request: Answer(401, {"WWW-Authenticate": realm})
        name = f"{registry.host}/app:1"
        why = f"{name}: cannot authenticate at {registry.host}: its token server {server.host} answered 403"
        for verb, attempt in (
            ("pull", lambda: engine.images.pull(name)),
            ("inspect", lambda: manifests.inspect(engine, name)),
            ("inspect", lambda: manifests.describe(name)),
            ("copy", lambda: engine.images.copy(f"docker://{name}", f"oci:{tmp_path}/layout")),
        ):
            with pytest.raises(Unauthorized) as caught:
                attempt()
            assert caught.value.message == f"cannot {verb} {why}"
            assert caught.value.hint.startswith("log in first: sampan login")
