"""Images in an OCI image layout (image-spec image-layout.md), a directory or an archive of one.

Everything is reached by digest from index.json, and every document is verified before it is believed.  Indexes may
nest, to a depth and a number that no honest layout reaches.  Of an image for several platforms this host's is taken.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, InvalidArgument, NotFound, NotSupported
from sampan.oci import digest as digests
from sampan.oci import image, jsontext, platform, reference
from sampan.transfer import dockerarchive, found
from sampan.transfer.found import Found, Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.transfer.archive import Archive

    Resolved = tuple[bytes, dict[str, Any]]

# containerd and Docker write the whole reference here; the specification's own annotation often holds a tag only.
FULL_NAME = "io.containerd.image.name"
MARK = "oci-layout"
INDEX = "index.json"
_MAX_DEPTH = 3
_MAX_DOCUMENTS = 512


def is_layout(archive: Archive) -> bool:
    """Tell whether the archive says that it is an image layout."""
    return archive.has(MARK) and archive.has(INDEX)


class _Reader:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.count = self.size = 0

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        """Read a document by its descriptor, verified."""
        self.count += 1
        digest, what = descriptor["digest"], self.archive.what
        if self.count > _MAX_DOCUMENTS:
            raise IntegrityError(f"cannot load {what}: it has more than {_MAX_DOCUMENTS} documents")
        data = self.archive.read(blob_name(digest), image.MAX_DOCUMENT)
        if len(data) != descriptor["size"]:
            raise IntegrityError(f"cannot load {what}: {digest} has {len(data)} bytes, not {descriptor['size']}")
        self.size += len(data)
        if self.size > found.MAX_BYTES:
            raise IntegrityError(f"cannot load {what}: its documents have more than {found.MAX_BYTES} bytes")
        if digests.of(data) != digest:
            raise IntegrityError(f"cannot load {what}: the content of {digest} has another digest")
        return data

    def resolve(self, descriptor: dict[str, Any], depth: int = 0) -> Resolved | None:
        """Follow a descriptor to the manifest for this host; None when there is none."""
        media_type = descriptor["mediaType"]
        if media_type not in image.MANIFESTS + image.INDEXES:
            raise NotSupported(f"cannot load {self.archive.what}: it holds a {media_type[:100]!r}, not an image")
        data = self.blob(descriptor)
        value = image.parse(data, media_type)
        if media_type in image.MANIFESTS:
            return data, value
        if depth >= _MAX_DEPTH:
            raise IntegrityError(f"cannot load {self.archive.what}: its indexes are nested too deeply")
        return self.choose(value["manifests"], depth + 1)

    def choose(self, offered: list[dict[str, Any]], depth: int) -> Resolved | None:
        """Take the manifest that suits this host best; those without a platform are tried last."""
        host = platform.host()
        ranked: list[tuple[int, int]] = []
        for place, entry in enumerate(offered):
            described = entry.get("platform")
            rank = platform.rank(host, platform.from_descriptor(described)) if described else 1000
            if rank is not None:
                ranked.append((rank, place))
        for _, place in sorted(ranked):
            chosen = self.resolve(offered[place], depth)
            if chosen is not None:
                return chosen
        return None


def blob_name(digest: str) -> str:
    """Give the name of a blob in a layout."""
    return f"blobs/sha256/{digests.hex_of(digest)}"


def notes(name: str, ref_name: str = "") -> dict[str, str]:
    """Give the annotations that name an image in index.json; a name with a digest has no tag to note."""
    found = {FULL_NAME: name, image.REF_NAME: ref_name or reference.parse(name).tag}
    return {key: value for key, value in found.items() if value}


def find(archive: Archive) -> list[Found]:
    """Give the images that index.json names, one for each manifest, with all of its names."""
    _check_version(archive)
    index = image.parse_index(archive.read(INDEX, image.MAX_DOCUMENT), image.OCI_INDEX)
    reader = _Reader(archive)
    images: dict[bytes, Found] = {}
    for entry in index["manifests"]:
        resolved = reader.resolve(entry)
        if resolved is None:
            continue
        data, manifest = resolved
        if data not in images:
            images[data] = _image(reader, data, manifest)
        images[data].add_names(_names(entry, archive.what))
    if not images:
        which = f" for {platform.host()}" if index["manifests"] else ""
        raise NotFound(f"cannot load {archive.what}: it has no image{which}")
    _docker_names(archive, images)
    return list(images.values())


def _check_version(archive: Archive) -> None:
    try:
        mark = jsontext.loads(archive.read(MARK, 1 << 16), MARK)
    except InvalidArgument as exc:
        raise found.locate(IntegrityError(exc.message), archive.what) from exc
    version = mark.get("imageLayoutVersion") if isinstance(mark, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise NotSupported(f"cannot load {archive.what}: the version of its layout is {str(version)[:40]!r}, not 1")


def _image(reader: _Reader, data: bytes, manifest: dict[str, Any]) -> Found:
    archive = reader.archive
    if manifest["config"]["mediaType"] not in image.CONFIGS:
        return _artifact(archive, data, manifest)
    config = reader.blob(manifest["config"])
    wanted = []
    for layer, diff_id in image.check_layers(manifest, image.parse_config(config)):
        image.compression(layer["mediaType"])
        name = blob_name(layer["digest"])
        if not archive.has(name):
            raise archive.missing(name)
        wanted.append(Wanted(name, diff_id, layer))
    return Found([], config, wanted, data)


def _artifact(archive: Archive, data: bytes, manifest: dict[str, Any]) -> Found:
    """Give what is no image (image-spec manifest.md, "Guidelines for Artifact Usage"): nothing of it is looked into."""
    made = Found([], b"", [], data)
    made.blobs = [manifest["config"], *manifest["layers"]]
    for one in made.blobs:
        if not archive.has(blob_name(one["digest"])):
            raise archive.missing(blob_name(one["digest"]))
    return made


def _names(entry: dict[str, Any], what: str) -> list[str]:
    """Read an entry's name: a bare tag, without a repository, names nothing."""
    annotations = entry.get("annotations") or {}
    text = annotations.get(FULL_NAME, "")
    if not text:
        text = annotations.get(image.REF_NAME, "")
        if ":" not in text and "/" not in text:
            return []
    return found.names([text], what)


def _docker_names(archive: Archive, images: dict[bytes, Found]) -> None:
    """Take names from a manifest.json beside the layout when the layout itself gives none."""
    if any(one.names for one in images.values()) or not archive.has(dockerarchive.MANIFEST):
        return
    by_config = {blob_name(digests.of(one.config)): one for one in images.values()}
    for entry in dockerarchive.entries(archive):
        one = by_config.get(str(entry.get("Config")))
        if one is not None:
            one.add_names(dockerarchive.tags(archive, entry))
