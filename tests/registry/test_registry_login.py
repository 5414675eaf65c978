"""Logins: Basic and token authentication at a real registry, with and without TLS; where they are kept."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tokenserver
import transfersupport as ts
from lyingregistry import Answer, lying
from registrysupport import Registry, needs_registry, running
from urllib3 import exceptions as failures

import sampan
from sampan.engine import registries
from sampan.errors import Denied, InvalidArgument, NotFound, Unauthorized, Unavailable
from sampan.registry import brief
from sampan.registry.pools import translated
from sampan.registry.transport import HttpTransport

ROOT = Path(__file__).parent.parent.parent
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
needs_htpasswd = pytest.mark.skipif(not shutil.which("htpasswd"), reason="needs htpasswd (apache2-utils)")
pytestmark = [needs_registry, needs_openssl]


def load(engine: sampan.Engine, tmp_path: Path, name: str) -> str:
    """The small image of the transfer tests, in a store, under a name."""
    engine.images.load(str(ts.write_tree(tmp_path / "layout", ts.simple_layout(suffix="+gzip").build())))
    engine.images.tag("app:1", name)
    return name


@pytest.fixture(scope="module")
def htpasswd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("htpasswd")
    text = subprocess.run(["htpasswd", "-Bbn", "me", "s3cret:x"], capture_output=True, check=True).stdout
    (directory / "users").write_bytes(text)
    with running(directory / "registry", auth=f"{{htpasswd: {{realm: r, path: '{directory}/users'}}}}") as registry:
        yield registry


@needs_htpasswd
def test_basic_authentication(
    htpasswd: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path, home: Path
) -> None:
    engine, other = make_engine(), make_engine()
    name = load(engine, tmp_path, f"{htpasswd.host}/basic/app:1")
    with pytest.raises(Unauthorized) as caught:
        engine.images.push(name)
    assert f"sampan login {htpasswd.host}" in caught.value.hint and "wants a login" in caught.value.message
    with pytest.raises(Unauthorized, match="name or password is wrong"):
        registries.login(htpasswd.host, "me", "wrong")
    assert not (home / ".docker").exists()
    registries.login(htpasswd.host, "me", "s3cret:x")
    engine.images.push(name)
    other.images.pull(name)
    assert ts.trees(engine, name) == ts.trees(other, name)
    assert registries.relogin(htpasswd.host) and registries.logout(htpasswd.host)
    with pytest.raises(Unauthorized):
        other.images.pull(name)
    assert not registries.logout(htpasswd.host)


@needs_htpasswd
def test_a_login_counts_where_the_configuration_puts_the_registry(
    htpasswd: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nprefix = "moved.example"\nlocation = "{htpasswd.host}"\ninsecure = true\n')
    monkeypatch.setenv("SAMPAN_REGISTRIES_CONF", str(conf))
    engine = make_engine()
    name = load(engine, tmp_path, "moved.example/basic/moved:1")
    registries.login("moved.example", "me", "s3cret:x")
    assert registries.relogin("moved.example") and registries.stored("moved.example") == "me"
    engine.images.push(name)
    make_engine().images.pull(name)
    conf.write_text('[[registry]]\nprefix = "moved.example"\nblocked = true\n')
    assert not registries.logout("moved.example")
    assert registries.logout(htpasswd.host)


@needs_htpasswd
def test_the_command_asks_nothing_when_told_everything(htpasswd: Registry, home: Path) -> None:
    def sampan_command(*words: str, data: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sampan", *words]
        return subprocess.run(command, input=data, capture_output=True, text=True, cwd=ROOT, check=False)

    done = sampan_command("login", "-u", "me", "--password-stdin", htpasswd.host, data="s3cret:x\n")
    assert (done.returncode, done.stdout) == (0, "Login Succeeded\n") and "s3cret" not in done.stderr
    config = home / ".docker/config.json"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    entry = json.loads(config.read_text())["auths"][htpasswd.host]
    assert base64.b64decode(entry["auth"]) == b"me:s3cret:x"
    assert sampan_command("login", htpasswd.host).stdout == "Login Succeeded\n"
    wrong = sampan_command("login", "-u", "me", "--password-stdin", htpasswd.host, data="s3cret")
    assert wrong.returncode == 1 and "s3cret" not in wrong.stderr + wrong.stdout.replace("s3cret:x", "")
    assert "cannot ask for the user name" in sampan_command("login", "127.0.0.1:1").stderr
    assert sampan_command("logout", htpasswd.host).stdout == f"Removing login credentials for {htpasswd.host}\n"


def test_tokens(make_engine: Callable[[], sampan.Engine], tmp_path: Path) -> None:
    engine, other = make_engine(), make_engine()
    with (
        tokenserver.serving(tmp_path / "token", {"me": "secret"}, public=True) as tokens,
        running(tmp_path / "registry", auth=tokens.auth()) as registry,
    ):
        name = load(engine, tmp_path, f"{registry.host}/token/app:1")
        with pytest.raises((Unauthorized, Denied)):
            engine.images.push(name)  # without a login a token for pulling only is given
        registries.login(registry.host, "me", "secret")
        engine.images.push(name)
        pushed = [fields["scope"] for _, fields, _ in tokens.requests if "scope" in fields]
        assert ["repository:token/app:pull,push"] in pushed
        registries.logout(registry.host)
        tokens.requests.clear()
        other.images.pull(name)
        assert [authorization for _, _, authorization in tokens.requests] == [""]  # one token for the whole pull
    assert ts.trees(engine, name) == ts.trees(other, name)


def test_a_refresh_token_is_kept_in_place_of_the_password(engine: sampan.Engine, tmp_path: Path, home: Path) -> None:
    with (
        tokenserver.serving(tmp_path / "token", {"me": "secret"}, refresh=True) as tokens,
        running(tmp_path / "registry", auth=tokens.auth()) as registry,
    ):
        registries.login(registry.host, "me", "secret")
        entry = json.loads((home / ".docker/config.json").read_text())["auths"][registry.host]
        assert entry["identitytoken"] == "refresh-me" and b"secret" not in base64.b64decode(entry["auth"])
        engine.images.push(load(engine, tmp_path, f"{registry.host}/refresh/app:1"))
        assert tokens.requests[-1][1]["grant_type"] == ["refresh_token"]


def test_a_server_without_tls_is_told_in_words(plain: Registry) -> None:
    with socket.create_connection(("127.0.0.1", plain.port)) as sock, pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context().wrap_socket(sock, server_hostname="a.example")
    told = translated(failures.SSLError(caught.value), "a.example")
    assert str(told) == "cannot speak TLS with a.example: wrong version number"


@pytest.mark.parametrize(
    ("why", "hint"),
    [
        ("certificate has expired", "this host's clock is wrong"),
        ("certificate is not yet valid", "this host's clock is wrong"),
        ("unable to get local issuer certificate", "certs.d/a.example/ca.crt"),
        ("Hostname mismatch, certificate is not valid for 'a.example'.", ""),
    ],
)
def test_a_certificate_that_is_not_trusted_has_a_hint_that_helps(why: str, hint: str) -> None:
    error = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {why}")
    told = translated(failures.SSLError(error), "a.example")
    assert isinstance(told, Unavailable) and why in told.message
    assert hint in told.hint and bool(hint) == bool(told.hint)


def test_tls_needs_the_right_ca_and_never_falls_back(
    make_engine: Callable[[], sampan.Engine], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tokenserver.make_ca(tmp_path)
    other_ca = tokenserver.make_ca(tmp_path, "other")
    server = tokenserver.make_certificate(tmp_path, "server", ca)
    with running(tmp_path / "registry", tls=server) as registry:
        engine, second = make_engine(), make_engine()
        name = load(engine, tmp_path, f"{registry.host}/tls/app:1")
        certs = home / ".docker/certs.d" / registry.host
        certs.mkdir(parents=True)
        for wrong in (None, other_ca[0]):
            if wrong is not None:
                shutil.copy(wrong, certs / "ca.crt")
            with pytest.raises(Unavailable, match=f"cannot trust {registry.host}") as caught:
                engine.images.push(name)
            assert f"{'~/.docker' if os.geteuid() else '/etc/docker'}/certs.d" in caught.value.hint
        log = registry.log.read_text()
        assert "HTTP request to an HTTPS server" not in log and "GET" not in log
        shutil.copy(ca[0], certs / "ca.crt")
        engine.images.push(name)
        second.images.pull(name)
        assert ts.trees(engine, name) == ts.trees(second, name)


def test_insecure_by_name_accepts_what_cannot_be_verified(
    engine: sampan.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tokenserver.make_certificate(tmp_path, "server", tokenserver.make_ca(tmp_path))
    with running(tmp_path / "registry", tls=server) as registry:
        monkeypatch.setenv("SAMPAN_INSECURE_REGISTRIES", registry.host)
        engine.images.push(load(engine, tmp_path, f"{registry.host}/unverified/app:1"))
        assert registry.tags("unverified/app") == {"1"}


def test_client_certificates(engine: sampan.Engine, tmp_path: Path, home: Path) -> None:
    ca = tokenserver.make_ca(tmp_path)
    server, client = (tokenserver.make_certificate(tmp_path, name, ca) for name in ("server", "client"))
    with running(tmp_path / "registry", tls=server, client_ca=ca[0]) as registry:
        name = load(engine, tmp_path, f"{registry.host}/client/app:1")
        certs = home / ".docker/certs.d" / registry.host
        certs.mkdir(parents=True)
        shutil.copy(ca[0], certs / "ca.crt")
        with pytest.raises(Unavailable, match="it wants a client certificate") as caught:
            engine.images.push(name)
        assert "client.key" in caught.value.hint
        (certs / "other.crt").write_text("no certificate")
        with pytest.raises(InvalidArgument, match="it holds no certificate") as unusable:
            engine.images.push(name)
        assert "_ssl" not in unusable.value.message
        (certs / "other.crt").unlink()
        shutil.copy(client[0], certs / "client.cert")
        with pytest.raises(InvalidArgument, match="there is no client.key beside it"):
            engine.images.push(name)
        shutil.copy(client[1], certs / "client.key")
        engine.images.push(name)
        assert registry.tags("client/app") == {"1"}


def test_a_certificate_of_another_name(engine: sampan.Engine, tmp_path: Path, home: Path) -> None:
    ca = tokenserver.make_ca(tmp_path)
    server = tokenserver.make_certificate(tmp_path, "server", ca, san="DNS:other.example")
    with running(tmp_path / "registry", tls=server) as registry:
        certs = home / ".docker/certs.d" / registry.host
        certs.mkdir(parents=True)
        shutil.copy(ca[0], certs / "ca.crt")
        with pytest.raises(Unavailable, match="mismatch") as caught:
            engine.images.pull(f"{registry.host}/app")
        assert caught.value.hint == ""  # another CA would not help


def test_a_proxy_that_is_not_there_is_told(engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr("sampan.registry.connect.Registries._sleep", lambda self, seconds: None)
    with pytest.raises(Unavailable, match="through the proxy: Connection refused$"):
        engine.images.pull("registry.example/app")


def test_a_proxy_that_does_not_answer_is_told(
    engine: sampan.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.registry.connect.Registries._sleep", lambda self, seconds: None)
    for limit in ("connect", "read"):
        monkeypatch.setitem(HttpTransport.__init__.__kwdefaults__, limit, 0.2)  # type: ignore[arg-type]
    for scheme in ("http", "https"):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises(Unavailable, match="registry.example.*: it does not answer in time$"):
                engine.images.pull("registry.example/app")


def test_a_blocked_registry_is_not_asked(engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_BLOCKED_REGISTRIES", "blocked.example")
    with pytest.raises(Denied, match="blocked by the configuration"):
        engine.images.pull("blocked.example/a")
    for ask in (lambda host: registries.login(host, "me", "x"), lambda host: registries.search(f"{host}/app", 5)):
        with pytest.raises(Denied, match="cannot reach blocked.example: it is blocked by the configuration"):
            ask("blocked.example")


def test_a_mirror_is_asked_first_and_may_fail(
    plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.registry.connect.Registries._sleep", lambda self, seconds: None)
    engine, second = make_engine(), make_engine()
    engine.images.push(load(engine, tmp_path, f"{plain.host}/hub/library/mirrored:1"))
    monkeypatch.setenv("SAMPAN_REGISTRY_MIRRORS", f"docker.io=127.0.0.1:1,docker.io={plain.host}/hub")
    said: list[str] = []
    second.images.pull("mirrored:1", listen=lambda event: said.append(event.text))
    assert second.images.resolve("docker.io/library/mirrored:1").id == engine.images.resolve("app:1").id
    assert any(text.startswith("127.0.0.1:1: ") for text in said)
    monkeypatch.setenv("SAMPAN_REGISTRY_MIRRORS", f"127.0.0.1:1=127.0.0.1:2,127.0.0.1:1={plain.host}/hub")
    engine.images.push(load(engine, tmp_path, f"{plain.host}/hub/library/mirrored:2"))
    found = second.images.pull("127.0.0.1:1/library/mirrored", all_tags=True)
    assert [str(one.reference) for one in found] == [f"127.0.0.1:1/library/mirrored:{tag}" for tag in (1, 2)]
    with pytest.raises(Unavailable, match="cannot pull 127.0.0.1:1/nothing: cannot reach 127.0.0.1:1"):
        second.images.pull("127.0.0.1:1/nothing", all_tags=True)
    with pytest.raises((NotFound, Unavailable), match="cannot pull other:1"):
        second.images.pull("other:1")
    assert os.listdir(second.store.paths.ingest) == []


def test_a_mirror_that_denies_is_passed_over(
    plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, second = make_engine(), make_engine()
    engine.images.push(load(engine, tmp_path, f"{plain.host}/hub/library/denied:1"))
    with lying() as mirror:
        mirror.hook = lambda request: Answer(403, {}, b"")
        monkeypatch.setenv("SAMPAN_REGISTRY_MIRRORS", f"docker.io={mirror.host},docker.io={plain.host}/hub")
        second.images.pull("denied:1")
        assert second.images.resolve("docker.io/library/denied:1").id == engine.images.resolve("app:1").id
        assert mirror.requests
        monkeypatch.setenv("SAMPAN_REGISTRY_MIRRORS", "")
        with pytest.raises(Denied, match="denies"):
            second.images.pull(f"{mirror.host}/denied:1")


def test_what_is_sent_does_not_wait_for_an_acknowledgement(plain: Registry) -> None:
    host, _, port = plain.host.partition(":")
    with contextlib.closing(brief.connect(host, int(port), 60)) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("word", "host"),
    [
        ("", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io/me", "docker.io"),
        ("registry.example/team/app", "registry.example"),
        ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
        ("localhost", "localhost"),
    ],
)
def test_a_login_is_for_the_host_that_a_word_begins_with(word: str, host: str) -> None:
    assert registries.server(word) == host


@pytest.mark.parametrize("word", ["me/app", "me", "two words", "x.example:port", "https:///v1/x y"])
def test_a_word_that_names_no_registry_is_refused_as_it_was_written(word: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        registries.server(word)
    assert caught.value.message == f"invalid registry {word!r}" and "host name" in caught.value.hint
