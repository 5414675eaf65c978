"""A token server for docker-registry (distribution's "Token Authentication Specification"), and certificates for tests.

openssl signs: no library is needed for that.
"""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def openssl(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True).stdout


def make_key(directory: Path, name: str) -> Path:
    key = directory / f"{name}.key"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))
    return key


def make_ca(directory: Path, name: str = "ca") -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key, cert = make_key(directory, name), directory / f"{name}.crt"
    openssl("req", "-x509", "-new", "-key", str(key), "-subj", f"/CN={name}", "-days", "30", "-out", str(cert))
    return cert, key


def make_certificate(directory: Path, name: str, ca: tuple[Path, Path], san: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate for a server or a client, signed by a CA."""
    key, request, cert = make_key(directory, name), directory / f"{name}.csr", directory / f"{name}.crt"
    openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
    extension = directory / f"{name}.ext"
    extension.write_text(f"subjectAltName={san}\n")
    openssl("x509", "-req", "-in", str(request), "-CA", str(ca[0]), "-CAkey", str(ca[1]), "-CAcreateserial",
            "-days", "30", "-extfile", str(extension), "-out", str(cert))  # fmt: skip
    return cert, key


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Gives tokens to `users`; keeps what it was asked in `requests`: (path, query or form, Authorization)."""

    def __init__(self, directory: Path, users: dict[str, str], *, public: bool = False, refresh: bool = False) -> None:
        self.users = users
        self.public = public
        self.refresh = refresh
        self.requests: list[tuple[str, dict[str, list[str]], str]] = []
        directory.mkdir(exist_ok=True)
        self.key = directory / "token.key"
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(self.key))
        self.cert = directory / "token.crt"
        openssl(
            "req", "-x509", "-new", "-key", str(self.key), "-subj", "/CN=token", "-days", "9", "-out", str(self.cert)
        )
        self.der = openssl("x509", "-in", str(self.cert), "-outform", "DER")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urllib.parse.urlsplit(self.path)
                self._answer(parts.path, urllib.parse.parse_qs(parts.query))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(self.path, urllib.parse.parse_qs(body))

            def _answer(self, path: str, fields: dict[str, list[str]]) -> None:
                outer.requests.append((path, fields, self.headers.get("Authorization", "")))
                status, answer = outer.answer(fields, self.headers.get("Authorization", ""))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.server.server_port}/token"

    def answer(self, fields: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, Any]]:
        user = self._user(fields, authorization)
        if user is None:
            return 401, {"details": "wrong password"}
        if not user and not self.public:
            return 401, {"details": "log in"}
        access = []
        for scope in " ".join(fields.get("scope", [])).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = [one for one in actions.split(",") if user or one == "pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        answer: dict[str, Any] = {"token": self.sign(user, fields.get("service", [""])[0], access), "expires_in": 300}
        if self.refresh and "offline_token" in fields:
            answer["refresh_token"] = f"refresh-{user}"
        return 200, answer

    def _user(self, fields: dict[str, list[str]], authorization: str) -> str | None:
        if fields.get("grant_type") == ["refresh_token"]:
            name = fields["refresh_token"][0].removeprefix("refresh-")
            return name if name in self.users else None
        if not authorization:
            return ""
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return name if self.users.get(name) == password else None

    def sign(self, user: str, service: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self.der).decode()]}
        claims = {"iss": "tests", "sub": user, "aud": service, "exp": now + 300, "nbf": now - 5, "iat": now, "jti": "1"}
        text = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims | {'access': access}).encode())}"
        return f"{text}.{_b64(openssl('dgst', '-sha256', '-sign', str(self.key), data=text.encode()))}"

    def auth(self) -> str:
        """docker-registry's `auth` section."""
        return f"{{token: {{realm: '{self.realm}', service: tests, issuer: tests, rootcertbundle: '{self.cert}'}}}}"


@contextmanager
def serving(directory: Path, users: dict[str, str], **settings: bool) -> Iterator[TokenServer]:
    server = TokenServer(directory, users, **settings)
    thread = threading.Thread(target=server.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        server.server.server_close()
        thread.join(5)
