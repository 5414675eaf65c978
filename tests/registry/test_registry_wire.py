"""HTTP as brief.py speaks it: what may come is read as RFC 9112 has it, all else is Malformed or breaks off."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tokenserver
import transfersupport as ts
from lyingregistry import lying
from registrysupport import Registry, needs_registry

import sampan
from sampan.registry import brief, message, proxies, settings, tlshello, wire
from sampan.registry.message import Interrupted, Request
from sampan.registry.transport import HttpTransport

Pair = tuple[wire.Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with ours, theirs:
        yield wire.Connection(ours, "peer"), theirs


def answered(pair: Pair, data: bytes, method: str = "GET", *, end: bool = False) -> tuple[int, bytes, bool]:
    """Give status and body of what the peer sends, and whether the connection may be used again."""
    connection, peer = pair
    peer.sendall(data)
    if end:
        peer.shutdown(socket.SHUT_WR)
    status, _, length, stays = connection.answer(method)
    reusable: list[bool] = []
    body = wire.Body(connection, length, stays, lambda _, again: reusable.append(again))
    found = b""
    while piece := body.read(3):
        found += piece
    assert len(reusable) == 1
    return status, found, reusable[0]


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", (200, b"hello", True)),
        (OK + b"content-length:5\n\nhello", (200, b"hello", True)),
        (OK + b"Content-Length: 0\r\n\r\n", (200, b"", True)),
        (OK + b"Content-Length: 5\r\n\r\nhellomore", (200, b"hello", False)),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", (200, b"hello", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, b"hello", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", (200, b"hello", True)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1;x=y\r\no\r\n0\r\n\r\n", (200, b"hello", True)),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", (200, b"hello", True)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", (200, b"x", True)),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", (204, b"", True)),
        (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", (404, b"no", True)),
    ],
)
def test_an_answer_is_read_to_its_end(pair: Pair, data: bytes, expected: tuple[int, bytes, bool]) -> None:
    assert answered(pair, data) == expected


def test_an_answer_without_a_length_ends_with_its_connection(pair: Pair) -> None:
    assert answered(pair, OK + b"\r\nhello", end=True) == (200, b"hello", False)


def test_an_answer_to_head_has_no_body(pair: Pair) -> None:
    assert answered(pair, OK + b"Content-Length: 500\r\n\r\n", "HEAD") == (200, b"", True)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        OK + b"no colon\r\n\r\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"Bad Name: x\r\n\r\n",
        OK + b": x\r\n\r\n",
        OK + b"A: b\rc\r\n\r\n",
        OK + b"Content-Length: 5, 6\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + "Content-Length: ²\r\n\r\n".encode("latin-1"),
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"A: b\r\n" * 101 + b"\r\n",
        OK + b"A" * 70_000,
    ],
)
def test_what_is_not_well_formed_is_left_to_a_whole_library(pair: Pair, data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        answered(pair, data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (OK + b"Content-Length: 9\r\n\r\nhello", "too early"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello", "too early"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "too early"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhellox\r\n0\r\n\r\n", "longer than it says"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", "without a size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", "without a size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 200, "without end"),
    ],
)
def test_a_body_that_is_cut_or_lies_breaks_off(pair: Pair, data: bytes, why: str) -> None:
    with pytest.raises(Interrupted, match=why):
        answered(pair, data, end=True)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nHost: other", {}),
        ("/ä", {}),
        ("a", {}),
        ("/a", {"Accept": "x\r\nAuthorization: y"}),
        ("/a", {"Accept": "x\0"}),
    ],
)
def test_nothing_is_smuggled_into_a_question(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(wire.Malformed):
        wire.question("GET", target, "host", headers)


def test_a_question() -> None:
    sent = wire.question("GET", "/v2/?a=b", "host:5000", {"Accept": "x"})
    assert sent == b"GET /v2/?a=b HTTP/1.1\r\nHost: host:5000\r\nAccept: x\r\n\r\n"


def test_a_body_that_is_dropped_keeps_a_connection_whose_answer_is_here(pair: Pair) -> None:
    connection, peer = pair
    for length, again in ((5, True), (6, False)):
        peer.sendall(OK + b"Content-Length: %d\r\n\r\nhello" % length)
        _, _, size, stays = connection.answer("GET")
        reusable: list[bool] = []
        wire.Body(connection, size, stays, lambda _, ok, told=reusable: told.append(ok)).close()  # type: ignore[misc]
        assert reusable == [again]


@pytest.mark.parametrize(
    "url",
    [
        "http://host/v2/",
        "https://host:5000/v2/a?b=c#d",
        "http://HOST.example:080/x",
        "http://127.0.0.1:80",
        "https://host:70000/",
        "https://host:/",
        "https://us er@host/",
        "https://user@host/",
        "https://[::1]:5000/x",
        "https://host?a/b",
        "https://host#a/b",
        "https://ho\tst/",
        "https://",
        "ftp://host/",
        "HTTP://host/",
        "//host/",
    ],
)
def test_the_origin_of_a_url_is_the_same_with_and_without_a_whole_parser(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> object:
        try:
            return message.origin(url)
        except message.Refused as exc:
            return str(exc)

    quick = found()
    monkeypatch.setattr(message, "_plain_origin", lambda url: None)
    assert found() == quick


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "126.0.0.1", "127.0.0", "127.0.0.01", "::1", "::2", "a.b"])
def test_loopback_addresses_are_told_as_the_library_tells_them(host: str) -> None:
    try:
        expected = ipaddress.ip_address(host).is_loopback
    except ValueError:
        expected = False
    assert proxies.is_loopback(host) == expected


def test_connections_are_used_again_by_several_threads_and_all_are_closed() -> None:
    with lying() as registry:
        digests = [registry.blob(os.urandom(300_000)) for _ in range(4)]
        transport = HttpTransport(settings.Settings(), {})
        bodies: list[bytes] = []

        def fetch(digest: str) -> None:
            with transport.send(Request("GET", f"{registry.base}/v2/a/blobs/{digest}")) as response:
                bodies.append(response.document(1 << 20, "it"))

        for _ in range(3):
            threads = [threading.Thread(target=fetch, args=(digest,)) for digest in digests]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(bodies) == sorted(registry.blobs[digest] for digest in digests * 3)
        made = transport._brief
        assert made is not None and 1 <= len(made._all) <= 4 and not transport._pools
        sockets = [connection.sock for connection in made._all]
        transport.close()
        assert all(sock.fileno() == -1 for sock in sockets) and not made._all


@needs_registry
def test_a_plain_registry_does_not_speak_tls(plain: Registry) -> None:
    assert not HttpTransport(settings.Settings(), {}).speaks_tls("127.0.0.1", plain.port)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_hello_is_answered_by_tls_of_any_version(version: str, host: str, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tokenserver.make_certificate(tmp_path, "server", tokenserver.make_ca(tmp_path)))
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with pytest.raises(OSError), context.wrap_socket(peer, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        sock = brief.connect(host, server.getsockname()[1], 60)
        assert tlshello.answers_tls(sock, host, os.urandom(32))
        sock.close()
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"H", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x02", b"\x15"])
def test_what_is_no_record_of_tls_is_none(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        assert not tlshello.answers_tls(ours, "host", bytes(32))
        assert b"\n" in theirs.recv(1000)  # for a server that waits for a line


def test_a_lying_registry_is_asked_as_an_honest_one_is() -> None:
    """What brief.py cannot make sense of urllib3 asks again."""
    with lying() as registry:
        transport = HttpTransport(settings.Settings(), {})
        digest = registry.blob(b"x")
        with transport.send(Request("GET", f"{registry.base}/v2/a b/blobs/{digest}")) as response:
            assert response.status in (200, 400, 404)
        assert transport._pools
        transport.close()


class Content:
    """A body that comes in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read(self, count: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def received(peer: socket.socket) -> bytes:
    """All that comes until the other side says that it sends no more."""
    found = b""
    while data := peer.recv(1 << 16):
        found += data
    return found


@pytest.mark.parametrize(
    ("length", "expected"), [(5, b"HEADhello"), (-1, b"HEAD4\r\nhell\r\n1\r\no\r\n0\r\n\r\n")], ids=["length", "chunks"]
)
def test_a_body_is_sent_as_its_length_wants(pair: Pair, length: int, expected: bytes) -> None:
    connection, peer = pair
    assert connection.send(b"HEAD", lambda: Content(b"hell", b"o"), length)
    connection.sock.shutdown(socket.SHUT_WR)
    assert received(peer) == expected


@pytest.mark.parametrize("pieces", [(b"hell",), (b"hello", b"x")])
def test_a_body_of_another_length_is_never_taken_for_whole(pair: Pair, pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(OSError, match="to send than was said"):
        pair[0].send(b"HEAD", lambda: Content(*pieces), 5)


def test_an_answer_that_comes_before_all_is_sent_is_read(pair: Pair) -> None:
    connection, peer = pair
    peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    peer.close()
    assert not connection.send(b"HEAD", lambda: Content(*[bytes(1 << 20)] * 50), -1)
    assert connection.answer("PATCH")[0] == 413


def test_large_bodies_arrive_whole_through_a_narrow_socket(pair: Pair) -> None:
    connection, peer = pair
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pieces = [os.urandom(300_001), b"x", os.urandom(99_999)]

    def send() -> None:
        connection.send(b"HEAD", lambda: Content(*pieces), 400_001)
        connection.sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    found = received(peer)
    thread.join()
    assert found == b"HEAD" + b"".join(pieces)


def test_a_request_with_an_effect_is_not_put_on_a_connection_that_was_closed() -> None:
    with lying() as registry:
        transport = HttpTransport(settings.Settings(), {})
        for _ in range(2):
            with transport.send(Request("POST", f"{registry.base}/v2/a/blobs/uploads/")) as response:
                assert response.status == 202 and response.read(1) == b""
            made = transport._brief
            assert made is not None
            ((connection,),) = made._idle.values()
            assert connection.is_quiet()
            connection.sock.shutdown(socket.SHUT_RDWR)
            assert not connection.is_quiet()
        assert len(registry.requests) == 2 and not transport._pools
        transport.close()


@needs_registry
def test_a_push_needs_no_library(plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path) -> None:
    engine = make_engine()
    engine.images.load(str(ts.write_tree(tmp_path / "layout", ts.simple_layout().build())))
    code = "import sys, sampan\n(pushed,) = sampan.Engine(sys.argv[1]).images.push(sys.argv[2])\n"
    code += "print(pushed.digest, {'urllib3', 'http.client', 'ssl'} & set(sys.modules))"
    engine.images.tag("app:1", f"{plain.host}/wire:1")
    words = [sys.executable, "-c", code, engine.store.paths.root, f"{plain.host}/wire:1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    digest, _, loaded = done.stdout.partition(" ")
    assert loaded == "set()\n"
    (pulled,) = make_engine().images.pull(f"{plain.host}/wire:1")
    assert pulled.digest == digest
