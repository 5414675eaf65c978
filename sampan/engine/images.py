"""Images: look, tag, remove, and move them in and out of the store as archives."""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, NotFound, NotSupported, SampanError, Unavailable
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.engine.imagecopy import Copied
    from sampan.engine.pulling import Pulled
    from sampan.engine.pushing import Pushed
    from sampan.engine.streams import Place
    from sampan.store.images import Image
    from sampan.store.leases import Lease


class Images:
    """Operate on the images of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store.images

    # ---- look ----

    def resolve(self, name: str, lease: Lease | None = None) -> Image:
        """Find an image by reference, id or its prefix, or digest; NotFound says which one may have been meant.

        With a `lease` that one keeps all of it.
        """
        try:
            found: Image = self.store.resolve(name) if lease is None else self.store.claim(name, lease)
        except NotFound as exc:
            exc.hint = exc.hint or self._hint(name)
            raise
        return found

    def has(self, name: str) -> bool:
        """Tell whether `resolve` would find an image; cheap."""
        return self.store.has(name)

    def runnable(self, name: str) -> Image:
        """Find an image that a container can be made of; NotSupported for an artifact."""
        found = self.resolve(name)
        if not found.config:
            raise NotSupported(f"cannot use {name}: it is an artifact, not an image with a file system")
        return found

    def _hint(self, name: str) -> str:
        from sampan.engine import imageviews

        meant = imageviews.nearest(name, [text for image in self.store.ls() for text in image.references])
        way = "get it with `sampan pull`, `build`, `load`, `import` or `bootstrap`"
        return f"did you mean {meant}? ({way})" if meant else imageviews.misspelt(name) or way

    def ls(self, filters: dict[str, list[str]] | None = None, *, all: bool = True) -> list[dict[str, Any]]:
        """List images, newest first, a row for each name, with the fields of `docker images --format`.

        `Size` is in bytes and `Created` in unix nanoseconds.  Filters: dangling, reference, label, before, since.
        """
        from sampan.engine import imageviews

        return imageviews.ls(self.store.ls(), filters or {}, self.resolve)

    def inspect(self, name: str) -> dict[str, Any]:
        """Describe an image in Docker's shape."""
        from sampan.engine import imageviews

        return imageviews.inspect(self.engine.store, self.resolve(name))

    def history(self, name: str) -> list[dict[str, Any]]:
        """List how an image was made, last step first, with the fields of `docker history --format`; sizes in bytes."""
        from sampan.engine import imageviews

        return imageviews.history(self.engine.store, self.resolve(name))

    # ---- names ----

    def tag(self, source: str, name: str) -> None:
        """Give an image another name, which it takes from whatever had it."""
        parsed = reference.parse(name)
        if parsed.digest:
            raise InvalidArgument(f"cannot tag {source}: {name} has a digest", "a name has a tag at most")
        image = self.resolve(source)
        self.store.tag(str(parsed), image.manifest_digest)
        self._tell("tag", image, parsed.familiar())

    def _tell(self, action: str, image: Image, name: str) -> None:
        """Record an event with the attributes of Docker's: the image's labels and the name it was called by."""
        labels = (image.config.get("config") or {}).get("Labels") or {}
        self.engine.events.emit("image", action, image.id, {**labels, "name": name})

    def remove(self, name: str, force: bool = False) -> list[str]:
        """Remove a name, and the image with its last one; give "Untagged: …" and "Deleted: …" messages."""
        from sampan.store import gc

        image = self.resolve(name)
        names, image_id = self.store.remove(name, force=force)
        said = [f"Untagged: {reference.parse(text).familiar()}" for text in names]
        for text in names:
            self._tell("untag", image, reference.parse(text).familiar())
        if image_id:
            said.append(f"Deleted: {image_id}")
            self._tell("delete", image, image_id)
            store = self.engine.store
            gc.collect(store.db, store.content, store.paths, remove_tree=self.engine.remove_tree)
        return said

    # ---- registries ----

    def pull(
        self, name: str, *, platform: str = "", all_tags: bool = False, listen: Callable[..., None] | None = None
    ) -> list[Pulled]:
        """Pull a reference, or all tags of a repository, from its registry; `listen` is told of transfer's events."""
        from sampan.engine import pulling
        from sampan.transfer import events

        return pulling.pull(self.engine, name, platform=platform, all_tags=all_tags, listen=listen or events.ignore)

    def obtain(
        self, name: str, policy: str = "missing", platform: str = "", listen: Callable[..., None] | None = None
    ) -> None:
        """Pull an image where `policy` asks for it: "always", "missing", "never"."""
        from sampan.engine import pulling
        from sampan.transfer import events

        pulling.obtain(self.engine, name, policy, platform, listen or events.ignore)

    def push(
        self,
        name: str,
        *,
        all_tags: bool = False,
        compression: str = "auto",
        platform: str = "",
        listen: Callable[..., None] | None = None,
    ) -> list[Pushed]:
        """Push a reference, or all tags of a repository, to its registry; `listen` is told of transfer's events.

        With `platform` NotFound, before anything is sent, unless the images are for it.
        """
        from sampan.engine import pushing
        from sampan.transfer import events

        listen = listen or events.ignore
        return pushing.push(
            self.engine, name, all_tags=all_tags, compression=compression, platform=platform, listen=listen
        )

    def copy(
        self,
        source: str,
        destination: str,
        *,
        platform: str = "",
        every: bool = False,
        referrers: bool = False,
        listen: Callable[..., None] | None = None,
    ) -> Copied:
        """Copy an image from any place to any place (engine/imagecopy.py lists them).

        `every` means all platforms, `referrers` what refers to the image too.
        """
        from sampan.engine.imagecopy import image_copy
        from sampan.transfer import events

        listen = listen or events.ignore
        return image_copy(
            self.engine, source, destination, platform=platform, every=every, referrers=referrers, listen=listen
        )

    # ---- archives ----

    def save(self, names: Sequence[str], target: Place) -> int:
        """Write images as one archive that is an OCI layout and a Docker archive; give its size in bytes.

        `target` is a path (the file appears when it is whole), a file object opened in binary, or a descriptor.
        A name with a tag saves that one only, a repository's all its tags, an id all names that it has.
        """
        from sampan.engine.streams import writable
        from sampan.transfer import save

        if isinstance(names, str):
            names = [names]

        with self.engine.store.leases.to_read("save") as lease:
            chosen = self._chosen(names, lease)
            if not chosen:
                raise InvalidArgument("cannot save: no image was named")
            with writable(target, "images") as fd:
                size = save.save(self.engine.store, chosen, fd)
        for image, _ in chosen:
            self._tell("save", image, image.id)
        return size

    def _chosen(self, names: Sequence[str], lease: Lease) -> list[tuple[Image, list[str]]]:
        """Give the images that are named, each with the names to save it under, and keep them."""
        chosen: dict[str, tuple[Image, list[str]]] = {}
        for name in names:
            for image, names_of in self._tags(name) or [(found := self.resolve(name, lease), _names_of(found, name))]:
                if not self.store.hold(image, lease):
                    raise NotFound(f"no such image: {name}")  # removed meanwhile
                kept = chosen.setdefault(image.manifest_digest, (image, []))[1]
                kept += [text for text in names_of if text not in kept]
        return list(chosen.values())

    def _tags(self, name: str) -> list[tuple[Image, list[str]]]:
        """Give the images that have tags of a repository, where the name is one alone, and these (as `docker save`)."""
        try:
            asked = reference.parse(name, default_tag=False)
        except InvalidArgument:  # an id
            return []
        if asked.tag or asked.digest:
            return []
        found = []
        for image in self.store.ls():
            names = [text for text in image.references if reference.parse(text).name == asked.name]
            if names:
                found.append((image, names))
        return found

    def load(self, source: Place) -> list[str]:
        """Load an archive or an OCI layout directory; give "Loaded image: …" for each, and what lost its name.

        `source` is a path, a file object opened in binary, or a descriptor.
        """
        from sampan.engine.streams import readable
        from sampan.transfer.load import load

        said = []
        with readable(source, "images") as place:
            loaded = load(self.engine.store, place, self.engine.host.facts)
        for one in loaded:
            assert one.image is not None
            for name in one.references:
                shown = reference.parse(name).familiar()
                if name in one.replaced:
                    said.append(_replaced(shown, one.replaced[name]))
                said.append(f"Loaded image: {shown}")
                self._tell("load", one.image, shown)
            if not one.references:
                said.append(f"Loaded image ID: {one.id}")
                self._tell("load", one.image, one.id)
        return said

    def import_(self, source: Place, name: str = "", changes: Iterable[str] = (), message: str = "") -> str:
        """Make an image of the file system in a tar: a path, a file object or a descriptor; give its id.

        `changes` are Dockerfile instructions that set its configuration.
        """
        from sampan.engine.changes import config_of
        from sampan.engine.streams import readable

        config = config_of(changes)
        with readable(source, "a root file system") as place:
            if isinstance(place, int):
                words = {"comment": message or "Imported from -", "what": "the archive"}
                return self._make(_chunks(place), config, name, **words)
            fd = _open(place)
            try:
                return self._make(_chunks(fd), config, name, comment=message or f"Imported from {place}", what=place)
            finally:
                os.close(fd)

    def from_tar_stream(
        self, source: Iterator[bytes] | int, config: dict[str, Any], name: str = "", comment: str = ""
    ) -> str:
        """Make an image of a tar that is still being made; `comment` says in its history where it came from."""
        return self._make(_chunks(source) if isinstance(source, int) else source, config, name, created_by=comment)

    def _make(self, pieces: Iterator[bytes], config: dict[str, Any], name: str, **words: str) -> str:
        from sampan.transfer import bare, found

        store = self.engine.store
        try:
            image_id, before = bare.make_image(
                store, bare.Pieces(pieces), self.engine.host.facts, config=config, name=name, **words
            )
        except SampanError as exc:
            if "what" in words:
                found.locate(exc, words["what"], "import")
            raise
        if before:
            self.engine.warn([_replaced(reference.parse(name).familiar(), before)])
        self.engine.events.emit("image", "import", image_id, {"name": name or image_id})
        return image_id


def _names_of(image: Image, name: str) -> list[str]:
    """Give the names to save: the one that was asked for, or all that an id has."""
    try:
        full = str(reference.parse(name))
    except InvalidArgument:
        return image.references
    return [full] if full in image.references else image.references


def _replaced(shown: str, before: str) -> str:
    return f"Replaced image: {shown} was {before}"


def _open(path: str) -> int:
    if os.path.isdir(path):
        raise InvalidArgument(f"cannot import {path}: it is a directory", f"tar -C {path} -c . | sampan import -")
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise NotFound(f"cannot import {path}: {exc.strerror}") from exc


def _chunks(fd: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(fd, 1 << 18):
            yield chunk
    except OSError as exc:
        raise Unavailable(f"cannot read the archive: {exc.strerror}") from exc
