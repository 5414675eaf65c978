"""A registry that lies: nothing of it is believed, nothing is tagged, no secret leaves.

The control at the end shows that a client without these checks is taken in.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenserver
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, lying

import sampan
from sampan.engine import registries
from sampan.errors import (
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotSupported,
    SampanError,
    Unauthorized,
    Unavailable,
)
from sampan.registry import retry

ROOT = Path(__file__).parent.parent.parent
LAYER = ts.BASE
DIGEST = ts.digest(LAYER)
OTHER = ts.digest(b"other")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST", 0.003)


@pytest.fixture
def registry() -> Iterator[LyingRegistry]:
    with lying() as made:
        made.manifest("app", "1", made.image([LAYER]))
        yield made


def refused(
    registry: LyingRegistry,
    engine: sampan.Engine,
    kind: type[SampanError] = IntegrityError,
    match: str | None = None,
    name: str = "",
) -> SampanError:
    """Pull, see it refused in one line, and nothing left of it."""
    with pytest.raises(kind, match=match) as caught:
        engine.images.pull(f"{registry.host}/{name or 'app:1'}")
    assert "\n" not in caught.value.message
    assert engine.images.ls() == [] and engine.store.db.query("SELECT * FROM leases") == []
    assert os.listdir(engine.store.paths.active) == []
    return caught.value


def manifest_with(registry: LyingRegistry, **changes: Any) -> dict[str, Any]:
    return {**registry.image([LAYER]), **changes}


def layer_with(registry: LyingRegistry, **changes: Any) -> dict[str, Any]:
    document = registry.image([LAYER])
    document["layers"][0] |= changes
    return document


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
        refused(registry, engine, match="diff_id|1 layer, its config")


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


# ---- redirects (56) ----


def leaked(*registries: LyingRegistry) -> list[str]:
    """Secrets that reached a server."""
    return [
        value
        for registry in registries
        for request in registry.requests
        for name in ("Authorization", "Cookie")
        if (value := request.headers.get(name))
    ]


def wanting_login(registry: LyingRegistry) -> Callable[[Asked], Answer | None]:
    return lambda request: (
        None if "Authorization" in request.headers else Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
    )


def log_in(registry: LyingRegistry, home: Path) -> None:
    pair = base64.b64encode(b"me:secret").decode()
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))


def test_no_login_reaches_where_a_blob_is_redirected(
    registry: LyingRegistry, engine: sampan.Engine, home: Path
) -> None:
    with lying() as second:
        second.blobs.update(registry.blobs)
        needs = wanting_login(registry)

        def hook(request: Asked) -> Answer | None:
            if request.path.endswith(DIGEST) and "Authorization" in request.headers:
                return Answer(307, {"Location": second.base + request.path, "Set-Cookie": "a=b"})
            return needs(request)

        registry.hook = hook
        log_in(registry, home)
        engine.images.pull(f"{registry.host}/app:1")
        assert second.asked(DIGEST) and leaked(second) == []
        assert any(value.startswith("Basic ") for value in leaked(registry))


def test_no_login_reaches_where_an_upload_is_sent(
    registry: LyingRegistry, engine: sampan.Engine, home: Path, tmp_path: Path
) -> None:
    engine.images.pull(f"{registry.host}/app:1")
    engine.images.tag(f"{registry.host}/app:1", f"{registry.host}/new:1")
    registry.blobs.clear()
    with lying() as second:
        second.uploads["x"] = bytearray()
        needs = wanting_login(registry)

        def hook(request: Asked) -> Answer | None:
            if request.method == "POST" and "Authorization" in request.headers:
                return Answer(202, {"Location": f"{second.base}/v2/new/blobs/uploads/x"})
            return needs(request)

        registry.hook = hook
        log_in(registry, home)
        with contextlib.suppress(SampanError):  # whether it works is not asked here: one session for all blobs cannot
            engine.images.push(f"{registry.host}/new:1")
        assert second.requests and leaked(second) == []


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "//", "http://user:pw@127.0.0.1/", "http://[", ""],
)
def test_a_redirect_to_something_else_is_refused(registry: LyingRegistry, engine: sampan.Engine, location: str) -> None:
    registry.hook = lambda request: Answer(307, {"Location": location}) if request.path.endswith(DIGEST) else None
    refused(registry, engine, SampanError)


def test_a_circle_of_redirects_ends(registry: LyingRegistry, engine: sampan.Engine) -> None:
    registry.hook = lambda request: Answer(302, {"Location": request.path}) if request.path.endswith(DIGEST) else None
    refused(registry, engine, SampanError, "redirected more than")
    assert len(registry.asked(DIGEST)) < 20


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.parametrize("what", ["blob", "upload"])
def test_https_is_never_left_for_http(engine: sampan.Engine, tmp_path: Path, home: Path, what: str) -> None:
    ca = tokenserver.make_ca(tmp_path)
    with lying(tls=tokenserver.make_certificate(tmp_path, "server", ca)) as secure, lying() as plain:
        certs = home / ".docker/certs.d" / secure.host
        certs.mkdir(parents=True)
        shutil.copy(ca[0], certs / "ca.crt")
        secure.manifest("app", "1", secure.image([LAYER]))
        plain.blobs.update(secure.blobs)
        if what == "upload":
            engine.images.pull(f"{secure.host}/app:1")
            secure.blobs.clear()
        secure.hook = lambda request: (
            Answer(202 if request.method == "POST" else 307, {"Location": plain.base + request.path + "x"})
            if request.path.endswith(DIGEST) or request.method == "POST"
            else None
        )
        with pytest.raises(SampanError, match="leave https for plain HTTP"):
            (engine.images.push if what == "upload" else engine.images.pull)(f"{secure.host}/app:1")
        assert plain.requests == []


NAMESPACE = """
import sys, threading
sys.path[:0] = {paths!r}
from lyingregistry import Answer, lying
import transfersupport as ts, sampan, os, urllib.request
from sampan.registry import retry
retry._FIRST = 0.003
with lying("10.9.8.7") as registry, lying({target!r}) as other:
    registry.manifest("app", "1", registry.image([ts.BASE]))
    digest = ts.digest(ts.BASE)
    other.blobs.update(registry.blobs)
    there = lambda request: Answer(307, {{"Location": other.base + request.path}})
    registry.hook = lambda request: there(request) if request.path.endswith(digest) else None
    naive = urllib.request.urlopen(registry.base + "/v2/app/blobs/" + digest).read()
    assert naive == ts.BASE and len(other.requests) == 1
    os.environ["SAMPAN_INSECURE_REGISTRIES"] = "10.9.8.0/24"
    try:
        sampan.Engine({root!r}).images.pull(registry.host + "/app:1")
        print("pulled")
    except sampan.SampanError as exc:
        print("refused:", exc.message)
    print(len(other.requests) - 1, "requests")
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0
    or not shutil.which("ip"),
    reason="needs user and network namespaces, and ip (iproute2)",
)
@pytest.mark.parametrize("target", ["169.254.169.254", "127.0.0.1", "100.100.100.200", "10.9.8.8"])
def test_a_redirect_to_this_host_or_a_metadata_service_is_refused(tmp_path: Path, target: str) -> None:
    paths = [str(ROOT), str(ROOT / "tests/registry"), str(ROOT / "tests/transfer")]
    script = NAMESPACE.format(paths=paths, target=target, root=str(tmp_path / "store"))
    addresses = "; ".join(
        f"ip addr add {one}/32 dev lo" for one in ("10.9.8.7", "10.9.8.8", "169.254.169.254", "100.100.100.200")
    )
    shell = f'ip link set lo up; {addresses}; exec "$0" -c "$1"'
    words = ["unshare", "-rn", "sh", "-c", shell, sys.executable, script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if target == "10.9.8.8":
        assert "requests" in done.stdout and "0 requests" not in done.stdout, done.stderr  # another host is fine
    else:
        assert done.stdout.startswith("refused:") and "0 requests" in done.stdout, done.stdout + done.stderr


# ---- token servers (57) ----


@pytest.mark.parametrize("realm", ["same", "other port of this host", "http elsewhere", "https address"])
def test_a_login_goes_to_a_safe_token_server_only(realm: str) -> None:
    from sampan.registry.auth import Authenticator, Login
    from sampan.registry.message import Request, Response

    realms = {
        "same": ("https://registry.example/token", True),
        "other port of this host": ("https://registry.example:444/token", True),
        "http elsewhere": ("http://auth.example/token", False),
        "https address": ("https://203.0.113.9/token", False),
    }
    url, safe = realms[realm]
    home = ("https", "registry.example", 443)
    for login in (Login("me", "secret"), Login(refresh_token="secret")):
        authenticator = Authenticator(home, lambda login=login: login, lambda: 0.0)  # type: ignore[misc]
        flow = authenticator.flow(Request("GET", "https://registry.example/v2/"), ["repository:a:pull"])
        next(flow)
        asked = flow.send(Response(401, {"WWW-Authenticate": f'Bearer realm="{url}",service="s"'}, ""))
        text = str(asked.headers) + asked.url + str(asked.body)
        secret = base64.b64encode(b"me:secret").decode()
        assert (secret in text or "refresh_token=secret" in text) is safe


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST", "a.localhost", "[::1]", "10.0.0.1", "2130706433", "0x7f000001", "127.1"],
)
def test_addresses_are_told_from_names(host: str) -> None:
    from sampan.registry import auth, message

    assert auth.is_address(message.origin(f"https://{host}/")[1])


