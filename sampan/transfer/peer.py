"""Two sampans over a pipe: the frames that they exchange, and both ends of a copy for the one that asks.

A message is a JSON object on a line of its own; one with `body` true is followed by chunks (u32 length, little-endian,
then so many bytes; a chunk of length 0 ends it). Requests are answered in order. What comes from the other side is
believed as little as a registry's word: documents are bounded, and every byte is verified by its digest.

    look     {parts: [{descriptor, diff_id}]}    -> {here: [bool]}
    picture  {name}                              -> {digest, media_type, config} + the manifest
    open     {digest, offset}                    -> {} + the blob from there
    put      {descriptor, diff_id} + the blob    -> {}
    finish   {digest, media_type, names} + the manifest -> {replaced: {name: id}}
"""

from __future__ import annotations

import os

from sampan import errors
from sampan.errors import IntegrityError, SampanError, Unavailable
from sampan.oci import digest as digests
from sampan.oci import image, jsontext
from sampan.transfer import events
from sampan.transfer.copy import Part, Picture, of_manifest
from sampan.transfer.events import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from sampan.transfer.copy import Source, Stream
    from sampan.transfer.events import Listen

VERSION = 1
STEP = 1 << 18
_MAX_LINE = 8 << 20
_KINDS = (
    *("InvalidArgument", "Unauthorized", "Denied", "NotFound", "Conflict", "NotSupported", "Unavailable"),
    "IntegrityError",
)


class Pipe:
    """A pair of descriptors with messages in both directions."""

    def __init__(self, read_fd: int, write_fd: int, what: str) -> None:
        self._read = os.fdopen(read_fd, "rb", buffering=STEP, closefd=False)
        self._write_fd = write_fd
        self.what = what

    def receive(self) -> dict[str, Any]:
        """Read one message; Unavailable when the other side is gone."""
        line = self._read.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise Unavailable(f"{self.what} ended the connection")
        value = jsontext.loads(line, f"the answer of {self.what}")
        if not isinstance(value, dict):
            raise IntegrityError(f"{self.what} answers something else than sampan does")
        if "error" in value:
            kind = str(value["error"])
            made: SampanError = getattr(errors, kind if kind in _KINDS else "Unavailable")(
                f"{self.what}: {str(value.get('message'))[:2000]}", str(value.get("hint") or "")[:2000]
            )
            raise made
        return value

    def send(self, message: dict[str, Any], body: Iterable[bytes] | None = None) -> None:
        """Write one message, and what belongs to it."""
        self._put(jsontext.dumps({**message, "body": True} if body is not None else message) + b"\n")
        if body is None:
            return
        for piece in body:
            if piece:
                self._put(len(piece).to_bytes(4, "little") + piece)
        self._put(bytes(4))

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._write_fd, view) :]
        except OSError as exc:
            raise Unavailable(f"{self.what} ended the connection: {exc.strerror}") from exc

    def body(self) -> Body:
        """Give what follows the last message."""
        return Body(self._read.read, self.what)

    def document(self, body: Body | None = None) -> bytes:
        """Read a small body whole."""
        body, parts, size = body or self.body(), [], 0
        while data := body.read(STEP):
            parts.append(data)
            size += len(data)
            if size > image.MAX_DOCUMENT:
                raise IntegrityError(f"{self.what} sends a document of more than {image.MAX_DOCUMENT} bytes")
        return b"".join(parts)


class Body:
    """The chunks behind a message, as a stream; `drain` it before the next message is read."""

    def __init__(self, take: Callable[[int], bytes], what: str) -> None:
        self._take = take
        self._what = what
        self._left = 0
        self._ended = False

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        if not self._left and not self._ended:
            self._left = int.from_bytes(self._exactly(4), "little")
            self._ended = not self._left
        if self._ended:
            return b""
        data = self._exactly(min(count, self._left))
        self._left -= len(data)
        return data

    def _exactly(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) != count:
            raise Unavailable(f"{self._what} ended the connection in the middle")
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read(STEP):
            pass

    def close(self) -> None:
        """Read what is left: the next answer stands behind it."""
        self.drain()


