"""HTTP/1.1 (RFC 9112) on one connection, as far as registries need it: bodies are sent and read as they come.

What is not plainly well-formed is not guessed at but Malformed: a whole library is asked instead (transport.py).
Memory is bounded: a head of 64 KiB, and of a body what has arrived.
"""

from __future__ import annotations

import time

from sampan.registry.message import STEP, Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sampan.registry.message import Reader

_MOST_HEAD = 1 << 16  # bytes, as http.client and Go's net/http have it for a line
_MOST_HEADERS = 100
_MOST_INTERIM = 10  # answers before the answer (RFC 9110, 15.2)
_PATIENCE = 60.0  # seconds for all of a head, or for a line between chunks, however little comes at a time
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110, 5.6.2
_HEX = frozenset(b"0123456789abcdefABCDEF")
_PIECE = 1 << 20
_UNTIL_CLOSED = -1
_CHUNKED = -2


class Malformed(Exception):
    """A question that cannot be put, or an answer that cannot be made sense of, this way."""


def question(method: str, target: str, host: str, headers: Mapping[str, str]) -> bytes:
    """Make the head of a request; Malformed when something in it would have to be escaped."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines)
    printable = text.replace("\r\n", "", len(lines) - 1)
    if not target.startswith("/") or " " in target or not (printable.isascii() and printable.isprintable()):
        raise Malformed("characters that HTTP has to escape")
    return (text + "\r\n\r\n").encode("ascii")


class Connection:
    """One connection that is open; `done` is told when an answer was read to its end and another may follow."""

    def __init__(self, sock: Any, name: str) -> None:
        self.sock = sock
        self.name = name
        self._held = b""
        self._until = 0.0
        self._gathers = not hasattr(sock, "do_handshake")  # ssl.SSLSocket has no sendmsg

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer, not even the end."""
        import select

        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return self.is_clean and not poll.poll(0)

    def send(self, head: bytes, body: bytes | Callable[[], Reader] = b"", length: int = 0) -> bool:
        """Send a request with its body, in chunks where its length is -1; False when the peer did not want all of it.

        Then it has answered before, or closed the connection.
        """
        try:
            if not callable(body):
                self._send([head, body])
                return True
            self._send([head])
            self._send_body(body(), length)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _send_body(self, body: Reader, length: int) -> None:
        sent = 0
        while data := body.read(_PIECE):
            sent += len(data)
            if 0 <= length < sent:
                raise OSError("there is more to send than was said")
            self._send([b"%x\r\n" % len(data), data, b"\r\n"] if length < 0 else [data])
        if length < 0:
            self._send([b"0\r\n\r\n"])
        elif sent < length:
            raise OSError("there is less to send than was said")

    def _send(self, parts: list[bytes]) -> None:
        """Send all of some pieces; the socket's patience is for each step, not for all of it."""
        if not self._gathers:
            parts = [b"".join(parts)]
        rest = [memoryview(part) for part in parts if part]
        while rest:
            count = self.sock.sendmsg(rest) if self._gathers else self.sock.send(rest[0])
            while rest and count >= len(rest[0]):
                count -= len(rest.pop(0))
            if count:
                rest[0] = rest[0][count:]

    def answer(self, method: str) -> tuple[int, dict[str, str], int, bool]:
        """Give status, headers with lower-case names, the body's length, and whether the connection stays open.

        ConnectionError when the peer has closed it without an answer, OSError, Malformed.
        """
        self.hurry()
        for _ in range(_MOST_INTERIM):
            version, status = self._status()
            headers = self._headers()
            if status >= 200 or status == 101:
                break
        if status < 200:
            raise Malformed("another protocol")
        length = _length(method, status, headers)
        wish = headers.get("connection", "").lower()
        stays = "close" not in wish if version else "keep-alive" in wish
        return status, headers, length, stays and length != _UNTIL_CLOSED

    def hurry(self) -> None:
        """Let the lines that follow come soon."""
        self._until = time.monotonic() + _PATIENCE

    def line(self) -> bytes:
        """Give the next line without its end; TimeoutError when it is late."""
        while b"\n" not in self._held:
            if len(self._held) > _MOST_HEAD:
                raise Malformed("a line without end")
            self._held += self._more()
        line, _, self._held = self._held.partition(b"\n")
        return line.removesuffix(b"\r")

    def some(self, count: int) -> bytes:
        """Give up to `count` bytes that have arrived; none when the peer has closed it."""
        if self._held:
            data, self._held = self._held[:count], self._held[count:]
            return data
        found: bytes = self.sock.recv(min(count, STEP))
        return found

    def skip(self, count: int) -> bool:
        """Drop bytes that have arrived; False when they have not."""
        if not 0 <= count <= len(self._held):
            return False
        self._held = self._held[count:]
        return True

    @property
    def is_clean(self) -> bool:
        """Whether nothing came that nobody asked for."""
        return not self._held

    def _more(self) -> bytes:
        if time.monotonic() > self._until:
            raise TimeoutError
        data: bytes = self.sock.recv(1 << 14)
        if not data:
            raise ConnectionError("the connection ended too early")
        return data

    def _status(self) -> tuple[int, int]:
        """Read `HTTP/1.1 200 OK`: the minor version, and the status."""
        line = self.line()
        code = line[9:12]
        if line[:7] != b"HTTP/1." or line[7:9] not in (b"0 ", b"1 ") or not code.isdigit() or line[12:13].strip():
            raise Malformed("no status")
        if len(code) != 3 or code < b"100":
            raise Malformed("no status")
        return int(line[7:8]), int(code)

    def _headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        size = 0
        for _ in range(_MOST_HEADERS + 1):
            line = self.line()
            size += len(line)
            if not line:
                return found
            name, colon, value = line.decode("latin-1").partition(":")
            value = value.strip(" \t")
            if not colon or not name or not _TOKEN.issuperset(name) or "\r" in value or "\0" in value:
                raise Malformed("no header")  # also one that is folded (RFC 9112, 5.2)
            if size > _MOST_HEAD:
                break
            name = name.lower()
            found[name] = f"{found[name]}, {value}" if name in found else value
        raise Malformed("too many headers")


