"""Images: which manifests the store has, and the references that name them.

    images.put(manifest_digest)             record a manifest whose blobs (or snapshots) are all here
    images.tag("app:1", manifest_digest)    point a reference at it
    images.resolve("app")                   by reference, image id, prefix of an id, or digest -> Image

Rules: an image's id is the digest of its config; several manifests (compressions of the same layers) may share it. An
image that lost its last tag to another stays, dangling, until it is pruned. The layout's index.json is a view of the
references, rewritten in the transaction that changes them, so that other tools read the store in place (skopeo inspect
oci:DIR:NAME).
"""

from __future__ import annotations

import os
import time

from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci import digest as digests
from sampan.oci import jsontext, reference
from sampan.store.db import Database
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from typing import Any

    from sampan.store.content import Content
    from sampan.store.leases import Lease

_HEX = frozenset("0123456789abcdef")
_COLUMNS = "manifest_digest, id, config, diff_ids, size, created"


class Image:
    """One image: `id` (digest of the config), `manifest_digest`, `config` (dict), `diff_ids` (lowest first), `size` in
    unpacked bytes, `created` in unix nanoseconds, `references` (full names, sorted), `digests` (the like with a digest
    in place of a tag: what registries had it under).  An artifact, which is no image, has an empty config."""

    __slots__ = ("id", "manifest_digest", "config", "diff_ids", "size", "created", "references", "digests")

    def __init__(self, row: tuple[Any, ...], names: list[str]) -> None:
        self.manifest_digest: str = row[0]
        self.id: str = row[1]
        self.config: dict[str, Any] = jsontext.loads(row[2])
        self.diff_ids: list[str] = jsontext.loads(row[3])
        self.size: int = row[4]
        self.created: int = row[5]
        self.references = [name for name in names if "@" not in name]
        self.digests = [name for name in names if "@" in name]

    @property
    def short_id(self) -> str:
        """The first 12 hex digits of the id."""
        return self.id[7:19]

    def __repr__(self) -> str:
        return f"Image({self.short_id}, {self.references})"