def pieces(read: Callable[[int], bytes]) -> Iterable[bytes]:
    """Give a stream in pieces."""
    while data := read(STEP):
        yield data


class PeerSource:
    """An image of another host's store."""

    def __init__(self, pipe: Pipe, name: str) -> None:
        self._pipe = pipe
        self._name = name

    def picture(self) -> Picture:
        """Ask for the image's documents, and verify them."""
        self._pipe.send({"do": "picture", "name": self._name})
        answer = self._pipe.receive()
        data = self._pipe.document()
        digest = digests.of(data)
        document = image.parse_manifest(data)
        is_image = document["config"]["mediaType"] in image.CONFIGS
        config = self._config(document["config"]["digest"]) if is_image else None
        if digest != answer.get("digest") or (
            config is not None and digests.of(config) != document["config"]["digest"]
        ):
            raise IntegrityError(f"{self._pipe.what} sends documents with another digest")
        return of_manifest(data, document["mediaType"], digest, document, config, f"{self._name} of {self._pipe.what}")

    def _config(self, digest: str) -> bytes:
        self._pipe.send({"do": "open", "digest": digest, "offset": 0})
        self._pipe.receive()
        return self._pipe.document()

    def open(self, part: Part, offset: int, received: Callable[[int], None]) -> Stream:
        """Ask for a blob."""
        self._pipe.send({"do": "open", "digest": part.digest, "offset": offset})
        self._pipe.receive()
        return _Received(self._pipe.body(), received)

    def known(self, part: Part) -> dict[str, Any] | None:
        """Every part leaves as it lies there."""
        return part.descriptor

    def elsewhere(self, part: Part, domain: str, path: str) -> str:
        """What another host knows of registries is its own."""
        return ""


class _Received:
    def __init__(self, body: Body, received: Callable[[int], None]) -> None:
        self._body = body
        self._received = received

    def read(self, count: int) -> bytes:
        data = self._body.read(count)
        self._received(len(data))
        return data

    def close(self) -> None:
        self._body.drain()


class PeerDestination:
    """Another host's store; `names` are what the image is called there."""

    def __init__(self, pipe: Pipe, names: Sequence[str], listen: Listen = events.ignore) -> None:
        self._pipe = pipe
        self._names = list(names)
        self._listen = listen
        self.replaced: dict[str, str] = {}

    def take(self, source: Source, part: Part) -> dict[str, Any]:
        """Send one part, unless it is there."""
        known = source.known(part) or part.descriptor
        wanted = {"descriptor": known, "diff_id": part.diff_id}
        self._pipe.send({"do": "look", "parts": [wanted]})
        if self._pipe.receive().get("here") == [True]:
            self._listen(Event(events.EXISTS, part.short, part.size, part.size))
            return known
        self._listen(Event(events.BEGIN, part.short, 0, part.size))
        moved = [0]

        def received(count: int) -> None:
            moved[0] += count
            self._listen(Event(events.MOVING, part.short, moved[0], part.size))

        stream = source.open(part, 0, received)
        try:
            self._pipe.send({"do": "put", **wanted}, pieces(stream.read))
        finally:
            stream.close()
        self._pipe.receive()
        self._listen(Event(events.DONE, part.short, part.size, part.size))
        return known

    def finish(self, picture: Picture) -> None:
        """Name the image there."""
        if picture.below:
            raise errors.InvalidArgument("cannot copy an image for several platforms to a store: choose one")
        message = {"do": "finish", "digest": picture.digest, "media_type": picture.media_type, "names": self._names}
        self._pipe.send(message, [picture.data])
        replaced = self._pipe.receive().get("replaced")
        self.replaced = replaced if isinstance(replaced, dict) else {}
