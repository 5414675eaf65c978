"""The side of transfer/peer.py that answers: one store, served over a pair of descriptors until they are closed."""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, SampanError, Unavailable
from sampan.oci import digest as digests
from sampan.oci import image, reference
from sampan.store.leases import Leases
from sampan.transfer.copy import Part, of_manifest
from sampan.transfer.peer import STEP, VERSION, Body, Pipe, pieces
from sampan.transfer.pull import StoreDestination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.compile import Facts
    from sampan.store.leases import Lease
    from sampan.store.parts import Store
    from sampan.transfer.copy import Picture, Stream


def serve(store: Store, facts: Callable[[], Facts], read_fd: int, write_fd: int) -> None:
    """Answer requests until the other side closes; its faults are told to it and end nothing else."""
    pipe = Pipe(read_fd, write_fd, "the other side")
    pipe.send({"sampan": VERSION})
    with Leases(store.db).take("copy") as lease:
        server = _Server(store, facts, pipe, lease)
        while server.answer():
            pass


class _Server:
    def __init__(self, store: Store, facts: Callable[[], Facts], pipe: Pipe, lease: Lease) -> None:
        self._store = store
        self._pipe = pipe
        self._lease = lease
        self._names: list[str] = []
        self._destination = StoreDestination(store, facts, lease, lambda picture: self._names)
        self._body: Body | None = None
        self._verbs: dict[str, Callable[[dict[str, Any]], None]] = {
            "look": self._look,
            "picture": self._picture,
            "open": self._open,
            "put": self._put,
            "finish": self._finish,
        }

    def answer(self) -> bool:
        """Answer one request; False at the end."""
        try:
            request = self._pipe.receive()
        except Unavailable:
            return False
        self._body = self._pipe.body() if request.get("body") else None
        try:
            verb = self._verbs.get(str(request.get("do")))
            if verb is None:
                raise InvalidArgument(f"there is no request {request.get('do')!r}")
            verb(request)
        except (KeyError, TypeError, ValueError) as exc:
            self._refuse(InvalidArgument(f"the request is not as it should be: {exc!r}"))
        except SampanError as exc:
            self._refuse(exc)
        return True

    def _refuse(self, exc: SampanError) -> None:
        if self._body is not None:
            self._body.drain()
        self._pipe.send({"error": type(exc).__name__, "message": exc.message, "hint": exc.hint})

    def _look(self, request: dict[str, Any]) -> None:
        parts = [_part(one) for one in request["parts"]]
        for part in parts:
            self._lease.hold(part.digest, *([part.diff_id] if part.diff_id else []))  # before looking
        self._pipe.send({"here": [self._destination.is_here(part) for part in parts]})

    def _picture(self, request: dict[str, Any]) -> None:
        found = self._store.images.claim(str(request["name"]), self._lease)
        self._pipe.send({"digest": found.manifest_digest}, [self._store.content.read(found.manifest_digest)])

    def _open(self, request: dict[str, Any]) -> None:
        fd = self._store.content.open(digests.validate(str(request["digest"])))
        try:
            offset = int(request["offset"])
            if not 0 <= offset <= os.fstat(fd).st_size:
                raise InvalidArgument(f"there is no offset {str(offset)[:40]} in {request['digest']}")
            os.lseek(fd, offset, os.SEEK_SET)
            self._pipe.send({}, pieces(lambda count: os.read(fd, count)))
        finally:
            os.close(fd)

    def _put(self, request: dict[str, Any]) -> None:
        if self._body is None:
            raise InvalidArgument("there is nothing to put")
        self._destination.take(_Sent(self._body), _part(request))
        self._body.drain()
        self._pipe.send({})

    def _finish(self, request: dict[str, Any]) -> None:
        if self._body is None:
            raise InvalidArgument("there is no manifest")
        data = self._pipe.document(self._body)
        document = image.parse_manifest(data)
        described = document["config"]
        is_image = described["mediaType"] in image.CONFIGS
        config = self._store.content.read(described["digest"]) if is_image else None
        picture = of_manifest(data, document["mediaType"], str(request["digest"]), document, config, "the image")
        self._names = [str(reference.parse(str(name))) for name in request["names"]]
        self._destination.finish(picture)
        self._pipe.send({"replaced": self._destination.replaced})


def _part(value: dict[str, Any]) -> Part:
    descriptor = image.check_descriptor(value["descriptor"], "the request")
    diff_id = str(value.get("diff_id") or "")
    return Part(descriptor, digests.validate(diff_id) if diff_id else "")


class _Sent:
    """What the other side is sending, as a source."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def picture(self) -> Picture:
        raise NotImplementedError

    def open(self, part: Part, offset: int, received: Callable[[int], None]) -> Stream:
        while offset > 0:
            data = self._body.read(min(offset, STEP))
            if not data:
                break
            offset -= len(data)
        return self._body

    def known(self, part: Part) -> dict[str, Any] | None:
        return part.descriptor

    def elsewhere(self, part: Part, domain: str, path: str) -> str:
        return ""
