"""Short questions without urllib3: what a name means at a registry, and a token to ask that.

Its import takes twice as long as all the rest of a pull that has nothing to fetch.  The standard library's http.client
asks, with one connection for each place; what it cannot connect to or make sense of is left to urllib3, which has the
words for it.
"""

from __future__ import annotations

import http.client
import socket
import time
from urllib.parse import urlsplit

from sampan.registry import message
from sampan.registry.message import Interrupted, Request, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from typing import Any

    from sampan.registry.message import Origin

_MOST = 1 << 20  # bytes of an answer


class _Held:
    """A body that has arrived."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int) -> bytes:
        data, self._data = self._data[:count], self._data[count:]
        return data


class Brief:
    """Ask places; `limits` are seconds to connect, and between two arrivals of data.  `sockets` gains what is open."""

    def __init__(self, limits: tuple[float, float], sockets: weakref.WeakSet[Any]) -> None:
        self._limits = limits
        self._sockets = sockets
        self._open: dict[tuple[Origin, bool], http.client.HTTPConnection] = {}

    def ask(
        self, request: Request, where: Origin, context: Any, guard: tuple[str, bool] | None, headers: dict[str, str]
    ) -> Response | None:
        """Send a request without a body; None when urllib3 has to."""
        key = where, guard is None
        connection = self._open.pop(key, None)
        fresh = connection is None
        if connection is None:
            connection = self._connect(where, context, guard)
            if connection is None:
                return None
        try:
            answer = self._sent(connection, request, headers)
        except (http.client.HTTPException, ValueError, OSError) as exc:
            connection.close()
            if not fresh:
                return self.ask(request, where, context, guard, headers)  # the peer had closed it
            if isinstance(exc, OSError):
                why = "it does not answer in time" if isinstance(exc, TimeoutError) else exc.strerror
                raise Interrupted(f"cannot reach {message.netloc(where)}: {why or 'the connection ended'}") from exc
            return None
        if answer is None or connection.sock is None:
            connection.close()
        else:
            self._open[key] = connection
        return answer

    def _connect(
        self, where: Origin, context: Any, guard: tuple[str, bool] | None
    ) -> http.client.HTTPConnection | None:
        _, host, port = where
        try:
            name: Any = host.encode("ascii")  # as bytes: for a text Python loads the tables of IDNA, whatever it holds
            sock = socket.create_connection((name, port), self._limits[0])
        except (OSError, UnicodeEncodeError):
            return None
        try:
            sock.settimeout(self._limits[1])
            if guard is not None:
                from sampan.registry.peers import check_peer

                check_peer(sock, *guard)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=name)
        except OSError:
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise
        self._sockets.add(sock)
        made = http.client.HTTPConnection(host, port)
        made.default_port = 443 if context is not None else 80  # what the Host header leaves out
        made.sock, made.auto_open = sock, 0
        return made

    def _sent(
        self, connection: http.client.HTTPConnection, request: Request, headers: dict[str, str]
    ) -> Response | None:
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(
            request.method, target, headers={**headers, "Accept-Encoding": "identity", **request.headers}
        )
        response = connection.getresponse()
        until = time.monotonic() + self._limits[1]
        data = b""
        while piece := response.read1(1 << 16):
            data += piece
            if len(data) > _MOST or time.monotonic() > until:
                return None
        if response.length:
            raise http.client.IncompleteRead(data, response.length)
        response.close()  # which lets the connection be used again
        found: dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            found[name] = f"{found[name]}, {value}" if name in found else value
        return Response(response.status, found, request.url, _Held(data))

    def close(self) -> None:
        """Close what is open."""
        for connection in self._open.values():
            connection.close()
        self._open = {}
