"""Requests without urllib3, whose import takes as long as all the rest of a pull that fetches one small layer.

wire.py speaks on connections that are kept here; what cannot be connected to or made sense of is left to urllib3, which
has the words for it.
"""

from __future__ import annotations

import _socket
from _thread import allocate_lock

from sampan.registry import message, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.registry.message import Origin, Request
    from sampan.registry.wire import Body, Connection

    Key = tuple[Origin, tuple[str, bool] | None]
    Answer = tuple[int, dict[str, str], Body]

_MOST_IDLE = 8  # connections to one place


def connect(host: str, port: int, patience: float) -> Any:
    """Connect to a host, at the first of its addresses that answers within so many seconds; raise OSError."""
    name: Any = host.encode("ascii")  # as bytes: for a text Python loads the tables of IDNA, whatever it holds
    failure: OSError | None = None
    for family, kind, protocol, _, address in _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.settimeout(patience)
            sock.connect(address)
            # Head and body of an upload are written one after the other; the second would wait for an acknowledgement.
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            failure = failure or exc
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("it has no address")


def _is_of_tls(exc: OSError) -> bool:
    """Tell whether TLS failed, not the network below it: with TLS 1.3 a client's certificate is refused that late."""
    return type(exc).__module__ == "ssl" and not isinstance(exc, (TimeoutError, ConnectionError))


class Brief:
    """Ask places; `limits` are seconds to connect, and between two arrivals of data.  Safe for several threads."""

    def __init__(self, limits: tuple[float, float]) -> None:
        self._limits = limits
        self._idle: dict[Key, list[Connection]] = {}
        self._all: set[Connection] = set()
        self._lock = allocate_lock()

    def ask(
        self, request: Request, where: Origin, context: Any, guard: tuple[str, bool] | None, headers: dict[str, str]
    ) -> Answer | None:
        """Send a request; give status, headers and body, or None when urllib3 has to send it.

        Malformed when the answer makes no sense.
        """
        key = where, guard  # a connection has been looked at, or not
        name = message.netloc(where)
        if callable(request.body) and request.length < 0:
            headers = {**headers, "Transfer-Encoding": "chunked"}
        try:
            asked = wire.question(request.method, message.target(request.url), name, headers)
        except wire.Malformed:
            return None

        def ended(connection: Connection, reusable: bool) -> None:
            self._give_back(key, connection) if reusable else self._drop(connection)

        while True:
            connection = self._take(key, quiet=not request.is_question)
            fresh = connection is None
            connection = connection or self._connect(where, context, guard)
            if connection is None:
                return None
            try:
                sent = connection.send(asked, request.body, request.length)
                status, found, length, stays = connection.answer(request.method)
                stays = stays and sent
                return status, found, wire.Body(connection, length, stays, ended)
            except (OSError, wire.Malformed) as exc:
                self._drop(connection)
                if not fresh and request.is_question:
                    continue  # the peer had closed it
                if isinstance(exc, wire.Malformed):
                    raise
                if _is_of_tls(exc) and request.is_question:
                    return None
                raise wire.interrupted(exc, name) from exc
            except BaseException:
                self._drop(connection)
                raise

    def _take(self, key: Key, *, quiet: bool) -> Connection | None:
        """Give an idle connection; with `quiet` one that the peer has not closed, as far as one can see."""
        while True:
            with self._lock:
                idle = self._idle.get(key)
                connection = idle.pop() if idle else None
            if connection is None or not quiet or connection.is_quiet():
                return connection
            self._drop(connection)

    def _give_back(self, key: Key, connection: Connection) -> None:
        with self._lock:
            idle = self._idle.setdefault(key, [])
            if len(idle) < _MOST_IDLE and connection in self._all:
                idle.append(connection)
                return
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._all.discard(connection)
        connection.sock.close()

    def _connect(self, where: Origin, context: Any, guard: tuple[str, bool] | None) -> Connection | None:
        _, host, port = where
        try:
            sock = connect(host, port, self._limits[0])
        except (OSError, UnicodeEncodeError):
            return None
        try:
            sock.settimeout(self._limits[1])
            if guard is not None:
                from sampan.registry.peers import check_peer

                check_peer(sock, *guard)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host.encode("ascii"))
        except OSError:
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise
        made = wire.Connection(sock, message.netloc(where))
        with self._lock:
            self._all.add(made)
        return made

    def abort(self) -> None:
        """Break off everything that is under way, from another thread."""
        with self._lock:
            connections = list(self._all)
        for connection in connections:
            try:
                connection.sock.shutdown(_socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed meanwhile

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            connections, self._all, self._idle = list(self._all), set(), {}
        for connection in connections:
            connection.sock.close()
