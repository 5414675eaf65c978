"""urllib3 as transport.py needs it: connections that look at their peer and can be shut down, errors in our words.

Its import takes longer than a pull that finds everything here; so it waits until something has to move.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import urllib3
from urllib3 import exceptions as failures
from urllib3._version import __version__ as urllib3_version
from urllib3.connection import HTTPConnection, HTTPSConnection

from sampan.errors import NotSupported, Unavailable
from sampan.registry import message
from sampan.registry.message import Interrupted, Refused
from sampan.registry.peers import check_peer

if TYPE_CHECKING:
    import weakref
    from typing import Any

if urllib3_version.startswith("1."):
    raise ImportError("urllib3 is too old", name=f"urllib3>=2 ({urllib3_version} is)")


class _Guarded:
    """What both kinds of connection do besides: look at the peer, and be known, so that they can be shut down."""

    guard: tuple[str, bool] | None = None
    open_sockets: weakref.WeakSet[Any] | None = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        if self.guard is not None:
            check_peer(sock, *self.guard)
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self.open_sockets is not None:
            self.open_sockets.add(self.sock)  # type: ignore[attr-defined]


class _Plain(_Guarded, HTTPConnection):
    pass


class _Secure(_Guarded, HTTPSConnection):
    pass


def timeouts(connect: float, read: float) -> urllib3.Timeout:
    """Give limits in seconds as urllib3 wants them."""
    return urllib3.Timeout(connect=connect, read=read)


def silence() -> None:
    """Warn of no certificate that is not verified: the user said so."""
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def make_pool(guard: tuple[str, bool] | None, sockets: weakref.WeakSet[Any], proxy: str, context: Any) -> Any:
    """Make the connections to one place; `guard` is the host that a peer named, and whether it may be this one."""
    extra: dict[str, Any] = {"blocksize": message.STEP, "maxsize": 8}
    if context is not None:
        extra["ssl_context"] = context
    if proxy:
        if not proxy.startswith(("http://", "https://")):
            scheme, _, place = message.shown(proxy).partition("://")
            place = place.rpartition("@")[2]  # before it stands a password
            raise NotSupported(f"cannot use the proxy {scheme}://{place}: only http and https proxies are")
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


def translated(exc: Exception, host: str) -> Exception:
    """Give our error for one of the network's."""
    if isinstance(exc, (Unavailable, Refused)):
        return exc
    inner: Any = getattr(exc, "reason", None) if isinstance(exc, failures.MaxRetryError) else exc
    text = _words(inner)
    if isinstance(inner, (failures.SSLError, failures.ProxyError)) and "certificate" in text.lower():
        where = f"{'~/.docker' if os.geteuid() else '/etc/docker'}/certs.d/{host}"
        if "alert" in text.lower():  # RFC 8446, section 6.2: sent by the other side about what we showed, or did not
            hint = f"put it and its key into {where}/client.cert and client.key"
            return Unavailable(f"cannot speak to {host}: it wants a client certificate that it accepts", hint)
        return Unavailable(f"cannot trust {host}: {text}", _trust(text, f"{where}/ca.crt"))
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


def _trust(text: str, place: str) -> str:
    """Say what would make a certificate trusted: a CA is no help against a name or a date."""
    if "mismatch" in text:
        return ""
    if "expired" in text or "not yet valid" in text:
        return "its certificate has to be renewed, or this host's clock is wrong"
    return f"put the CA that signed its certificate into {place}"


def _words(exc: Any) -> str:
    """Say why, without the names of Python's objects."""
    waited = (failures.NewConnectionError, failures.ConnectTimeoutError, failures.ReadTimeoutError, TimeoutError)
    if isinstance(exc, failures.ProxyError) and isinstance(exc.original_error, waited):
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
    text = text.partition(">: ")[2] or text
    openssl = text.partition("[SSL: ")[2]  # "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"
    text = openssl.partition("] ")[2] or openssl or text
    return text.partition(" (_ssl.c")[0][:300] or type(exc).__name__