def test_a_token_server_gets_no_login_for_a_plain_registry_that_is_not_allowed(
    registry: LyingRegistry, engine: sampan.Engine, home: Path
) -> None:
    """The registry here is this host, and so is the token server: that is how registries are tried out."""
    with lying() as tokens:
        tokens.hook = lambda request: Answer(200, {}, b'{"token": "t"}')
        registry.hook = lambda request: (
            None
            if request.headers.get("Authorization") == "Bearer t"
            else Answer(401, {"WWW-Authenticate": f'Bearer realm="{tokens.base}/token"'})
        )
        log_in(registry, home)
        engine.images.pull(f"{registry.host}/app:1")
        assert leaked(tokens) and all(value == "Bearer t" for value in leaked(registry))


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a b\n", "é", 5, None, "", ["x"]])
def test_a_token_that_would_break_a_header_is_refused(
    registry: LyingRegistry, engine: sampan.Engine, token: Any
) -> None:
    registry.hook = lambda request: (
        Answer(200, {}, json.dumps({"token": token}).encode())
        if request.path == "/token"
        else Answer(401, {"WWW-Authenticate": f'Bearer realm="{registry.base}/token"'})
    )
    refused(registry, engine, match="no valid token")


# ---- descriptors with addresses (58) ----


def test_addresses_in_descriptors_are_for_foreign_layers_only(
    registry: LyingRegistry, engine: sampan.Engine, home: Path
) -> None:
    with lying() as second:
        address = f"{second.base}/layer"
        needs = wanting_login(registry)
        registry.hook = needs
        log_in(registry, home)
        registry.manifest("app", "1", layer_with(registry, urls=[address]))
        engine.images.pull(f"{registry.host}/app:1")
        assert second.requests == []
        engine.images.remove(f"{registry.host}/app:1")
        foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
        registry.manifest("app", "1", layer_with(registry, urls=["file:///etc/passwd", address], mediaType=foreign))
        second.hook = lambda request: Answer(200, {}, LAYER)
        engine.images.pull(f"{registry.host}/app:1")
        assert len(second.requests) == 1 and leaked(second) == []


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


