"""What goes to a registry and what comes back: plain values, no network.

A request's body can be read again: authentication and retries send a request more than once.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, InvalidArgument, SampanError, Unavailable
from sampan.oci import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Protocol

    class Reader(Protocol):
        """Something to read bytes from; none means the end."""

        def read(self, count: int, /) -> bytes: ...

    Origin = tuple[str, str, int]

_PORTS = {"http": 80, "https": 443}
_PLAIN_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
STEP = 1 << 18


class Interrupted(Unavailable):
    """The network failed in a way that trying again may mend, `retry_after` what the peer said (RFC 9110, 10.2.3)."""

    def __init__(self, message: str, hint: str = "", *, retry_after: str = "") -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class Refused(SampanError):
    """An address that must not be asked: the reason is in the message, and trying again does not help."""

    http_status = 403


class Request:
    """One request: `body` is bytes, or a function that opens a reader of `length` bytes (-1: nobody knows)."""

    __slots__ = ("body", "headers", "is_question", "length", "method", "near", "trusted", "url")

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Callable[[], Reader] = b"",
        length: int = -1,
        *,
        trusted: bool = True,
        near: bool = False,
    ) -> None:
        self.method = method
        self.url = url
        self.headers = dict(headers or {})
        self.body = body
        self.length = len(body) if isinstance(body, bytes) else length
        self.is_question = method in ("GET", "HEAD")  # which may be sent twice (RFC 9110, 9.2.2)
        self.trusted = trusted  # the user named this address, a peer did not
        self.near = near  # that peer is on this host, and so may others be that it names

    def with_headers(self, **more: str) -> Request:
        """Give the same request with more headers; underscores in their names mean hyphens."""
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        return Request(self.method, self.url, headers, self.body, self.length, trusted=self.trusted, near=self.near)


class Response:
    """One response: `headers` have lower-case names; close it, or use it as a context manager."""

    def __init__(self, status: int, headers: Mapping[str, str], url: str, body: Reader | None = None) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.url = url
        self._body = body

    def header(self, name: str) -> str:
        """Give a header by its lower-case name, or ""."""
        return self.headers.get(name, "")

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end; Interrupted when the peer broke off."""
        return self._body.read(count) if self._body is not None else b""

    def document(self, limit: int, what: str) -> bytes:
        """Give the whole body, of at most `limit` bytes, which has to come soon; Unavailable when it does not."""
        hurry = getattr(self._body, "hurry", None)
        if hurry is not None:
            hurry(what)
        chunks, size = [], 0
        while data := self.read(min(STEP, limit + 1 - size)):
            chunks.append(data)
            size += len(data)
            if size > limit:
                raise IntegrityError(f"cannot read {what}: it is longer than {limit} bytes")
        return b"".join(chunks)

    def json(self, limit: int, what: str) -> Any:
        """Give the value of a JSON body; one that breaks off is Interrupted, as every other."""
        data = self.document(limit, what)
        try:
            return jsontext.loads(data, what)
        except InvalidArgument as exc:
            raise IntegrityError(exc.message) from exc

    def close(self) -> None:
        """Drop what was not read."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def origin(url: str) -> Origin:
    """Give scheme, host and port of a URL; Refused when it is no http or https URL."""
    found = _plain_origin(url)
    if found is not None:
        return found
    from urllib.parse import urlsplit

    try:
        if not _is_visible(url):  # urlsplit drops line ends and tabs, and so asks another host than is written
            raise ValueError
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower(), parts.port
    except ValueError as exc:
        raise Refused(f"cannot follow {url[:200]!r}: it is no valid URL") from exc
    if not all(letter.isalnum() or letter in "-._:%" for letter in host):  # `\\` ends a host for other parsers
        raise Refused(f"cannot follow {url[:200]!r}: it is no valid URL")
    if scheme not in _PORTS or not host:
        raise Refused(f"cannot follow {url[:200]!r}: only http and https are asked")
    if parts.username is not None:
        raise Refused(f"cannot follow a URL of {host} that brings a user name with it")
    return scheme, host, _PORTS[scheme] if port is None else port


def _plain_origin(url: str) -> Origin | None:
    """Give the origin of a URL that holds nothing odd, None for one that a whole parser has to look at.

    That one takes longer to load than the requests of a pull take to send.
    """
    scheme, separator, rest = url.partition("://")
    place = rest.partition("/")[0]
    host, colon, port = place.partition(":")
    if not separator or scheme not in _PORTS or not host or not _PLAIN_HOST.issuperset(host):
        return None
    if not colon:
        return scheme, host.lower(), _PORTS[scheme]
    if not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        return None
    return scheme, host.lower(), int(port)


def target(url: str) -> str:
    """Give what a request asks its server for (RFC 9112, 3.2.1): the path and the query."""
    path, question, query = url.partition("#")[0].partition("://")[2].partition("?")
    return "/" + path.partition("/")[2] + question + query


def netloc(where: Origin) -> str:
    """Give an origin as a user writes it: the host, with its port when it is not the usual one."""
    scheme, host, port = where
    name = f"[{host}]" if ":" in host else host
    return name if port == _PORTS[scheme] else f"{name}:{port}"


def join(base: str, location: str) -> str:
    """Give the absolute URL of a Location header (RFC 9110, 10.2.2)."""
    from urllib.parse import urljoin

    if not _is_visible(location):
        raise Refused(f"cannot follow {location[:200]!r}: it is no valid URL")
    try:
        return urljoin(base, location)
    except ValueError as exc:
        raise Refused(f"cannot follow {location[:200]!r}: it is no valid URL") from exc


def _is_visible(text: str) -> bool:
    return not any(ord(character) <= 32 or ord(character) == 127 for character in text)


def shown(url: str) -> str:
    """Give a URL without its query, which may hold signatures."""
    return url.partition("?")[0]
