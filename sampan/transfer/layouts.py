"""OCI image layouts as the ends of a copy: a directory to write to, a directory or an archive to read from.

A layout's index.json gains the image under its name at the very end, by a rename; whatever other images the directory
has stay (layoutdir.py).
"""

from __future__ import annotations

import os
import threading
import weakref

from sampan.errors import InvalidArgument, NotFound, NotSupported
from sampan.oci import digest as digests
from sampan.oci import image, reference
from sampan.store import files, unnamed, wholefile
from sampan.transfer import events, layout
from sampan.transfer.copy import Part, Picture, of_manifest
from sampan.transfer.events import Event
from sampan.transfer.layoutdir import STEP, LayoutDirectory, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.transfer.archive import Archive
    from sampan.transfer.archive import Part as Member
    from sampan.transfer.copy import Source, Stream
    from sampan.transfer.events import Listen
    from sampan.transfer.found import Found


class LayoutSource:
    """An image in a layout: `name` chooses, "" the only one that refers to no other."""

    def __init__(self, archive: Archive, name: str = "") -> None:
        if not layout.is_layout(archive):
            raise NotSupported(f"cannot copy from {archive.what}: it is no OCI image layout", "`sampan load` it first")
        images = layout.find(archive)
        self._set(archive, images, _choose(images, name, archive))

    def _set(self, archive: Archive, images: list[Found], chosen: Found) -> None:
        self._archive = archive
        self._images = images
        self._found = chosen
        self.names = chosen.names

    def picture(self) -> Picture:
        """Give the image's documents, which were verified when they were read."""
        document = image.parse_manifest(self._found.manifest)
        digest = digests.of(self._found.manifest)
        kind = document["mediaType"]
        config = None if self._found.blobs else self._found.config
        return of_manifest(self._found.manifest, kind, digest, document, config, self._archive.what)

    def open(self, part: Part, offset: int, received: Callable[[int], None]) -> Stream:
        """Open a part's blob."""
        return _Opened(self._archive.open(layout.blob_name(part.digest)), offset, received)

    def known(self, part: Part) -> dict[str, Any] | None:
        """Every part leaves as it lies."""
        return part.descriptor

    def elsewhere(self, part: Part, domain: str, path: str) -> str:
        """A layout knows nothing of registries."""
        return ""

    def referrers(self, digest: str) -> Iterator[LayoutSource]:
        """Give a source for each manifest of the layout that has a digest as its subject."""
        for one in self._images:
            if _subject(one) == digest:
                made = LayoutSource.__new__(LayoutSource)
                made._set(self._archive, self._images, one)
                yield made


def _subject(found: Found) -> str:
    if not found.manifest:
        return ""
    subject = image.parse(found.manifest).get("subject")
    return str(subject["digest"]) if subject else ""


def _choose(images: list[Found], name: str, archive: Archive) -> Found:
    what = archive.what
    if name:
        full = str(reference.parse(name))
        chosen = [one for one in images if full in one.names] or _annotated(images, name, archive)
    else:
        chosen = [one for one in images if not _subject(one)] or images
    if len(chosen) == 1:
        return chosen[0]
    listed = (
        ", ".join(reference.parse(text).familiar() for one in images for text in one.names) or "images without name"
    )
    if not chosen:
        raise NotFound(f"cannot copy {name} from {what}: there is no such image", f"it has {listed}")
    raise InvalidArgument(f"cannot copy from {what}: it has several images", f"name one of {listed}")


def _annotated(images: list[Found], name: str, archive: Archive) -> list[Found]:
    """Find an image by the bare name that index.json gives it, as skopeo does: a tag without a repository."""
    entries = image.parse_index(archive.read(layout.INDEX, image.MAX_DOCUMENT), image.OCI_INDEX)["manifests"]
    wanted = layout.FULL_NAME, str(reference.parse(name))
    named = {
        entry["digest"]
        for entry in entries
        if (notes := entry.get("annotations") or {}).get(image.REF_NAME) == name or notes.get(wanted[0]) == wanted[1]
    }
    return [one for one in images if digests.of(one.manifest) in named]


class _Opened:
    """A member of a layout, from an offset."""

    def __init__(self, member: Member, offset: int, received: Callable[[int], None]) -> None:
        self._member = member
        self._received = received
        while offset > 0:
            skipped = member.read(min(offset, STEP))
            if not skipped:
                break
            received(len(skipped))
            offset -= len(skipped)

    def read(self, count: int) -> bytes:
        data = self._member.read(count)
        self._received(len(data))
        return data

    def close(self) -> None:
        self._member.__exit__(None, None, None)


