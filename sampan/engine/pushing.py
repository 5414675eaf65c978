"""`Engine.images.push`: which image goes under which names to which registry."""

from __future__ import annotations

from sampan.engine.pulling import registries
from sampan.errors import InvalidArgument, NotFound, NotSupported, SampanError
from sampan.oci import reference
from sampan.transfer import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.oci.reference import Reference
    from sampan.registry.connect import Registries
    from sampan.transfer.events import Listen


class Pushed:
    """One reference that was pushed: the `digest` and the `size` of its manifest."""

    __slots__ = ("digest", "reference", "size")

    def __init__(self, ref: Reference, digest: str, size: int) -> None:
        self.reference = ref
        self.digest = digest
        self.size = size


def push(
    engine: Engine, name: str, *, all_tags: bool = False, compression: str = "gzip", listen: Listen = events.ignore
) -> list[Pushed]:
    """Push the image that a reference names, or all tags of a repository that are here."""
    ref = reference.parse(name, default_tag=not all_tags)
    if ref.digest:
        raise InvalidArgument(f"cannot push {name}: it has a digest", "a push gives a tag; the digest follows from it")
    if all_tags and ref.tag:
        raise InvalidArgument(f"cannot push all tags of {name}: it has a tag", "name the repository alone")
    chosen = _tagged(engine, ref) if all_tags else [ref]
    for one in chosen:
        _check(engine, one)
    speaker = registries()
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


def _check(engine: Engine, ref: Reference) -> None:
    """Fail before anything is sent when an image is not here, or is no reference's but an id's."""
    image = engine.images.resolve(ref.familiar())
    if str(ref) not in image.references:
        raise NotFound(f"cannot push {ref.familiar()}: no image has that name", f"sampan tag {image.short_id} NAME")


def _one(engine: Engine, speaker: Registries, ref: Reference, compression: str, listen: Listen) -> Pushed:
    from sampan.transfer import pull, push
    from sampan.transfer.copy import copy

    image = engine.images.resolve(ref.familiar())
    repository = speaker.repositories(ref, push=True)[0]
    destination = push.RegistryDestination(repository, ref.domain, [ref.tag], listen)
    try:
        picture = copy(push.StoreSource(engine.store, image, compression), destination, pull.crew(speaker.interrupt))
    except NotSupported:
        raise
    except SampanError as exc:
        if not exc.message.startswith("cannot push"):
            exc.message = f"cannot push {ref.familiar()}: {exc.message}"
            exc.args = (exc.message,)
        raise
    # Under this digest it is known from now on: a pull of it has nothing to fetch.
    engine.store.images.tag(f"{ref.name}@{picture.digest}", image.manifest_digest)
    engine.events.emit("image", "push", ref.familiar(), {"name": ref.familiar_name()})
    return Pushed(ref, picture.digest, len(picture.data))
