"""A registry on loopback that does what a test tells it: lies, breaks off, redirects, drips.

    registry = LyingRegistry()
    registry.add_image("app", "1", …)
    registry.hook = lambda request: Answer(503) if request.count == 1 else None      None: as an honest one does

A body is bytes, or an iterator of bytes and of RESET (the connection ends with a TCP reset).
"""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transfersupport as ts

RESET = object()


class Answer:
    """What to send: `close` ends the connection after it; `length` is what Content-Length says (None: chunked)."""

    def __init__(
        self,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: bytes | Iterable[Any] = b"",
        *,
        length: int | None = -1,
        close: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.body = body
        self.length = len(body) if length == -1 and isinstance(body, bytes) else length
        self.close = close


class Asked:
    """One request: `count` is how often this method and path were asked before."""

    def __init__(self, method: str, path: str, headers: Any, count: int) -> None:
        self.method = method
        self.path, _, self.query = path.partition("?")
        self.headers = headers
        self.count = count

    @property
    def offset(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0


class LyingRegistry:
    """Blobs, manifests, uploads, and a hook before all of it."""

    def __init__(self, address: str = "127.0.0.1", tls: tuple[Path, Path] | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.hook: Callable[[Asked], Answer | None] = lambda request: None
        self.requests: list[Asked] = []
        self.served = 0  # bytes of bodies
        self.subjects = False  # whether it says that it has seen a manifest's subject
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are written apart: the latter would wait for 40 ms

            def handle_one(self) -> None:
                outer.handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_one

            def log_message(self, *words: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Server((address, 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.host = f"{address}:{self.server.server_port}"
        self.base = f"{'https' if tls else 'http'}://{self.host}"

    # ---- content ----

    def blob(self, data: bytes) -> str:
        digest = ts.digest(data)
        self.blobs[digest] = data
        return digest

    def manifest(self, repository: str, tag: str, document: Any, media_type: str = ts.MANIFEST) -> str:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = ts.digest(data)
        for name in (tag, digest):
            self.manifests[repository, name] = (data, media_type)
        return digest

    def image(self, layers: list[bytes], **extra: Any) -> dict[str, Any]:
        """Store the parts of an image; give its manifest."""
        config = ts.config(layers)
        return {
            "schemaVersion": 2,
            "mediaType": ts.MANIFEST,
            "config": {"mediaType": ts.CONFIG, "digest": self.blob(config), "size": len(config)},
            "layers": [{"mediaType": ts.LAYER, "digest": self.blob(one), "size": len(one)} for one in layers],
            **extra,
        }

    # ---- protocol ----

    def handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        with self.lock:
            same = [
                one
                for one in self.requests
                if (one.method, one.path) == (handler.command, handler.path.partition("?")[0])
            ]
            asked = Asked(handler.command, handler.path, handler.headers, len(same))
            self.requests.append(asked)
        answer = self.hook(asked)
        if answer is None:
            answer = self.honest(asked, handler)
        elif handler.headers.get("Content-Length") and not answer.close:
            handler.rfile.read(int(handler.headers["Content-Length"]))
        self.send(handler, asked, answer)

    def honest(self, asked: Asked, handler: http.server.BaseHTTPRequestHandler) -> Answer:
        path = asked.path
        if path in ("/v2/", "/v2"):
            return Answer(200, {}, b"{}")
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs|blobs/uploads)/([^/]*)", path)
        if not found:
            return Answer(404)
        repository, kind, name = found.groups()
        if kind == "blobs/uploads":
            return self.upload(asked, repository, name, handler)
        if kind == "manifests":
            return self.a_manifest(asked, repository, name, handler)
        if name not in self.blobs:
            return Answer(404)
        data = self.blobs[name]
        if asked.offset:
            last = len(data) - 1
            return Answer(206, {"Content-Range": f"bytes {asked.offset}-{last}/{len(data)}"}, data[asked.offset :])
        return Answer(200, {}, data)

    def a_manifest(self, asked: Asked, repository: str, name: str, handler: Any) -> Answer:
        if asked.method == "PUT":
            data = handler.rfile.read(int(handler.headers["Content-Length"]))
            self.manifest(repository, name, data, handler.headers["Content-Type"])
            subject = json.loads(data).get("subject") if self.subjects else None
            return Answer(201, {"OCI-Subject": subject["digest"]} if subject else {})
        if (repository, name) not in self.manifests:
            return Answer(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        data, media_type = self.manifests[repository, name]
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": ts.digest(data)}, data)

    def upload(self, asked: Asked, repository: str, name: str, handler: Any) -> Answer:
        if asked.method == "POST":
            name = hashlib.sha256(random.randbytes(8)).hexdigest()[:12]
            self.uploads[name] = bytearray()
            return Answer(202, {"Location": f"/v2/{repository}/blobs/uploads/{name}"})
        there = self.uploads.get(name)
        if there is None:
            return Answer(404)
        place = {"Location": f"/v2/{repository}/blobs/uploads/{name}"}
        if asked.method == "GET":
            return Answer(204, {**place, "Range": f"0-{max(0, len(there) - 1)}"})
        start = re.match(
            r"(\d+)-", asked.headers.get("Content-Range", f"{len(there) if asked.method == 'PUT' else 0}-")
        )
        if not start or int(start[1]) != len(there):
            return Answer(416, {}, b"", close=True)
        self.receive(handler, there)
        if asked.method == "PATCH":
            return Answer(202, {**place, "Range": f"0-{len(there) - 1}"})
        digest = urllib.parse.parse_qs(asked.query)["digest"][0]
        if self.blob(bytes(there)) != digest:
            return Answer(400, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        return Answer(201, {"Location": f"/v2/{repository}/blobs/{digest}"})

    def receive(self, handler: Any, there: bytearray, limit: int = -1) -> None:
        """Read a body, as it comes; stop after `limit` bytes."""
        if handler.headers.get("Transfer-Encoding") == "chunked":
            while size := int(handler.rfile.readline(), 16):
                there += handler.rfile.read(size)
                handler.rfile.readline()
            handler.rfile.readline()
            return
        left = int(handler.headers.get("Content-Length") or 0)
        left = min(left, limit) if limit >= 0 else left
        while left and (data := handler.rfile.read1(min(left, 65536))):
            there += data
            left -= len(data)

    def send(self, handler: Any, asked: Asked, answer: Answer) -> None:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.length is None:
            handler.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in answer.headers:
            handler.send_header("Content-Length", str(answer.length))
        if answer.close:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if asked.method == "HEAD":
            return
        for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
            if piece is RESET:
                handler.wfile.flush()
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.connection.close()
                handler.close_connection = True
                return
            self.served += len(piece)
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.length is None else piece)
        if answer.length is None:
            handler.wfile.write(b"0\r\n\r\n")

    # ---- what was asked ----

    def asked(self, part: str) -> list[Asked]:
        return [one for one in self.requests if part in one.path]


@contextmanager
def lying(address: str = "127.0.0.1", tls: tuple[Path, Path] | None = None) -> Iterator[LyingRegistry]:
    registry = LyingRegistry(address, tls)
    thread = threading.Thread(target=registry.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.server.shutdown()
        registry.server.server_close()
        thread.join(5)


def noise(size: int, seed: int = 1) -> bytes:
    """A layer of about `size` bytes that cannot be compressed."""
    return ts.tar([ts.member("noise", random.Random(seed).randbytes(size))])
