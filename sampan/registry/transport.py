"""The one seam to the network: send a request, get its response.  brief.py does that; urllib3 (pools.py) where there is
a proxy, and for what brief.py cannot make sense of.

It neither follows redirects nor tries again: those are decisions, made in client.py and retry.py.  Whatever the network
does becomes Interrupted (trying again may help) or Unavailable (it does not).

Rules: an address that a peer named (a redirect, a token server, an upload's place) is looked at once connected, before
anything is sent: link-local ones (169.254.0.0/16 holds clouds' metadata services) are refused, and this host's own
unless the registry runs on it.  A body slower than 1 KiB/s over a minute counts as broken off; a document has to come
sooner (retry.Haste).
"""

from __future__ import annotations

import _socket
import os
import time

from sampan.errors import NotSupported, Unavailable
from sampan.registry import certificates, message, proxies, wire
from sampan.registry.message import Interrupted, Request, Response
from sampan.registry.retry import SOON, Haste

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sampan.registry.brief import Brief
    from sampan.registry.message import Reader
    from sampan.registry.settings import Settings

CONNECT, READ = 15.0, 30.0  # seconds; READ is between two arrivals of data
WINDOW, _SLOWEST = 60.0, 1 << 10  # seconds, bytes a second
_VERSION = "sampan"


class _Body:
    """The body of a response that is not followed for ever when it comes too slowly."""

    def __init__(
        self, body: Reader, close: Callable[[], None], window: float, haste: Callable[[str], Haste], host: str
    ) -> None:
        self._body = body
        self.close = close
        self._window = window
        self._make_haste = haste
        self._haste: Haste | None = None
        self._host = host
        self._since = time.monotonic()
        self._got = 0

    def hurry(self, what: str) -> None:
        """Let what follows, a document, come soon."""
        self._haste = self._make_haste(what)

    def read(self, count: int) -> bytes:
        data = self._body.read(count)
        self._watch(len(data))
        return data

    def _watch(self, count: int) -> None:
        if self._haste is not None:
            self._haste.came(count)
        self._got += count
        passed = time.monotonic() - self._since
        if passed > self._window:
            if self._got < _SLOWEST * passed:
                self.close()
                raise Interrupted(f"{self._host} sends too slowly: {self._got} bytes in {passed:.0f} s")
            self._since, self._got = time.monotonic(), 0


