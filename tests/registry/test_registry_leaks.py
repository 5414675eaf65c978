"""Where a registry sends its client: no login reaches another place, and nothing is asked of this host.

The control at the end shows that a client without these checks is taken in.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenserver
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, lying
from lyingsupport import layer_with, refused

import sampan
from sampan.engine import registries
from sampan.errors import (
    SampanError,
    Unauthorized,
    Unavailable,
)

ROOT = Path(__file__).parent.parent.parent


LAYER = ts.BASE


DIGEST = ts.digest(LAYER)


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


BESIDE = """
import sys
sys.path[:0] = {paths!r}
from lyingregistry import Answer, lying
import transfersupport as ts, sampan, os
from sampan.registry import retry
retry._FIRST = 0.003
with lying("10.9.8.7") as registry, lying("127.0.0.1") as mine:
    registry.manifest("app", "1", registry.image([ts.BASE]))
    digest = ts.digest(ts.BASE)
    there = lambda request: Answer(307, {{"Location": mine.base + "/secret" + request.path}})
    realm = lambda request: Answer(401, {{"WWW-Authenticate": f'Bearer realm="{{mine.base}}/secret"'}})
    registry.hook = lambda request: {what}(request) if request.path.endswith(digest) else None
    mine.hook = lambda request: Answer(200, {{}}, ts.BASE) if "secret" in request.path else None
    os.environ["SAMPAN_INSECURE_REGISTRIES"] = "10.9.8.0/24"
    try:
        sampan.Engine({root!r}).images.copy(f"docker://{{registry.host}}/app:1", f"docker://{{mine.host}}/copy:1")
        print("copied")
    except sampan.SampanError as exc:
        print("refused:", exc.message)
    print([one.path for one in mine.requests if "secret" in one.path])
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0
    or not shutil.which("ip"),
    reason="needs user and network namespaces, and ip (iproute2)",
)
@pytest.mark.parametrize("what", ["there", "realm"])
def test_a_registry_here_is_no_reason_for_others_to_send_us_here(tmp_path: Path, what: str) -> None:
    paths = [str(ROOT), str(ROOT / "tests/registry"), str(ROOT / "tests/transfer")]
    script = BESIDE.format(paths=paths, what=what, root=str(tmp_path / "store"))
    shell = 'ip link set lo up; ip addr add 10.9.8.7/32 dev lo; exec "$0" -c "$1"'
    words = ["unshare", "-rn", "sh", "-c", shell, sys.executable, script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("refused:") and done.stdout.endswith("[]\n"), done.stdout + done.stderr
    assert "an address of this host" in done.stdout


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
    ["127.0.0.1", "localhost", "LOCALHOST", "a.localhost", "[::1]", "10.0.0.1", "2130706433", "0x7f000001", "127.1"]
    + ["127.0x0.0.1", "127.0.0.0x1", "localhost.", "127.0.0.1.", "\uff1127.0.0.1"],
)
def test_addresses_are_told_from_names(host: str) -> None:
    from sampan.registry import auth, message

    assert auth.is_address(message.origin(f"https://{host}/")[1])


@pytest.mark.parametrize("host", ["auth.docker.io", "0x.example", "1.2.3.example", "localhost.example", "a-0x1"])
def test_names_are_told_from_addresses(host: str) -> None:
    from sampan.registry import auth, message

    assert not auth.is_address(message.origin(f"https://{host}/")[1])


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


def test_the_password_of_a_proxy_is_not_told(engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:hunter2@proxy.example:1080")
    with pytest.raises(SampanError, match="socks5://proxy.example:1080") as caught:
        engine.images.pull("registry.test/app:1")
    assert "hunter2" not in caught.value.message + caught.value.hint


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


def test_a_login_for_one_repository_reaches_no_other(
    registry: LyingRegistry, engine: sampan.Engine, home: Path
) -> None:
    """Of one command that speaks to several repositories of one host: two mirrors, and a copy."""
    place = home / ".config/containers/auth.json"
    place.parent.mkdir(parents=True)
    logins = {name: base64.b64encode(f"{name}:secret".encode()).decode() for name in ("app", "other")}
    place.write_text(json.dumps({"auths": {f"{registry.host}/{name}": {"auth": key} for name, key in logins.items()}}))
    wrong: list[str] = []

    def hook(request: Asked) -> Answer | None:
        given = request.headers.get("Authorization")
        if given is None:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
        owner = request.path.split("/")[2]
        if given != f"Basic {logins.get(owner)}":
            wrong.append(f"{request.path}: {given}")
        return None

    registry.hook = hook
    engine.images.copy(f"docker://{registry.host}/app:1", f"docker://{registry.host}/other:1")
    assert ("other", "1") in registry.manifests and wrong == []
    with pytest.raises(Unauthorized, match="nobodys: .* wants a login"):
        engine.images.copy(f"docker://{registry.host}/app:1", f"docker://{registry.host}/nobodys:1")
    assert wrong == []
