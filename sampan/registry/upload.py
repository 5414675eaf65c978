"""Send one blob to a repository (distribution-spec, "Pushing blobs").

Small ones go in one PUT, larger ones in a PATCH that can be gone on with: after a failure the registry is asked how
much it has.  A blob whose size nobody knows yet (compressed on the way) is sent in chunks (RFC 9112, 7.1) and begun
anew after a failure.  Where the registry says that the upload goes on (Location) is followed under client.py's rules.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, SampanError
from sampan.oci import digest as digests
from sampan.registry import message
from sampan.registry.message import Interrupted, Refused, Request
from sampan.registry.retry import is_passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sampan.registry.client import Repository
    from sampan.registry.message import Response

    class Content(Protocol):
        """A blob that is being sent: read to its end it knows its digest and size."""

        def read(self, count: int, /) -> bytes: ...
        def close(self) -> None: ...
        def described(self) -> tuple[str, int]: ...

    Open = Callable[[int], Content]  # from an offset

MONOLITHIC = 1 << 20  # up to this size one request is better than three
_OCTETS = {"Content-Type": "application/octet-stream"}
_MAX_REDIRECTS = 5


class Uploader:
    """Send one blob; `open_at(offset)` opens it, `size` is -1 when it is not known yet."""

    def __init__(self, repository: Repository, open_at: Open, size: int) -> None:
        self._repository = repository
        self._registry = repository.registry
        self._open = open_at
        self._size = size
        self._what = f"push to {repository}"
        self._scopes = list(repository.push_scope)
        self._contents: list[Content] = []
        self._patience = self._registry.patience()
        self._best = 0

    def mount(self, digest: str, other: str) -> str:
        """Ask the registry to take the blob from another of its repositories; "" when it did.

        Else the place of an upload that it began instead.
        """
        from urllib.parse import quote

        query = f"?mount={quote(digest)}&from={quote(other, safe='')}"
        scopes = [*self._scopes, f"repository:{other}:pull"]
        with self._registry.send(Request("POST", self._repository.url("blobs/uploads/") + query), scopes) as response:
            if response.status == 201:
                return ""
            if response.status == 202:
                return self._location(response, response.url)
        return self._begin()

    def send(self, place: str = "") -> tuple[str, int]:
        """Send it, to the place of an upload that was begun already or to a new one; give digest and size."""
        if 0 <= self._size <= MONOLITHIC:
            return self._monolithic(place)
        place, at = place or self._begin(), 0
        while True:
            try:
                place = self._patch(place, at)
                return self._finish(place)
            except Interrupted as exc:
                self._patience.after(exc)
            place, at = self._resume(place)

    # ---- steps ----

    def _begin(self) -> str:
        url = self._repository.url("blobs/uploads/")
        with self._registry.send(Request("POST", url), self._scopes) as response:
            if response.status != 202:
                raise self._registry.failure(response, self._what)
            return self._location(response, url)

    def _monolithic(self, place: str) -> tuple[str, int]:
        content = self._open(0)
        try:
            chunks = []
            while data := content.read(message.STEP):
                chunks.append(data)
            digest, size = content.described()
        finally:
            content.close()
        body = b"".join(chunks)
        if len(body) != size or digests.of(body) != digest:
            raise IntegrityError(f"cannot {self._what}: the content of {digest} is damaged here")
        while True:
            place = place or self._begin()
            try:
                with self._request("PUT", _with_digest(place, digest), _OCTETS, body) as response:
                    if response.status in (200, 201, 204):
                        return digest, size
                    if not is_passing(response.status):
                        raise self._registry.failure(response, self._what)
                    raise Interrupted(
                        f"{self._registry.host} answered {response.status}", retry_after=response.header("retry-after")
                    )
            except Interrupted as exc:
                self._patience.after(exc)
                place = ""

    def _patch(self, place: str, at: int) -> str:
        """Send everything from an offset."""
        headers = dict(_OCTETS)
        length = self._size - at if self._size >= 0 else -1
        if at:
            headers["Content-Range"] = f"{at}-{self._size - 1}"
        if at == self._size:
            return place
        try:
            with self._request("PATCH", place, headers, lambda: self._opened(at), length) as response:
                if response.status in (202, 204, 201):
                    return self._location(response, place)
                if response.status in (404, 416) or is_passing(response.status):
                    raise Interrupted(
                        f"{self._registry.host} answered {response.status} to an upload",
                        retry_after=response.header("retry-after"),
                    )
                raise self._registry.failure(response, self._what)
        finally:
            for content in self._contents:
                content.close()

    def _opened(self, at: int) -> Content:
        """Open the content once more: it is sent again after a 401."""
        content = self._open(at)
        self._contents.append(content)
        return content

    def _finish(self, place: str) -> tuple[str, int]:
        digest, size = self._contents[-1].described()
        with self._request("PUT", _with_digest(place, digest), _OCTETS, b"") as response:
            if response.status in (200, 201, 204):
                return digest, size
            if response.status in (404, 416) or is_passing(response.status):
                raise Interrupted(
                    f"{self._registry.host} answered {response.status} to the end of an upload",
                    retry_after=response.header("retry-after"),
                )
            raise self._registry.failure(response, self._what)

    def _resume(self, place: str) -> tuple[str, int]:
        """Ask how much of an upload has arrived; begin another one when it is not known."""
        if self._size >= 0:
            try:
                with self._request("GET", place, {}, b"") as response:
                    got = _received(response.header("range"))
                    if response.status in (204, 202, 200) and 0 < got <= self._size and self._contents:
                        if got > self._best:
                            self._best = got
                            self._patience.reset()
                        return self._location(response, place), got
            except Refused:
                raise
            except SampanError:
                return self._begin(), 0  # what cannot be asked about begins anew, and counts as an attempt
        return self._begin(), 0

    # ---- requests ----

    def _request(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Callable[[], Content], length: int = -1
    ) -> Response:
        size = len(body) if isinstance(body, bytes) else length
        trusted = message.origin(url) == message.origin(self._registry.base)
        request = Request(method, url, headers, body, size, trusted=trusted, near=self._registry.near)
        for _ in range(_MAX_REDIRECTS):
            response = self._registry.once(request, self._scopes)
            if response.status not in (307, 308):
                return response
            response.close()
            request = self._registry.follow(request, response.header("location"))
        raise Refused(f"cannot {self._what}: the upload was redirected more than {_MAX_REDIRECTS} times")

    def _location(self, response: Response, base: str) -> str:
        location = response.header("location")
        if not location:
            if response.status == 202 and "uploads/" in base.rstrip("/") and not base.rstrip("/").endswith("uploads"):
                return base  # an upload stays where it was
            raise IntegrityError(f"cannot {self._what}: {self._registry.host} does not say where to")
        return self._registry.follow(Request("PATCH", base), location).url


def _with_digest(place: str, digest: str) -> str:
    return f"{place}{'&' if '?' in place else '?'}digest={digest}"


def _received(text: str) -> int:
    """Read `0-999` (distribution-spec, "Pushing a blob in chunks"): how many bytes are there; 0 when it is not said."""
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if first != "0" or not dash or not last.isdecimal() or len(last) > 18:
        return 0
    return int(last) + 1 if int(last) > 0 else 0
