"""Image documents: descriptors, manifests, indexes and configs (image-spec v1.1; Docker's schema 2 reads the same).

Documents stay plain dicts with the specification's keys. Parsing validates everything that sampan later relies on, so
code behind it reads without checking: a malformed document is an IntegrityError, whoever sent it. The limit is 4 MiB.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, InvalidArgument, NotSupported, counted
from sampan.oci import digest as digests
from sampan.oci import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Document = dict[str, Any]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
OCI_LAYERS = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}  # by compression
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
REF_NAME = "org.opencontainers.image.ref.name"
MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 4096
_MAX_SIZE = (1 << 63) - 1
_MAX_PLATFORM = 128  # characters of each of its names, which messages show

_COMPRESSION = {
    OCI_LAYER: "",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
}


def compression(media_type: str) -> str:
    """Return how a layer of this media type is compressed: "", "gzip" or "zstd"; raise NotSupported for other types."""
    try:
        return _COMPRESSION[media_type]
    except KeyError:
        raise NotSupported(f"cannot unpack a layer of type {media_type[:100]!r}: it is no image layer") from None


def descriptor(media_type: str, digest: str, size: int, **extra: Any) -> Document:
    """Return a descriptor; `extra` are further members, such as annotations or platform."""
    return check_descriptor({"mediaType": media_type, "digest": digest, "size": size, **extra}, "descriptor")


def check_descriptor(value: object, what: str) -> Document:
    """Return `value` if it is a valid descriptor (image-spec descriptor.md), else raise IntegrityError."""
    document = _object(value, what)
    _typed(document, "mediaType", str, what, required=True)
    if not digests.is_valid(document.get("digest")):
        raise IntegrityError(f"invalid {what}: its digest is {str(document.get('digest'))[:100]!r}")
    size = document.get("size")
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise IntegrityError(f"invalid {what}: its size is {str(size)[:40]}")
    _check_strings(document.get("annotations"), f"annotations of {what}")
    urls = _typed(document, "urls", list, what) or ()
    if not all(isinstance(url, str) for url in urls):
        raise IntegrityError(f"invalid {what}: urls holds something that is not a string")
    platform = document.get("platform")
    if platform is not None:
        _check_platform(_object(platform, f"platform of {what}"), what)
    return document


def _check_platform(document: Document, what: str) -> None:
    for key in ("os", "architecture", "variant"):
        value = _typed(document, key, str, what)
        if value and len(value) > _MAX_PLATFORM:
            raise IntegrityError(f"invalid {what}: {key} has {len(value)} characters")


def parse(data: bytes, media_type: str = "") -> Document:
    """Return a manifest or an index, validated; `media_type` is what its sender or its descriptor calls it.

    The result always has `mediaType`, one of MANIFESTS or INDEXES. A document that could be read as both kinds, or
    whose own type is not `media_type`, is refused (CVE-2021-41190).
    """
    document = _load(data, "manifest")
    own = _typed(document, "mediaType", str, "manifest") or ""
    declared = media_type.partition(";")[0].strip()
    if document.get("schemaVersion") == 1:
        raise NotSupported("cannot read the manifest: it has Docker's schema 1, which registries ended in 2024")
    if type(document.get("schemaVersion")) is not int or document["schemaVersion"] != 2:
        raise IntegrityError(
            f"invalid manifest: its schemaVersion is {str(document.get('schemaVersion'))[:40]!r}, not 2"
        )
    known = declared if declared in MANIFESTS + INDEXES else ""
    if own and known and own != known:
        raise IntegrityError(f"invalid manifest: it was sent as {known} but calls itself {own[:100]}")
    kind = own or known or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if ("layers" in document or "config" in document) and "manifests" in document:
        raise IntegrityError("invalid manifest: it has members of both an image and an index")
    if kind in INDEXES:
        _check_index(document)
    elif kind in MANIFESTS:
        _check_manifest(document)
    else:
        raise NotSupported(f"cannot read a manifest of type {kind[:100]!r}")
    document["mediaType"] = kind
    return document


def parse_manifest(data: bytes, media_type: str = "") -> Document:
    """Return an image manifest, validated; an index is an IntegrityError."""
    document = parse(data, media_type)
    if document["mediaType"] not in MANIFESTS:
        raise IntegrityError("invalid manifest: an image was expected, this is an index")
    return document


def parse_index(data: bytes, media_type: str = "") -> Document:
    """Return an index, validated; a manifest is an IntegrityError."""
    document = parse(data, media_type)
    if document["mediaType"] not in INDEXES:
        raise IntegrityError("invalid index: it is the manifest of one image")
    return document


def parse_config(data: bytes) -> Document:
    """Return an image config (image-spec config.md), validated."""
    document = _load(data, "image config")
    if b"\\ud" in data or b"\\uD" in data:
        _check_text(document)
    _check_platform(document, "image config")
    for key in ("created", "author"):
        _typed(document, key, str, "image config")
    diff_ids(document)
    for row in _typed(document, "history", list, "image config") or ():
        _object(row, "history of the image config")
    check_run_config(_typed(document, "config", dict, "image config") or {})
    return document


def _check_text(document: Document) -> None:
    """Refuse half a character (a lone surrogate, RFC 8259 section 8.2), unless it stands for a byte (PEP 383)."""
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            try:
                value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as exc:
                raise IntegrityError("invalid image config: it holds text that is not Unicode") from exc


def check_run_config(config: Document) -> Document:
    """Return the `config` member of an image config if every known member has its type, else raise IntegrityError."""
    what = "config of the image"
    for key in ("User", "WorkingDir", "StopSignal"):
        _typed(config, key, str, what)
    for key in ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell"):
        values = _typed(config, key, list, what)
        if values and not all(isinstance(value, str) for value in values):
            raise IntegrityError(f"invalid {what}: {key} holds something that is not a string")
    for key in ("Volumes", "ExposedPorts", "Healthcheck"):
        _typed(config, key, dict, what)
    _check_strings(config.get("Labels"), f"Labels in the {what}")
    return config


def diff_ids(config: Document) -> list[str]:
    """Return the digests of the unpacked layers, lowest first, validated."""
    rootfs = _object(config.get("rootfs"), "rootfs of the image config")
    found = rootfs.get("diff_ids")
    if rootfs.get("type") != "layers" or not isinstance(found, list | None):
        raise IntegrityError("invalid image config: its rootfs is not a list of layers")
    if len(found or ()) > MAX_LAYERS or not all(digests.is_valid(diff_id) for diff_id in found or ()):
        raise IntegrityError("invalid image config: its diff_ids are not digests, or too many")
    return list(found or ())


def check_layers(manifest: Document, config: Document) -> list[tuple[Document, str]]:
    """Return the layers of a manifest, each with its diff_id; raise IntegrityError when they do not fit together."""
    layers, ids = manifest["layers"], diff_ids(config)
    if len(layers) != len(ids):
        raise IntegrityError(f"invalid image: its manifest has {counted(len(layers), 'layer')}, its config {len(ids)}")
    known: dict[str, str] = {}
    for layer, diff_id in zip(layers, ids, strict=True):
        if known.setdefault(layer["digest"], diff_id) != diff_id:
            raise IntegrityError(f"invalid image: its config gives two diff_ids to layer {layer['digest']}")
    return list(zip(layers, ids, strict=True))


def chain_id(ids: Sequence[str]) -> str:
    """Return the chain id of a list of diff_ids, lowest first (image-spec config.md, "Layer ChainID"); "" for none."""
    chain = ""
    for diff_id in ids:
        chain = digests.of(f"{chain} {diff_id}".encode()) if chain else digests.validate(diff_id)
    return chain


def history(
    created: str, created_by: str, *, comment: str = "", author: str = "", empty_layer: bool = False
) -> Document:
    """Return one history row of an image config; members without a value are left out."""
    row: Document = {"created": created, "created_by": created_by, "comment": comment, "author": author}
    row = {key: value for key, value in row.items() if value}
    if empty_layer:
        row["empty_layer"] = True
    return row


def build_config(config: Document) -> bytes:
    """Return the bytes of an image config, validated."""
    return _dump(config, parse_config)


def build_manifest(config: Document, layers: Iterable[Document]) -> bytes:
    """Return the bytes of an OCI image manifest made of descriptors."""
    document: Document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": list(layers)}
    return _dump(document, parse_manifest)


def build_index(manifests: Iterable[Document]) -> bytes:
    """Return the bytes of an OCI index made of descriptors."""
    document: Document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
    return _dump(document, parse_index)


def as_referrer(document: Document, digest: str, size: int) -> Document:
    """Return what a list of referrers says of a parsed manifest or index (distribution-spec, "Listing Referrers")."""
    kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
    extra = {"artifactType": kind, "annotations": document.get("annotations")}
    return descriptor(document["mediaType"], digest, size, **{key: value for key, value in extra.items() if value})


def _dump(document: Document, check: Any) -> bytes:
    data = jsontext.dumps(document)
    check(data)
    return data


def _load(data: bytes, what: str) -> Document:
    if len(data) > MAX_DOCUMENT:
        raise IntegrityError(f"invalid {what}: it has {len(data)} bytes, at most {MAX_DOCUMENT} are accepted")
    try:
        return _object(jsontext.loads(data, what), what)
    except InvalidArgument as exc:
        raise IntegrityError(exc.message) from exc


def _check_manifest(document: Document) -> None:
    check_descriptor(document.get("config"), "config descriptor of the manifest")
    layers = _typed(document, "layers", list, "manifest", required=True)
    if len(layers) > MAX_LAYERS:
        raise IntegrityError(f"invalid manifest: it has {len(layers)} layers, at most {MAX_LAYERS} are accepted")
    for layer in layers:
        check_descriptor(layer, "layer descriptor of the manifest")
    _check_strings(document.get("annotations"), "annotations of the manifest")
    _check_relation(document, "manifest")


def _check_index(document: Document) -> None:
    for entry in _typed(document, "manifests", list, "index", required=True):
        check_descriptor(entry, "manifest descriptor of the index")
    _check_strings(document.get("annotations"), "annotations of the index")
    _check_relation(document, "index")


def _check_relation(document: Document, what: str) -> None:
    """Check what makes an artifact of it (image-spec manifest.md: `artifactType`, `subject`)."""
    _typed(document, "artifactType", str, what)
    if document.get("subject") is not None:
        check_descriptor(document["subject"], f"subject of the {what}")


def _object(value: object, what: str) -> Document:
    if not isinstance(value, dict):
        raise IntegrityError(f"invalid {what}: it is not an object")
    return value


def _typed(document: Document, key: str, kind: type, what: str, *, required: bool = False) -> Any:
    value = document.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, kind):
        raise IntegrityError(f"invalid {what}: {key} is not a {kind.__name__}")
    return value


def _check_strings(value: object, what: str) -> None:
    if value is None:
        return
    if not all(isinstance(text, str) for text in _object(value, what).values()):
        raise IntegrityError(f"invalid {what}: a value is not a string")
