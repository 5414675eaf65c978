"""A blob's bytes as one stream, whatever happens to the connections below it.

A connection that breaks is replaced by another that goes on where it ended (RFC 9110, 14.2: Range).  A server that
ignores Range is read from the start again and what is known is skipped; one that refuses it (400 or 416 of a content
network) is asked without.  Each time the registry itself is asked, so signed addresses and tokens are fresh.

Never more than the promised size is read.  The digest is for the reader to check: the bytes may go anywhere.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, NotFound, SampanError
from sampan.registry.message import STEP, Interrupted
from sampan.registry.retry import is_passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.registry.client import Repository
    from sampan.registry.message import Response


class BlobStream:
    """Read one blob of `size` bytes from `offset`; `repositories` are tried in turn.

    `received` is told how many bytes came from the network.
    """

    def __init__(
        self,
        repositories: Sequence[Repository],
        digest: str,
        size: int,
        offset: int = 0,
        received: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.digest = digest
        self.size = size
        self.at = offset
        self._places = list(repositories)
        self._received = received
        self._response: Response | None = None
        self._ranged = True
        self._patience = self._places[0].registry.patience()
        self._moved = 0
        # So much counts as progress, after which attempts are counted anew: a peer that sends a byte each time is not
        # followed for ever.
        self._step = max(1, min(STEP, size // 32))

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        while self.at < self.size:
            try:
                response = self._response or self._open()
                data = response.read(min(count, self.size - self.at))
                if not data:
                    raise Interrupted(f"{self._places[0].registry.host} ended blob {self.digest} too early")
            except Interrupted as exc:
                self.close()
                self._patience.after(exc)
                continue
            self._response = response
            self._advance(len(data))
            return data
        self.close()
        return b""

    def _advance(self, count: int) -> None:
        self.at += count
        self._received(count)
        self._moved += count
        if self._moved >= self._step:
            self._moved = 0
            self._patience.reset()

    def close(self) -> None:
        """Drop the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _open(self) -> Response:
        """Begin a connection at the current offset."""
        while True:
            repository = self._places[0]
            try:
                response = repository.get_blob(self.digest, self.at, ranged=self._ranged)
                if response.status in (200, 206):
                    return self._begun(response)
                if is_passing(response.status) and self._patience.answer(response):
                    continue
                if self.at and self._ranged and response.status in (400, 416):
                    self._ranged = False
                    response.close()
                    continue
                raise repository.registry.failure(response, f"{repository.verb} blob {self.digest} of {repository}")
            except (NotFound, SampanError) as exc:
                if isinstance(exc, (Interrupted, IntegrityError)) or len(self._places) < 2:
                    raise
                del self._places[0]

    def _begun(self, response: Response) -> Response:
        """Bring a new response to the current offset, and check what it says of the size."""
        if response.status == 206:
            start, total = _content_range(response.header("content-range"))
            if start != self.at or total not in (-1, self.size):
                response.close()
                raise IntegrityError(self._lie(f"the range {response.header('content-range')[:100]!r} for {self.at}-"))
            return response
        length = response.header("content-length")
        if length and length != str(self.size):
            response.close()
            raise IntegrityError(self._lie(f"{length[:40]} bytes"))
        skip = self.at
        while skip:
            data = response.read(min(STEP, skip))
            if not data:
                response.close()
                raise Interrupted(f"{self._places[0].registry.host} ended blob {self.digest} too early")
            skip -= len(data)
        return response

    def _lie(self, what: str) -> str:
        host = self._places[0].registry.host
        return f"cannot {self._places[0].verb} blob {self.digest}: its size is {self.size}, and {host} sends {what}"


def _content_range(text: str) -> tuple[int, int]:
    """Read `bytes 100-999/1000` (RFC 9110, 14.4): the first offset and the size, -1 for what is not said."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or len(first) > 18:
        return -1, -1
    return int(first), int(total) if total.isdecimal() and len(total) <= 18 else -1
