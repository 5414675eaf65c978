"""What a reader found in an archive: images whose documents are checked, and whose layers are still to be read."""

from __future__ import annotations

from sampan.errors import IntegrityError, InvalidArgument, SampanError
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MAX_IMAGES = 512  # in one archive
MAX_BYTES = 64 << 20  # of an archive's documents, all of which are held


class Wanted:
    """One layer to read: its `name` in the archive, its diff_id, and its descriptor where the archive has one."""

    __slots__ = ("descriptor", "diff_id", "digest", "name", "size")

    def __init__(self, name: str, diff_id: str, descriptor: dict[str, Any] | None = None) -> None:
        self.name = name
        self.diff_id = diff_id
        self.descriptor = descriptor
        self.digest: str = descriptor["digest"] if descriptor else ""
        self.size: int = descriptor["size"] if descriptor else -1


class Found:
    """One image: full reference texts, the config's bytes, its layers; the manifest's bytes if the archive has one.

    Of an artifact there are only the manifest and the descriptors of its `blobs`.
    """

    __slots__ = ("blobs", "config", "layers", "manifest", "names")

    def __init__(self, names: list[str], config: bytes, layers: list[Wanted], manifest: bytes = b"") -> None:
        self.names = names
        self.config = config
        self.layers = layers
        self.manifest = manifest
        self.blobs: list[dict[str, Any]] = []

    def add_names(self, names: list[str]) -> None:
        """Add full references that are not there yet."""
        self.names += [name for name in names if name not in self.names]


def objects(value: object, what: str) -> list[dict[str, Any]]:
    """Check that a value is a list of JSON objects."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise IntegrityError(f"cannot load {what}: it is not a list of objects")
    return value


def strings(value: object, what: str) -> list[str]:
    """Check that a value is a list of texts; null counts as empty."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise IntegrityError(f"cannot load {what}: it is not a list of strings")
    return value


def names(texts: list[str], what: str) -> list[str]:
    """Give the full references, with their tags, that an archive's author wrote.

    A digest without a tag names nothing here: above all not `latest`.
    """
    try:
        parsed = [reference.parse(text) for text in texts]
    except InvalidArgument as exc:
        raise IntegrityError(f"cannot load {what}: {exc.message}") from exc
    return [str(one.with_tag(one.tag)) for one in parsed if one.tag]


def locate(exc: SampanError, what: str, verb: str = "load") -> SampanError:
    """Say in an error which archive it is about, and give it back."""
    reason = exc.message
    for begin in ("cannot read the archive: ", f"cannot read {what}: ", f"cannot {verb} {what}: "):
        reason = reason.removeprefix(begin)
    exc.message = f"cannot {verb} {what}: {reason}"
    exc.args = (exc.message,)
    if isinstance(exc, IntegrityError) and not exc.hint:
        exc.hint = "it is damaged or incomplete: copy or download it again"
    return exc