class Taker:
    """Take the blobs of an image; what a class of it does with them is `_size` and `_write`."""

    def __init__(self, listen: Listen) -> None:
        self._listen = listen

    def _has(self, digest: str, size: int) -> bool:
        """Tell whether a blob is there, whole."""
        raise NotImplementedError

    def _write(self, digest: str, read: Callable[[int], bytes]) -> None:
        """Keep one blob."""
        raise NotImplementedError

    def take(self, source: Source, part: Part) -> dict[str, Any]:
        """Write one blob, unless it is there."""
        known = source.known(part)
        if known is None:
            raise NotSupported("cannot write a layer whose digest shows at its end only")
        if self._has(known["digest"], known["size"]):
            self._listen(Event(events.EXISTS, part.short, part.size, part.size))
            return known
        self._listen(Event(events.BEGIN, part.short, 0, part.size))
        moved = [0]

        def received(count: int) -> None:
            moved[0] += count
            self._listen(Event(events.MOVING, part.short, moved[0], known["size"]))

        stream = source.open(part, 0, received)
        try:
            self._write(known["digest"], stream.read)
        finally:
            stream.close()
        self._listen(Event(events.DONE, part.short, part.size, part.size))
        return known

    def _document(self, picture: Picture) -> None:
        if not self._has(picture.digest, len(picture.data)):
            pieces = iter((picture.data, b""))
            self._write(picture.digest, lambda count: next(pieces))


class LayoutDestination(Taker):
    """A directory that is, or becomes, a layout; the image gets `name` there, and `ref_name`, as skopeo looks for it.

    `settle` is for the end of the copy, as a context manager's `__exit__`.
    """

    def __init__(self, directory: str, name: str, listen: Listen = events.ignore, ref_name: str = "") -> None:
        super().__init__(listen)
        self._name = name
        self._ref_name = ref_name
        self._directory = LayoutDirectory(directory)
        self._is_made = False
        self._lock = threading.Lock()

    def settle(self, kind: object, exc: BaseException | None, trace: object) -> None:
        """Let go of the directory; a copy that failed leaves it as it was."""
        if exc is not None:
            self._directory.undo()
        self._directory.close()

    @property
    def _layout(self) -> LayoutDirectory:
        """The directory; made for the first blob, so that an image that is nowhere leaves no layout."""
        with self._lock:
            if not self._is_made:
                self._directory.make()
                self._is_made = True
            return self._directory

    def _has(self, digest: str, size: int) -> bool:
        return self._layout.has(digest, size)

    def _write(self, digest: str, read: Callable[[int], bytes]) -> None:
        self._layout.write(digest, read)

    def finish(self, picture: Picture) -> None:
        """Write the manifests, then name the image in index.json."""
        for one in picture.walk():
            self._document(one)
        self._layout.enter(lambda entries: self._entered(entries, picture))

    def _entered(self, entries: list[dict[str, Any]], picture: Picture) -> list[dict[str, Any]]:
        kept = [one for one in entries if not self._is_replaced(one, picture)]
        extra = {"annotations": layout.notes(self._name, self._ref_name)} if self._name else {}
        return [*kept, image.descriptor(picture.media_type, picture.digest, len(picture.data), **extra)]

    def _is_replaced(self, entry: dict[str, Any], picture: Picture) -> bool:
        notes = entry.get("annotations") or {}
        named = notes.get(layout.FULL_NAME) or notes.get(image.REF_NAME) or ""
        if not self._name:
            return bool(entry["digest"] == picture.digest and not named)
        return bool(named) and named in (self._name, reference.parse(self._name).tag)


class ArchiveDestination(Taker):
    """A tar that is a layout, for one image; what it is made of has no names beside it (unnamed.py)."""

    def __init__(self, path: str, name: str, listen: Listen = events.ignore) -> None:
        super().__init__(listen)
        self._path = path
        self._names = [name] if name else []
        self._held: dict[str, unnamed.Unnamed] = {}
        directory = os.path.dirname(os.path.abspath(path))
        try:
            self._in_place = wholefile.is_in_place(path)
            if self._in_place:  # beside a device nothing is kept
                directory = os.environ.get("TMPDIR") or "/tmp"
            self._at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._at)
            unnamed.sweep(self._at)
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidArgument(f"cannot write {path}: there is no directory {directory}") from None
        except OSError as exc:
            raise files.failure(f"write {path}", exc) from exc

    def _has(self, digest: str, size: int) -> bool:
        return digest in self._held

    def _write(self, digest: str, read: Callable[[int], bytes]) -> None:
        try:
            file = unnamed.Unnamed(self._at)
            weakref.finalize(self, file.close)
            file.forget()
            receive(file.fd, digest, read)
        except OSError as exc:
            raise files.failure(f"write blob {digest} beside {self._path}", exc) from exc
        self._held[digest] = file

    def finish(self, picture: Picture) -> None:
        """Write the archive, and let it be seen."""
        from sampan.transfer import save

        for one in picture.walk():
            self._document(one)
        try:
            if self._in_place:
                with open(wholefile.open_in_place(self._path), "wb", buffering=0) as device:
                    save.archive(self, [(picture.digest, self._names)], device.fileno())
                return
            with unnamed.Unnamed(self._at, 0o666) as file:
                save.archive(self, [(picture.digest, self._names)], file.fd)
                os.fsync(file.fd)
                file.publish(os.path.basename(self._path))
            os.fsync(self._at)
        except OSError as exc:
            raise files.failure(f"write {self._path}", exc) from exc

    # What save.archive asks of whoever has the blobs.

    def has(self, digest: str) -> bool:
        """Tell whether a blob was taken."""
        return digest in self._held

    def open(self, digest: str) -> int:
        """Return a descriptor for reading a blob."""
        fd = os.dup(self._held[digest].fd)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def read(self, digest: str) -> bytes:
        """Return a document."""
        with open(self.open(digest), "rb") as file:
            return file.read(image.MAX_DOCUMENT)