class Images:
    """The images of one store."""

    def __init__(self, db: Database, paths: Paths) -> None:
        self._db = db
        self._paths = paths
        self._first = False  # an index is to be written once there is an image

    @property
    def _content(self) -> Content:
        from sampan.store.content import Content

        return Content(self._paths)

    def put(self, manifest_digest: str) -> Image:
        """Record a manifest; raise NotFound if its config or a layer (blob or snapshot) is not here."""
        from sampan.oci import image as documents
        from sampan.store.snapshots import seal

        raw = self._content.read(manifest_digest)
        manifest = documents.parse_manifest(raw)
        config_digest = manifest["config"]["digest"]
        if manifest["config"]["mediaType"] in documents.CONFIGS:
            data = self._content.read(config_digest)
            config = documents.parse_config(data)
            layers = documents.check_layers(manifest, config)
        else:  # an artifact: nothing of it can be unpacked
            data, config, layers = b"{}", {}, [(layer, "") for layer in manifest["layers"]]
        blobs = [manifest_digest, config_digest, *(layer["digest"] for layer, _ in layers)]
        diff_ids = [diff_id for _, diff_id in layers if diff_id]
        seal(self._db, self._paths, diff_ids)
        with self._db.transaction():
            size = sum(self._layer_size(layer, diff_id) for layer, diff_id in layers)
            self._content.path(manifest_digest)
            self._content.path(config_digest)
            self._db.execute(
                "INSERT INTO images"
                " (manifest_digest, media_type, manifest_size, id, config, diff_ids, blobs, size, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size",
                (manifest_digest, manifest["mediaType"], len(raw), config_digest, data)
                + (jsontext.dumps(diff_ids), jsontext.dumps(blobs), size, _created(config)),
            )
        return self._image(manifest_digest)

    def tag(self, name: str, manifest_digest: str) -> str:
        """Point a reference at a recorded manifest; return the manifest that it named before, or "" ."""
        return self.tag_all([name], manifest_digest)[name]

    def tag_all(self, names: Iterable[str], manifest_digest: str) -> dict[str, str]:
        """Point references at a recorded manifest, in one step; return for each what `tag` does."""
        found: dict[str, str] = {}
        with self._db.transaction():
            self._first = self._first or self._db.one("SELECT 1 FROM image_references") is None
            for name in names:
                found[name] = self._point(str(reference.parse(name)), manifest_digest)
            if any(before != manifest_digest for before in found.values()):
                if self._first:
                    self._write_index(self._index([]), once=True)
                    self._db.afterwards(self._write_first_index)
                else:
                    self._write_index(self._index())
        return found

    def _point(self, full: str, manifest_digest: str) -> str:
        if not self._known(manifest_digest):
            raise NotFound(f"cannot tag {full}: image {manifest_digest} is not in the store")
        row = self._db.one("SELECT manifest_digest FROM image_references WHERE name = ?", (full,))
        before = str(row[0]) if row else ""
        if before != manifest_digest:
            self._db.execute(
                "INSERT OR REPLACE INTO image_references VALUES (?, ?, ?)", (full, manifest_digest, time.time_ns())
            )
        return before

    def has(self, text: str) -> bool:
        """Tell whether `resolve` would find an image, without reading it."""
        return (self._by_reference(text) or self._by_id(text)) is not None

    def resolve(self, text: str) -> Image:
        """Return the image that a reference, an id, a prefix of an id or a digest names; raise NotFound.

        A reference wins over a prefix of an id, as in Docker; an ambiguous prefix is an InvalidArgument.
        """
        found = self._by_reference(text) or self._by_id(text)
        if found is None:
            raise NotFound(f"no such image: {text[:300]}")
        return self._image(found)

    def claim(self, text: str, lease: Lease) -> Image:
        """Return what `resolve` does, and have a lease keep all of it, blobs and unpacked layers."""
        while True:
            found = self.resolve(text)
            if self.hold(found, lease):
                return found

    def hold(self, image: Image, lease: Lease) -> bool:
        """Have a lease keep all that an image consists of; tell whether the image is still recorded."""
        lease.hold(*self.blobs(image), *image.diff_ids)
        return bool(self.blobs(image))

    def blobs(self, image: Image) -> list[str]:
        """Return the digests of what an image consists of: manifest, config, layers."""
        row = self._db.one("SELECT blobs FROM images WHERE manifest_digest = ?", (image.manifest_digest,))
        return list(jsontext.loads(row[0])) if row else []

    def pairs(self, digest: str, diff_id: str) -> bool:
        """Tell whether a recorded image has a blob as its layer with this diff_id."""
        rows = self._db.query(
            "SELECT blobs, diff_ids FROM images WHERE instr(blobs, ?) AND instr(diff_ids, ?)", (digest, diff_id)
        )
        lists = ((jsontext.loads(blobs)[2:], jsontext.loads(diff_ids)) for blobs, diff_ids in rows)
        return any((digest, diff_id) in zip(*both, strict=False) for both in lists)  # an artifact has no diff_ids

    def ls(self) -> list[Image]:
        """Return every image, newest first; manifests with the same id are one image, with all their references."""
        names: dict[str, list[str]] = {}
        for name, image_id in self._db.query(
            "SELECT name, id FROM image_references JOIN images USING (manifest_digest) ORDER BY name"
        ):
            names.setdefault(image_id, []).append(name)
        found: dict[str, Image] = {}
        for row in self._db.query(f"SELECT {_COLUMNS} FROM images ORDER BY created DESC, rowid DESC"):
            found.setdefault(row[1], Image(row, names.get(row[1], [])))
        return list(found.values())

    def dangling(self) -> list[Image]:
        """Return the images that no reference names, no container uses, and no lease holds (those get a tag next)."""
        return [image for image in self._unused() if not image.references]

    def prune(self, *, all: bool = False, keep: Container[str] = ()) -> list[Image]:
        """Forget the dangling images, or with `all` every image that no container uses, but not those whose ids are
        in `keep`; return them."""
        with self._db.transaction(frees=True):
            doomed = [image for image in (self._unused() if all else self.dangling()) if image.id not in keep]
            for image in doomed:
                self._db.execute("DELETE FROM images WHERE id = ?", (image.id,))
            if doomed:
                self._write_index(self._index(), frees=True)
        return doomed

    def _unused(self) -> list[Image]:
        from sampan.store.leases import Leases

        used = {row[0] for row in self._db.query("SELECT DISTINCT image_id FROM containers")}
        held = Leases(self._db).held()
        return [image for image in self.ls() if image.id not in used and image.manifest_digest not in held]

    def remove(self, text: str, *, force: bool = False) -> tuple[list[str], str]:
        """Untag what `text` names, and forget the image with its last reference.

        Returns (references removed, image id if it was forgotten, else ""); run gc.collect afterwards for its space.
        An id with several references, or an image that a container uses, needs `force`; the image itself stays for as
        long as a container uses it. A name with a digest takes no tag away. Raises NotFound, Conflict.
        """
        with self._db.transaction(frees=True):
            image = self.resolve(text)
            gone, last = self._gone(image, text)
            user = self._user(image.id)
            if len(gone) > 1 and not force:
                raise Conflict(
                    f"cannot remove image {image.short_id}: {len(gone)} references name it",
                    "remove them by name, or use -f to remove them all",
                )
            if last and user and not force:
                raise Conflict(
                    f"cannot remove image {text}: container {user} uses it",
                    "remove the container, or use -f to untag it",
                )
            for name in gone:
                self._db.execute("DELETE FROM image_references WHERE name = ?", (name,))
            if last and not user:
                self._db.execute("DELETE FROM images WHERE id = ?", (image.id,))
            self._write_index(self._index(), frees=True)
        return gone, image.id if last and not user else ""

    def _gone(self, image: Image, text: str) -> tuple[list[str], bool]:
        """Give the references that go when `text` is removed, and whether the image goes with them.

        A name with a digest is one by itself: tags stay (as in Docker). Where none was recorded under it, the tags that
        it was found by are meant.
        """
        wanted = reference.parse(text) if self._by_reference(text) is not None else None
        if wanted is None:
            return image.references or image.digests, True
        if wanted.digest:
            name = f"{wanted.name}@{wanted.digest}"
            if name in image.digests:
                return [name], not image.references and len(image.digests) == 1
            gone = [tag for tag in image.references if reference.parse(tag).name == wanted.name]
        else:
            gone = [str(wanted)]
        return gone, len(gone) == len(image.references)

    def _user(self, image_id: str) -> str:
        row = self._db.one("SELECT name FROM containers WHERE image_id = ?", (image_id,))
        return str(row[0]) if row else ""

    def _known(self, manifest_digest: str) -> bool:
        return self._db.one("SELECT 1 FROM images WHERE manifest_digest = ?", (manifest_digest,)) is not None

    def _layer_size(self, layer: dict[str, Any], diff_id: str) -> int:
        """Return the unpacked size of a layer if it is known, else the blob's; raise NotFound if neither is here."""
        row = self._db.one("SELECT size FROM snapshots WHERE diff_id = ?", (diff_id,))
        if row is None:
            self._content.path(layer["digest"])
        return int(row[0] if row and row[0] else layer["size"])

    def _image(self, manifest_digest: str) -> Image:
        row = self._db.one(f"SELECT {_COLUMNS} FROM images WHERE manifest_digest = ?", (manifest_digest,))
        if row is None:
            raise NotFound(f"no such image: {manifest_digest}")
        rows = self._db.query(
            "SELECT name FROM image_references JOIN images USING (manifest_digest) WHERE id = ? ORDER BY name",
            (row[1],),
        )
        return Image(row, [name for (name,) in rows])

    def _by_reference(self, text: str) -> str | None:
        try:
            wanted = reference.parse(text)
        except InvalidArgument:
            return None
        exact = "SELECT manifest_digest FROM image_references WHERE name = ?"
        row = self._db.one(exact, (str(wanted),))
        if row is None and wanted.digest:
            row = self._db.one(exact, (f"{wanted.name}@{wanted.digest}",))  # Docker ignores a tag beside a digest
        if row is not None or not wanted.digest:
            return str(row[0]) if row else None
        # name@digest also names a manifest that some tag of the same repository has; name:tag@digest checks the tag.
        tagged = [f"{wanted.name}:{wanted.tag}"] if wanted.tag else []
        prefix = tagged[0] if tagged else f"{wanted.name}:"
        row = self._db.one(
            "SELECT manifest_digest FROM image_references"
            " WHERE manifest_digest = ? AND substr(name, 1, ?) = ? AND (? = '' OR name = ?)",
            (wanted.digest, len(prefix), prefix, wanted.tag, prefix),
        )
        return str(row[0]) if row else None

    def _by_id(self, text: str) -> str | None:
        prefix = text.removeprefix(digests.PREFIX)
        if not prefix or len(prefix) > 64 or not _HEX.issuperset(prefix):
            return None
        if len(prefix) == 64:
            row = self._db.one("SELECT 1 FROM images WHERE manifest_digest = ?", (digests.PREFIX + prefix,))
            if row is not None:
                return digests.PREFIX + prefix
        low = digests.PREFIX + prefix
        rows = self._db.query(
            "SELECT id, manifest_digest FROM images WHERE id >= ? AND id < ? ORDER BY rowid DESC", (low, low + "g")
        )
        if len({row[0] for row in rows}) > 1:
            known = ", ".join(sorted({row[0][7 : 7 + max(12, len(low) - 3)] for row in rows})[:8])
            raise InvalidArgument(
                f"image id {text} is ambiguous: several images begin with it", f"it is one of: {known}"
            )
        return str(rows[0][1]) if rows else None

    def rewrite_index(self) -> None:
        """Write the layout's index, and the file that marks the layout, where they are not as the records say."""
        from sampan.store import content

        with self._db.transaction(frees=True):
            try:
                with open(self._paths.oci + "/index.json", "rb") as file:
                    same = file.read() == self._index()
            except OSError:
                same = False
            if not same or not content.is_layout(self._paths):
                self._write_index(self._index(), frees=True)

    def _write_first_index(self) -> None:
        """Write an index that was empty, when the image is durably recorded: one of images, beside a database that
        knows nothing, means that one was lost (store/salvage.py).
        """
        if self._first:
            with self._db.transaction():
                self._write_index(self._index())
            self._first = False

    def _index(self, rows: list[tuple[Any, ...]] | None = None) -> bytes:
        """Give the index of all images, or of these rows: name, media type, digest, size."""
        from sampan.oci import image as documents

        manifests = []
        for name, media_type, digest, size in self._rows() if rows is None else rows:
            extra = {"annotations": {documents.REF_NAME: name}} if name else {}
            manifests.append(documents.descriptor(media_type, digest, size, **extra))
        return jsontext.dumps({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": manifests})

    def _rows(self) -> list[tuple[Any, ...]]:
        return self._db.query(
            "SELECT name, media_type, images.manifest_digest, manifest_size"
            " FROM images LEFT JOIN (SELECT * FROM image_references WHERE name NOT LIKE '%@%') USING (manifest_digest)"
            " ORDER BY name, images.rowid"
        )

    def _write_index(self, data: bytes, *, frees: bool = False, once: bool = False) -> None:
        """Write the index; `once` leaves one that is there."""
        from sampan.store import content, files

        path = self._paths.oci + "/index.json"
        try:
            content.write_layout(self._paths)
            if once and os.path.exists(path):
                return
            if frees:
                self._shrink_index(path, data)
            else:
                files.replace(path, data, mode=0o644)
        except OSError as exc:
            raise files.failure(f"write {path}", exc) from exc

    def _shrink_index(self, path: str, data: bytes) -> None:
        from sampan.store import files, reserve

        try:
            reserve.spend(self._paths, lambda: files.replace(path, data, mode=0o644))
        except OSError as exc:
            if exc.errno not in files.FULL:
                raise
            files.overwrite(path, data)


def _created(config: dict[str, Any]) -> int:
    from sampan.oci import timestamp

    try:
        return timestamp.parse(config.get("created") or "")
    except InvalidArgument:
        return 0