# ---- proxies ----


def test_a_proxy_is_asked_and_gets_no_login(
    registry: LyingRegistry, engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is a lying registry too: it is sent absolute URLs of a name that only it can resolve."""
    monkeypatch.setenv("HTTP_PROXY", registry.base)
    monkeypatch.setenv("SAMPAN_INSECURE_REGISTRIES", "registry.test:80")
    honest = registry.honest

    def through(asked: Asked, handler: Any) -> Answer:
        asked.path = asked.path.removeprefix("http://registry.test:80").removeprefix("http://registry.test")
        return honest(asked, handler)

    registry.honest = through  # type: ignore[method-assign]
    engine.images.pull("registry.test:80/app:1")
    assert all(one.headers["Host"].startswith("registry.test") for one in registry.requests)
    monkeypatch.setenv("NO_PROXY", ".test")
    with pytest.raises(Unavailable):
        engine.images.pull("registry.test:80/other:1")


# ---- credentials in the open (63) ----


def test_no_secret_in_errors(registry: LyingRegistry, home: Path) -> None:
    registry.hook = lambda request: Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
    with pytest.raises(Unauthorized) as caught:
        registries.login(registry.host, "me", "hunter2")
    assert "hunter2" not in repr(caught.value) + caught.value.message + caught.value.hint
    assert not (home / ".docker").exists()


# ---- controls ----


def test_control_a_naive_client_is_taken_in(registry: LyingRegistry) -> None:
    """urllib follows the redirect that is refused above, with what it was given, and believes what it gets."""
    with lying() as second:
        second.hook = lambda request: Answer(200, {}, b"anything")
        registry.hook = lambda request: Answer(302, {"Location": second.base + "/x"})
        request = urllib.request.Request(
            registry.base + "/v2/app/blobs/" + DIGEST, headers={"Authorization": "Basic x"}
        )
        assert urllib.request.urlopen(request).read() == b"anything"
        assert leaked(second) == ["Basic x"]
