"""Images in the archive that `docker save` writes: manifest.json names each image's config, layers and tags.

Nothing in it has a digest but what the config says: layers are checked against its diff_ids, and the config's own
digest becomes the image's id.
"""

from __future__ import annotations

import os

from sampan.errors import IntegrityError, InvalidArgument, counted
from sampan.oci import image, jsontext
from sampan.transfer import found
from sampan.transfer.found import Found, Wanted
from sampan.transfer.tarindex import normalise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.transfer.archive import Archive

MANIFEST = "manifest.json"


def find(archive: Archive) -> list[Found]:
    """Give the images of a Docker archive, each once with all of its names."""
    images: dict[tuple[str, ...], Found] = {}
    configs: dict[str, tuple[bytes, list[str]]] = {}
    for entry in entries(archive):
        members = _members(archive, entry)
        if members not in images:
            images[members] = _image(archive, members, configs)
        images[members].add_names(tags(archive, entry))
        if len(images) > found.MAX_IMAGES:
            raise IntegrityError(f"cannot load {archive.what}: it has more than {found.MAX_IMAGES} images")
    return list(images.values())


def entries(archive: Archive) -> list[dict[str, Any]]:
    """Give the entries of manifest.json."""
    what = f"{archive.what}: its {MANIFEST}"
    try:
        value = jsontext.loads(archive.read(MANIFEST), MANIFEST)
    except InvalidArgument as exc:
        raise found.locate(IntegrityError(exc.message), archive.what) from exc
    return found.objects(value, what)


def _members(archive: Archive, entry: dict[str, Any]) -> tuple[str, ...]:
    """Give the members that an entry names: its config, then its layers."""
    what = archive.what
    text = entry.get("Config")
    if not isinstance(text, str) or not text:
        raise IntegrityError(f"cannot load {what}: its {MANIFEST} names no config")
    layers = found.strings(entry.get("Layers"), f"{what}: its list of layers")
    return tuple(_member(archive, name) for name in (text, *layers))


def _image(archive: Archive, members: tuple[str, ...], configs: dict[str, tuple[bytes, list[str]]]) -> Found:
    name, *layers = members
    if name not in configs:
        config = archive.read(name)
        configs[name] = config, image.diff_ids(image.parse_config(config))
        if sum(len(one) for one, _ in configs.values()) > found.MAX_BYTES:
            raise IntegrityError(f"cannot load {archive.what}: its configs have more than {found.MAX_BYTES} bytes")
    for member in layers:
        if not archive.has(member):
            raise archive.missing(member)
    config, ids = configs[name]
    if len(ids) != len(layers):
        raise IntegrityError(
            f"cannot load {archive.what}: {MANIFEST} has {counted(len(layers), 'layer')}, the config {len(ids)}"
        )
    return Found([], config, [Wanted(member, ids[i]) for i, member in enumerate(layers)])


def tags(archive: Archive, entry: dict[str, Any]) -> list[str]:
    """Give the full references of one entry."""
    texts = found.strings(entry.get("RepoTags"), f"{archive.what}: its list of tags")
    return found.names(texts, archive.what)


def _member(archive: Archive, name: str) -> str:
    try:
        return normalise(os.fsencode(name))
    except (IntegrityError, UnicodeEncodeError) as exc:
        raise IntegrityError(f"cannot load {archive.what}: {MANIFEST} names {name[:200]!r}, outside of it") from exc
