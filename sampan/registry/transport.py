"""The one seam to the network: send a request, get its response.  urllib3 does HTTP and TLS; nothing else imports it.

It neither follows redirects nor tries again: those are decisions, made in client.py and retry.py.  Whatever the network
does becomes Interrupted (trying again may help) or Unavailable (it does not).

Rules: an address that a peer named (a redirect, a token server, an upload's place) is looked at once connected, before
anything is sent: link-local ones (169.254.0.0/16 holds clouds' metadata services) are refused, and this host's own
unless the registry runs on it.  A body slower than 1 KiB/s over a minute counts as broken off.
"""

from __future__ import annotations

import socket
import time
import weakref
from ipaddress import ip_address
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from sampan.errors import NotSupported, Unavailable
from sampan.registry import certificates, message, proxies
from sampan.registry.message import Interrupted, Refused, Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.registry.message import Reader
    from sampan.registry.settings import Settings

CONNECT, READ = 15.0, 30.0  # seconds; READ is between two arrivals of data
WINDOW, _SLOWEST = 60.0, 1 << 10  # seconds, bytes a second
_METADATA = ("100.100.100.200", "fd00:ec2::254")  # Alibaba's and Amazon's, which are not link-local
_VERSION = "sampan"


def _check_peer(sock: Any, host: str, own_host: bool) -> None:
    """Refuse a peer that no registry should send us to."""
    name = sock.getpeername()[0].partition("%")[0]
    address: Any = ip_address(name)
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    here = address.is_loopback or address.is_unspecified
    if address.is_link_local or str(address) in _METADATA or (here and not own_host):
        sock.close()
        raise Refused(f"cannot follow the registry to {host}: {address} is an address of this host or its network")


class _Guarded:
    """What both kinds of connection do besides: look at the peer, and be known, so that they can be shut down."""

    guard: tuple[str, bool] | None = None
    open_sockets: weakref.WeakSet[Any] | None = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        if self.guard is not None:
            _check_peer(sock, *self.guard)
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self.open_sockets is not None:
            self.open_sockets.add(self.sock)  # type: ignore[attr-defined]


class _Plain(_Guarded, HTTPConnection):
    pass


class _Secure(_Guarded, HTTPSConnection):
    pass


class _Body:
    """The body of a response; its connection goes back to the pool when it was read to the end."""

    def __init__(self, raw: Any, host: str, window: float) -> None:
        self._raw = raw
        self._window = window
        self._host = host
        self._since = time.monotonic()
        self._got = 0

    def read(self, count: int) -> bytes:
        try:
            # read1: what has arrived, so that slowness is seen; urllib3 itself waits for all of `count`.
            data: bytes = self._raw.read1(count)
            if not data:
                data = self._raw.read(count)  # the end; checks Content-Length
        except Exception as exc:
            self._raw.close()
            raise _translated(exc, self._host) from exc
        self._watch(len(data))
        return data

    def _watch(self, count: int) -> None:
        self._got += count
        passed = time.monotonic() - self._since
        if passed > self._window:
            if self._got < _SLOWEST * passed:
                self._raw.close()
                raise Interrupted(f"{self._host} sends too slowly: {self._got} bytes in {passed:.0f} s")
            self._since, self._got = time.monotonic(), 0

    def close(self) -> None:
        self._raw.close()
        self._raw.release_conn()