class _Raw:
    """A body that urllib3 reads; its connection goes back to the pool when it was read to the end."""

    def __init__(self, raw: Any, host: str) -> None:
        self._raw = raw
        self._host = host

    def read(self, count: int) -> bytes:
        try:
            # read1: what has arrived, so that slowness is seen; urllib3 itself waits for all of `count`.
            data: bytes = self._raw.read1(count)
            return data or self._raw.read(count)  # the end; checks Content-Length
        except Exception as exc:
            self._raw.close()
            raise _pools().translated(exc, self._host) from exc

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
        soon: float = SOON,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._limits = connect, read
        self._window = window
        self._soon = soon
        self._pools: dict[Any, Any] = {}
        self._brief: Brief | None = None
        self._contexts: dict[tuple[str, int], Any] = {}
        self._sockets: Any = ()  # those of urllib3
        self._unverified: set[tuple[str, int]] = set()
        self._whole = False  # urllib3 is needed, and does all from then on
        self.aborted = False

    def trust(self, host: str, port: int, *, unverified: bool = False) -> None:
        """Note a registry that the user named, and whether it need not be verified."""
        if unverified:
            self._unverified.add((host, port))

    def send(self, request: Request) -> Response:
        """Send one request; the response's body is read from the network as it is asked for."""
        scheme, host, port = message.origin(request.url)
        if self.aborted:
            raise Unavailable("cannot go on: it was interrupted")
        if not self._whole:
            answer = self._briefly(request, scheme, host, port)
            if answer is not None:
                return answer
        body: bytes | Reader | None = request.body() if callable(request.body) else request.body or None
        headers = _headers(request)
        pool = self._pool(scheme, host, port, None if request.trusted else (host, request.near))
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
                timeout=_pools().timeouts(*self._limits),
            )
        except Exception as exc:
            raise _pools().translated(exc, message.netloc((scheme, host, port))) from exc
        place = message.netloc((scheme, host, port))
        return self._response(raw.status, dict(raw.headers.items()), request, _Raw(raw, place), place)

    def _response(
        self, status: int, headers: Mapping[str, str], request: Request, body: _Raw | wire.Body, place: str
    ) -> Response:
        watched = _Body(body, body.close, self._window, lambda what: self.haste(what, place), place)
        return Response(status, headers, request.url, watched)

    def haste(self, what: str, host: str) -> Haste:
        """Give what sees that a document comes soon."""
        return Haste(what, host, time.monotonic, self._soon)

    def _briefly(self, request: Request, scheme: str, host: str, port: int) -> Response | None:
        """Ask without urllib3; None when it has to be asked with it."""
        if proxies.choose(scheme, host, port, self._environ):
            return None
        if self._brief is None:
            from sampan.registry.brief import Brief

            self._brief = Brief(self._limits)
        guard = None if request.trusted else (host, request.near)
        context = self._context(host, port) if scheme == "https" else None
        try:
            found = self._brief.ask(request, (scheme, host, port), context, guard, _headers(request))
        except wire.Malformed as exc:
            self._whole = True
            if (
                not request.is_question
            ):  # what was sent may have had an effect: whoever asks looks, before it is sent again
                raise wire.interrupted(exc, message.netloc((scheme, host, port))) from exc
            return None
        if found is None:
            self._whole = True
            return None
        status, answered, body = found
        return self._response(status, answered, request, body, message.netloc((scheme, host, port)))

    def speaks_tls(self, host: str, port: int) -> bool:
        """Tell whether a server answers TLS at all; a certificate that is wrong is an answer."""
        from sampan.registry import brief, tlshello

        if proxies.choose("https", host, port, self._environ) or not host.isascii():
            return self._speaks_tls_behind_a_proxy(host, port)
        try:
            sock = brief.connect(host, port, CONNECT)
            try:
                return tlshello.answers_tls(sock, host, os.urandom(32))
            finally:
                sock.close()
        except ConnectionResetError:
            return False
        except OSError as exc:
            if proxies.choose("http", host, port, self._environ):
                return False  # only the proxy, which is for http, can reach it
            raise _pools().translated(exc, message.netloc(("https", host, port))) from exc

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
        if self._brief is not None:
            self._brief.abort()
        for sock in list(self._sockets):
            try:
                sock.shutdown(_socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed meanwhile

    def close(self) -> None:
        """Close what is open."""
        if self._brief is not None:
            self._brief.close()
        for pool in self._pools.values():
            pool.clear()
        self._pools = {}

    def _pool(self, scheme: str, host: str, port: int, guard: tuple[str, bool] | None) -> Any:
        proxy = proxies.choose(scheme, host, port, self._environ)
        key = scheme, host, port, guard, proxy
        if key not in self._pools:
            if not self._pools:
                from weakref import WeakSet

                self._sockets = WeakSet()
            if (host, port) in self._unverified:
                _pools().silence()
            context = self._context(host, port) if scheme == "https" else None
            self._pools[key] = _pools().make_pool(None if proxy else guard, self._sockets, proxy, context)
        return self._pools[key]

    def _context(self, host: str, port: int) -> Any:
        """Give the TLS settings of a place; reading the system's CAs takes a while, so once."""
        if (host, port) not in self._contexts:
            name = f"[{host}]" if ":" in host else host
            unverified = (host, port) in self._unverified
            self._contexts[host, port] = certificates.context(f"{name}:{port}", self._environ, unverified=unverified)
        return self._contexts[host, port]


def _headers(request: Request) -> dict[str, str]:
    headers = {"User-Agent": _VERSION, "Accept-Encoding": "identity", **request.headers}
    if request.length > 0 or (request.length == 0 and request.method in ("POST", "PUT", "PATCH")):
        headers["Content-Length"] = str(request.length)
    return headers


def _pools() -> Any:
    """Give pools.py, and with it urllib3."""
    try:
        from sampan.registry import pools
    except ImportError as exc:
        raise NotSupported(
            f"cannot speak to registries: the Python library {exc.name} is not installed",
            "pip install 'urllib3>=2'",
        ) from exc
    return pools