def _length(method: str, status: int, headers: dict[str, str]) -> int:
    """Give the length of an answer's body (RFC 9112, 6.3)."""
    if method == "HEAD" or status in (204, 304):
        return 0
    coding, stated = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or stated is not None:  # both: somebody between us and the peer was fooled
            raise Malformed("a transfer coding")
        return _CHUNKED
    if stated is None:
        return _UNTIL_CLOSED
    if not (stated.isascii() and stated.isdecimal()) or len(stated) > 18:
        raise Malformed("no length")
    return int(stated)


class Body:
    """An answer's body; `ended` is called once, with whether the connection can be asked again."""

    def __init__(self, connection: Connection, length: int, stays: bool, ended: Callable[[Connection, bool], None]):
        self._connection = connection
        self._length = length  # what is still to come, of the present chunk where there are chunks
        self._chunked = length == _CHUNKED
        self._stays = stays
        self._ended: Callable[[Connection, bool], None] | None = ended
        self._first = True
        if length == 0:
            self._end(True)
        if self._chunked:
            self._length = 0

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end; Interrupted when the peer broke off."""
        if self._ended is None or not count:
            return b""
        try:
            return self._some(count)
        except (OSError, Malformed) as exc:
            self._end(False)
            raise interrupted(exc, self._connection.name) from exc

    def _some(self, count: int) -> bytes:
        if self._chunked and not self._length and not self._next_chunk():
            self._end(True)
            return b""
        data = self._connection.some(count if self._length < 0 else min(count, self._length))
        if not data:
            if self._length < 0:
                self._end(False)
                return b""
            raise ConnectionError("the connection ended too early")
        if self._length > 0:
            self._length -= len(data)
            if not self._length and not self._chunked:
                self._end(True)
        return data

    def _next_chunk(self) -> bool:
        """Begin the next chunk (RFC 9112, 7.1); False after the last one and its trailers."""
        self._connection.hurry()
        if not self._first and self._connection.line():
            raise Malformed("a chunk that is longer than it says")
        self._first = False
        size = self._connection.line().partition(b";")[0].strip(b" \t")
        if not size or len(size) > 15 or not _HEX.issuperset(size):
            raise Malformed("a chunk without a size")
        self._length = int(size, 16)
        if self._length:
            return True
        for _ in range(_MOST_HEADERS):
            if not self._connection.line():
                return False
        raise Malformed("trailers without end")

    def _end(self, whole: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self._connection, whole and self._stays and self._connection.is_clean)

    def close(self) -> None:
        """Drop what was not read, and with it the connection, unless all of it is here."""
        whole = not self._chunked and self._ended is not None and self._connection.skip(self._length)
        self._end(whole)


def interrupted(exc: Exception, name: str) -> Interrupted:
    """Give our error for a connection that broke."""
    if isinstance(exc, TimeoutError):
        return Interrupted(f"cannot reach {name}: it does not answer in time")
    why = (exc.strerror or str(exc)) if isinstance(exc, OSError) else f"it sent {exc}"
    why = why.rpartition("] ")[2].partition(" (_ssl.c")[0]  # "[SSL: BAD_RECORD_TYPE] bad record type (_ssl.c:2548)"
    return Interrupted(f"cannot reach {name}: {why or 'the connection ended'}")