class HttpTransport:
    """Send requests; `environ` holds proxies and the like, `settings` say where plain HTTP is allowed."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        connect: float = CONNECT,
        read: float = READ,
        window: float = WINDOW,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._timeout = urllib3.Timeout(connect=connect, read=read)
        self._window = window
        self._pools: dict[Any, Any] = {}
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._unverified: set[tuple[str, int]] = set()
        self._homes_here = False
        self.aborted = False

    def trust(self, host: str, port: int, *, unverified: bool = False) -> None:
        """Note a registry that the user named: whether it runs on this host, and need not be verified."""
        self._homes_here = self._homes_here or proxies.is_loopback(host)
        if unverified:
            self._unverified.add((host, port))
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user said so

    def send(self, request: Request) -> Response:
        """Send one request; the response's body is read from the network as it is asked for."""
        scheme, host, port = message.origin(request.url)
        if self.aborted:
            raise Unavailable("cannot go on: it was interrupted")
        body: bytes | Reader | None = request.body() if callable(request.body) else request.body or None
        headers = {"User-Agent": _VERSION, "Accept-Encoding": "identity", **request.headers}
        if request.length > 0 or (request.length == 0 and request.method in ("POST", "PUT", "PATCH")):
            headers["Content-Length"] = str(request.length)
        pool = self._pool(scheme, host, port, request.trusted)
        try:
            raw = pool.urlopen(
                request.method,
                request.url,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                timeout=self._timeout,
            )
        except Exception as exc:
            raise _translated(exc, message.netloc((scheme, host, port))) from exc
        body_of = _Body(raw, message.netloc((scheme, host, port)), self._window)
        return Response(raw.status, dict(raw.headers.items()), request.url, body_of)

    def speaks_tls(self, host: str, port: int) -> bool:
        """Tell whether a server answers TLS at all; a certificate that is wrong is an answer."""
        import ssl

        if proxies.choose("https", host, port, self._environ):
            return self._speaks_tls_behind_a_proxy(host, port)
        quiet = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        quiet.check_hostname, quiet.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((host, port), CONNECT) as raw, quiet.wrap_socket(raw, server_hostname=host):
                return True
        except ssl.SSLError as exc:
            return exc.reason not in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING", None)
        except ConnectionResetError:
            return False
        except OSError as exc:
            if proxies.choose("http", host, port, self._environ):
                return False  # only the proxy, which is for http, can reach it
            raise _translated(exc, message.netloc(("https", host, port))) from exc

    def _speaks_tls_behind_a_proxy(self, host: str, port: int) -> bool:
        name = message.netloc(("https", host, port))
        try:
            self.send(Request("GET", f"https://{name}/v2/")).close()
        except Unavailable as exc:
            # A certificate, though not one to believe, or the wish for one of ours.
            return exc.message.startswith(("cannot trust ", "cannot speak to "))
        return True

    def abort(self) -> None:
        """Break off everything that is under way, from another thread."""
        self.aborted = True
        for sock in list(self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed meanwhile

    def close(self) -> None:
        """Close what is open."""
        for pool in self._pools.values():
            pool.clear()
        self._pools = {}

    def _pool(self, scheme: str, host: str, port: int, trusted: bool) -> Any:
        proxy = proxies.choose(scheme, host, port, self._environ)
        key = scheme, host, port, trusted, proxy
        if key not in self._pools:
            self._pools[key] = self._make_pool(scheme, host, port, None if trusted or proxy else host, proxy)
        return self._pools[key]

    def _make_pool(self, scheme: str, host: str, port: int, guarded: str | None, proxy: str) -> Any:
        sockets, own = self._sockets, self._homes_here
        guard = None if guarded is None else (guarded, own)
        extra: dict[str, Any] = {"blocksize": message.STEP, "maxsize": 8}
        if scheme == "https":
            name = f"[{host}]" if ":" in host else host
            extra["ssl_context"] = certificates.context(
                f"{name}:{port}", self._environ, unverified=(host, port) in self._unverified
            )
        if proxy:
            if not proxy.startswith(("http://", "https://")):
                raise NotSupported(f"cannot use the proxy {message.shown(proxy)}: only http and https proxies are")
            manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, proxy_headers=_proxy_login(proxy), **extra)
        else:
            manager = urllib3.PoolManager(**extra)
        pools = manager.pool_classes_by_scheme
        plain = type("Plain", (_Plain,), {"guard": guard, "open_sockets": sockets})
        secure = type("Secure", (_Secure,), {"guard": guard, "open_sockets": sockets})
        manager.pool_classes_by_scheme = {
            "http": type("Http", (pools["http"],), {"ConnectionCls": plain}),
            "https": type("Https", (pools["https"],), {"ConnectionCls": secure}),
        }
        return manager


def _proxy_login(proxy: str) -> dict[str, str] | None:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(proxy)
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    made: dict[str, str] = urllib3.make_headers(proxy_basic_auth=pair)
    return made


def _translated(exc: Exception, host: str) -> Exception:
    """Give our error for one of the network's."""
    from urllib3 import exceptions as failures

    if isinstance(exc, (Unavailable, Refused)):
        return exc
    inner: Any = getattr(exc, "reason", None) if isinstance(exc, failures.MaxRetryError) else exc
    text = _words(inner)
    if isinstance(inner, (failures.SSLError, failures.ProxyError)) and "certificate" in text.lower():
        where = f"/etc/docker/certs.d/{host}"
        if "alert" in text.lower():  # RFC 8446, section 6.2: sent by the other side about what we showed, or did not
            hint = f"put it and its key into {where}/client.cert and client.key"
            return Unavailable(f"cannot speak to {host}: it wants a client certificate that it accepts", hint)
        hint = f"put the CA that signed its certificate into {where}/ca.crt"
        mismatch = "mismatch" in text  # of names: no CA would help
        return Unavailable(f"cannot trust {host}: {text}", "" if mismatch else hint)
    unresolved = inner if isinstance(inner, OSError) else inner.__cause__
    if isinstance(unresolved, socket.gaierror):
        kind = Interrupted if unresolved.errno == socket.EAI_AGAIN else Unavailable
        return kind(f"cannot find {host}: {text}", "check its spelling, and this host's name servers")
    if isinstance(inner, failures.SSLError):
        hint = "it speaks no TLS; to allow plain HTTP name it in SAMPAN_INSECURE_REGISTRIES or registries.toml"
        plain = "WRONG_VERSION_NUMBER" in text or "wrong version number" in text
        return Unavailable(f"cannot speak TLS with {host}: {text}", hint if plain else "")
    if isinstance(inner, failures.ProxyError):
        return Interrupted(
            f"cannot reach {host} through the proxy: {text}", "HTTP_PROXY, HTTPS_PROXY and NO_PROXY say which"
        )
    if isinstance(inner, (failures.HTTPError, OSError)):
        return Interrupted(f"cannot reach {host}: {text}")
    return exc


def _words(exc: Any) -> str:
    """Say why, without the names of Python's objects."""
    from urllib3 import exceptions as failures

    if isinstance(exc, failures.ProxyError) and isinstance(exc.original_error, failures.NewConnectionError):
        return _words(exc.original_error)
    cause = exc.__cause__ or exc.__context__
    if isinstance(exc, failures.NewConnectionError) and isinstance(cause, OSError):
        return cause.strerror or str(cause)
    if isinstance(exc, (failures.ConnectTimeoutError, failures.ReadTimeoutError, TimeoutError)):
        return "it does not answer in time"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    if isinstance(exc, failures.IncompleteRead) or (exc.args and isinstance(exc.args[-1], failures.IncompleteRead)):
        return "the connection ended too early"
    text = str(exc.args[-1] if exc.args and isinstance(exc.args[-1], Exception) else exc)
    for mark in ("[SSL: ", ">: ", "CERTIFICATE_VERIFY_FAILED] "):
        text = text.partition(mark)[2] or text
    return text.partition(" (_ssl.c")[0][:300] or type(exc).__name__
