"""OCI image layouts as the ends of a copy: a directory to write to, a directory or an archive to read from.

A layout's index.json gains the image under its name at the very end, by a rename; whatever other images the directory
has stay. Two writers at once are kept apart by a lock on the directory.
"""

from __future__ import annotations

import os
import stat
import weakref
from contextlib import suppress

from sampan.errors import IntegrityError, InvalidArgument, NotFound, NotSupported
from sampan.oci import digest as digests
from sampan.oci import image, reference
from sampan.store import files
from sampan.transfer import events, layout
from sampan.transfer.copy import Part, Picture, of_manifest
from sampan.transfer.events import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.transfer.archive import Archive
    from sampan.transfer.archive import Part as Member
    from sampan.transfer.copy import Source, Stream
    from sampan.transfer.events import Listen
    from sampan.transfer.found import Found

STEP = 1 << 20
_MARK = b'{"imageLayoutVersion":"1.0.0"}'


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
    named = {entry["digest"] for entry in entries if (entry.get("annotations") or {}).get(image.REF_NAME) == name}
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


class LayoutDestination:
    """A directory that is, or becomes, a layout; the image gets `name` there.

    Below the directory no link is followed: who else may write in it does not choose where blobs go.
    """

    def __init__(self, directory: str, name: str, listen: Listen = events.ignore) -> None:
        self.directory = directory
        self._name = name
        self._listen = listen
        try:
            os.makedirs(directory, exist_ok=True)
            self._blobs = _made(directory, "blobs/sha256")
            weakref.finalize(self, os.close, self._blobs)
            if not os.path.exists(f"{directory}/{layout.MARK}"):
                files.replace(f"{directory}/{layout.MARK}", _MARK, mode=0o644)
        except OSError as exc:
            raise files.failure(f"make the image layout {directory}", exc) from exc

    def take(self, source: Source, part: Part) -> dict[str, Any]:
        """Write one blob, unless it is there with its size."""
        known = source.known(part)
        if known is None:
            raise NotSupported("cannot write a layer whose digest shows at its end only")
        if self._size(known["digest"]) == known["size"]:
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

    def _size(self, digest: str) -> int:
        try:
            found = os.stat(digests.hex_of(digest), dir_fd=self._blobs, follow_symlinks=False)
        except FileNotFoundError:
            return -1
        return found.st_size if stat.S_ISREG(found.st_mode) else -1

    def _write(self, digest: str, read: Callable[[int], bytes]) -> None:
        temporary = files.temporary_name()
        running = digests.sha256(bulk=True)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=self._blobs)
            try:
                while data := read(STEP):
                    running.update(data)
                    files.write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            if digests.PREFIX + running.hexdigest() != digest:
                raise IntegrityError(f"cannot copy blob {digest}: its content has another digest")
            os.rename(temporary, digests.hex_of(digest), src_dir_fd=self._blobs, dst_dir_fd=self._blobs)
        except BaseException as exc:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._blobs)
            if isinstance(exc, OSError):
                raise files.failure(f"write blob {digest} in {self.directory}", exc) from exc
            raise

    def finish(self, picture: Picture) -> None:
        """Write the manifests, then name the image in index.json."""
        for below in picture.below:
            self._document(below)
        self._document(picture)
        os.fsync(self._blobs)
        self._enter(picture)

    def _document(self, picture: Picture) -> None:
        if self._size(picture.digest) != len(picture.data):
            pieces = iter((picture.data, b""))
            self._write(picture.digest, lambda count: next(pieces))

    def _enter(self, picture: Picture) -> None:
        import fcntl

        lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = [one for one in self._entries() if not self._is_replaced(one, picture)]
            notes = (
                {layout.FULL_NAME: self._name, image.REF_NAME: reference.parse(self._name).tag} if self._name else {}
            )
            extra = {"annotations": notes} if notes else {}
            entries.append(image.descriptor(picture.media_type, picture.digest, len(picture.data), **extra))
            files.replace(f"{self.directory}/{layout.INDEX}", image.build_index(entries), mode=0o644)
        except OSError as exc:
            raise files.failure(f"write {self.directory}/{layout.INDEX}", exc) from exc
        finally:
            os.close(lock)

    def _entries(self) -> list[dict[str, Any]]:
        try:
            path = f"{self.directory}/{layout.INDEX}"
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                data = file.read(image.MAX_DOCUMENT)
        except FileNotFoundError:
            return []
        found: list[dict[str, Any]] = image.parse_index(data, image.OCI_INDEX)["manifests"]
        return found

    def _is_replaced(self, entry: dict[str, Any], picture: Picture) -> bool:
        notes = entry.get("annotations") or {}
        named = notes.get(layout.FULL_NAME) or notes.get(image.REF_NAME) or ""
        if not self._name:
            return bool(entry["digest"] == picture.digest and not named)
        return named in (self._name, reference.parse(self._name).tag)


def _made(directory: str, below: str) -> int:
    """Make directories and open the last of them."""
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in below.split("/"):
        try:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=at)
            following = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        at = following
    return at


class Blobs:
    """The blobs of a layout directory, for whoever writes an archive of it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def _path(self, digest: str) -> str:
        return f"{self._directory}/{layout.blob_name(digest)}"

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there."""
        return os.path.exists(self._path(digest))

    def open(self, digest: str) -> int:
        """Return a descriptor for reading a blob."""
        return os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def read(self, digest: str) -> bytes:
        """Return a document."""
        with open(self.open(digest), "rb") as file:
            return file.read(image.MAX_DOCUMENT)
