"""`Engine.images.push`: which image goes under which names to which registry."""

from __future__ import annotations

from sampan.engine.pulling import registries
from sampan.errors import InvalidArgument, NotFound, NotSupported, SampanError
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.transfer import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.registry.connect import Registries
    from sampan.store.images import Image
    from sampan.transfer.events import Listen


AUTO = "auto"


class Pushed:
    """One reference that was pushed: the `digest` and the `size` of its manifest."""

    __slots__ = ("digest", "reference", "size")

    def __init__(self, ref: Reference, digest: str, size: int) -> None:
        self.reference = ref
        self.digest = digest
        self.size = size


def push(
    engine: Engine,
    name: str,
    *,
    all_tags: bool = False,
    compression: str = AUTO,
    platform: str = "",
    listen: Listen = events.ignore,
) -> list[Pushed]:
    """Push the image that a reference names, or all tags of a repository that are here.

    `compression` is for layers that lie here as plain tars: "gzip", "zstd", "" for as they are; AUTO leaves what was
    pulled as it came, so that its digest and what refers to it stay true, and compresses the rest with gzip.
    With `platform` nothing is sent unless all of them are for that platform, exactly.
    """
    ref = reference.parse(name, default_tag=not all_tags)
    if ref.digest:
        raise InvalidArgument(f"cannot push {name}: it has a digest", "a push gives a tag; the digest follows from it")
    if all_tags and ref.tag:
        raise InvalidArgument(f"cannot push all tags of {name}: it has a tag", "name the repository alone")
    chosen = _tagged(engine, ref) if all_tags else [ref]
    for one in chosen:
        _check(engine, one, platforms.parse(platform) if platform else None)
    speaker = registries(listen)
    try:
        listen(events.Event(events.TEXT, text=f"The push refers to repository [{ref.name}]"))
        return [_one(engine, speaker, one, compression, listen) for one in chosen]
    finally:
        speaker.close()


def _tagged(engine: Engine, ref: Reference) -> list[Reference]:
    names = sorted(name for image in engine.store.images.ls() for name in image.references)
    found = [parsed for parsed in map(reference.parse, names) if parsed.name == ref.name]
    if not found:
        raise NotFound(f"cannot push all tags of {ref.familiar_name()}: no image has that name")
    return found


def _check(engine: Engine, ref: Reference, wanted: Platform | None) -> None:
    """Fail before anything is sent when an image is not here, is only an id, or is for another platform."""
    try:
        image = engine.images.resolve(ref.familiar())
    except NotFound as exc:  # not to be got from elsewhere: it is here under another name
        exc.hint = exc.hint if "did you mean" in exc.hint else f"name what is here: sampan tag IMAGE {ref.familiar()}"
        raise
    if str(ref) not in image.references:
        raise NotFound(f"cannot push {ref.familiar()}: no image has that name", f"sampan tag {image.short_id} NAME")
    if wanted is not None and wanted != platforms.from_descriptor(image.config):
        there = platforms.from_descriptor(image.config) if image.config else "no platform: it is an artifact"
        raise NotFound(
            f"cannot push {ref.familiar()} for {wanted}: what is here is for {there}",
            "a store holds one platform under a name: pull or build the other one first",
        )


def compression_for(image: Image, wanted: str = AUTO) -> str:
    """Tell how an image's plain layers are to leave the store."""
    if wanted != AUTO:
        return wanted
    return "" if any(name.endswith("@" + image.manifest_digest) for name in image.digests) else "gzip"


def _note(engine: Engine, name: str, manifest: str) -> None:
    """Note the digest that an image has in a registry: a pull of it has nothing to fetch."""
    try:
        engine.store.images.tag(name, manifest)
    except NotFound:
        return  # removed while it was pushed


def _one(engine: Engine, speaker: Registries, ref: Reference, compression: str, listen: Listen) -> Pushed:
    from sampan.transfer import pull, push
    from sampan.transfer.copy import copy

    repository = speaker.repositories(ref, push=True)[0]
    destination = push.RegistryDestination(repository, ref.domain, [ref.tag], listen)
    try:
        with engine.store.leases.to_read("push") as lease:
            image = engine.images.resolve(ref.familiar(), lease)
            source = push.StoreSource(engine.store, image, compression_for(image, compression))
            picture = copy(source, destination, pull.crew(speaker.interrupt))
    except NotSupported:
        raise
    except SampanError as exc:
        if not exc.message.startswith("cannot push"):
            exc.message = f"cannot push {ref.familiar()}: {exc.message}"
            exc.args = (exc.message,)
        raise
    _note(engine, f"{ref.name}@{picture.digest}", image.manifest_digest)
    engine.events.emit("image", "push", ref.familiar(), {"name": ref.familiar_name()})
    return Pushed(ref, picture.digest, len(picture.data))
