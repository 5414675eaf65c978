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
    """Give the images of a Docker archive."""
    return [_image(archive, entry) for entry in entries(archive)]


def entries(archive: Archive) -> list[dict[str, Any]]:
    """Give the entries of manifest.json."""
    what = f"{archive.what}: its {MANIFEST}"
    try:
        value = jsontext.loads(archive.read(MANIFEST), MANIFEST)
    except InvalidArgument as exc:
        raise found.locate(IntegrityError(exc.message), archive.what) from exc
    return found.objects(value, what)


def _image(archive: Archive, entry: dict[str, Any]) -> Found:
    what = archive.what
    text = entry.get("Config")
    if not isinstance(text, str) or not text:
        raise IntegrityError(f"cannot load {what}: its {MANIFEST} names no config")
    config = archive.read(_member(archive, text))
    members = [_member(archive, text) for text in found.strings(entry.get("Layers"), f"{what}: its list of layers")]
    for member in members:
        if not archive.has(member):
            raise archive.missing(member)
    ids = image.diff_ids(image.parse_config(config))
    if len(ids) != len(members):
        raise IntegrityError(
            f"cannot load {what}: {MANIFEST} has {counted(len(members), 'layer')}, the config {len(ids)}"
        )
    return Found(tags(archive, entry), config, [Wanted(member, ids[i]) for i, member in enumerate(members)])


def tags(archive: Archive, entry: dict[str, Any]) -> list[str]:
    """Give the full references of one entry."""
    texts = found.strings(entry.get("RepoTags"), f"{archive.what}: its list of tags")
    return [found.name(text, archive.what) for text in texts]


def _member(archive: Archive, name: str) -> str:
    try:
        return normalise(os.fsencode(name))
    except (IntegrityError, UnicodeEncodeError) as exc:
        raise IntegrityError(f"cannot load {archive.what}: {MANIFEST} names {name[:200]!r}, outside of it") from exc
