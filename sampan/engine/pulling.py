"""`Engine.images.pull`: what a name means is decided here, what moves is transfer's."""

from __future__ import annotations

import os
import sys

from sampan.errors import IntegrityError, InvalidArgument, NotFound, SampanError, Unavailable
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.transfer import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.reference import Reference
    from sampan.registry.connect import Registries
    from sampan.store.images import Image
    from sampan.store.leases import Lease
    from sampan.store.parts import Store
    from sampan.transfer.copy import Picture
    from sampan.transfer.events import Listen
    from sampan.transfer.registries import RegistrySource


class Pulled:
    """One reference that was pulled: its `digest` at the registry, the `image` and its `id`, and whether anything is
    `new`."""

    __slots__ = ("digest", "id", "image", "new", "reference")

    def __init__(self, ref: Reference, digest: str, image: Image, new: bool) -> None:
        self.reference = ref
        self.digest = digest
        self.image = image
        self.id = image.id
        self.new = new


def registries(listen: Listen | None = None) -> Registries:
    """Give what speaks to registries, with this process's environment.

    What makes it wait is said to `listen`, or where nobody listens, on standard error.
    """
    from sampan.registry.connect import Registries

    def tell(line: str) -> None:
        if listen is not None:
            listen(events.Event(events.TEXT, text=line))
        else:
            shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
            sys.stderr.write(f"sampan: {shown}\n")

    return Registries(os.environ, tell)


def pull(
    engine: Engine,
    name: str,
    *,
    platform: str = "",
    all_tags: bool = False,
    listen: Listen = events.ignore,
    lease: Lease | None = None,
) -> list[Pulled]:
    """Pull what a reference names, or all tags of its repository; give what there is now, in the order of the tags.

    With a `lease` that one keeps it, whoever removes it afterwards.
    """
    ref = reference.parse(name, default_tag=not all_tags)
    if all_tags and (ref.tag or ref.digest):
        raise InvalidArgument(f"cannot pull all tags of {name}: it has a tag or digest", "name the repository alone")
    wanted = platforms.parse(platform) if platform else platforms.host()
    speaker = registries(listen)
    try:
        if not all_tags:
            return [_one(engine, speaker, ref, wanted, bool(platform), listen, lease)]
        return [
            _one(engine, speaker, tagged, wanted, bool(platform), listen, lease)
            for tagged in _tagged(speaker, ref, listen)
        ]
    finally:
        speaker.close()


def _tagged(speaker: Registries, ref: Reference, listen: Listen) -> list[Reference]:
    from sampan.registry import referrers

    try:
        tags = _tags(speaker, ref)
    except SampanError as exc:
        _name(exc, ref)
        raise
    tags = [tag for tag in tags if not referrers.is_tag(tag)]
    if not tags:
        raise NotFound(f"cannot pull all tags of {ref.familiar_name()}: it has none")
    return [ref.with_tag(tag) for tag in tags]


def _tags(speaker: Registries, ref: Reference) -> list[str]:
    """List the tags that the registry has; where it cannot be reached, those of the first mirror that can be."""
    try:
        return speaker.repositories(ref, push=True)[0].tags()  # a mirror may have a few of them only
    except Unavailable:
        for mirror in speaker.repositories(ref)[:-1]:
            try:
                return mirror.tags()
            except SampanError:
                continue  # the registry's own failure is told
        raise


def _one(
    engine: Engine,
    speaker: Registries,
    ref: Reference,
    wanted: platforms.Platform,
    strict: bool,
    listen: Listen,
    lease: Lease | None,
) -> Pulled:
    source = _source(engine, speaker, ref, wanted, strict, listen)
    listen(events.Event(events.TEXT, text=_greeting(ref)))

    def names(picture: Picture) -> list[str]:
        at_digest = f"{ref.name}@{source.digest}"
        # Docker: a tag beside a digest is not looked at, and not given.
        found = [at_digest] if ref.digest else [str(ref), at_digest]
        if any(not documents.compression(layer["mediaType"]) for layer in _layers(picture)):
            found.append(f"{ref.name}@{picture.digest}")  # by it `push` knows that plain layers are to stay so
        return list(dict.fromkeys(found))

    before = _known(engine, str(ref))
    try:
        name = f"{ref.name}@{source.locate()}"
        here = _complete(engine, name, wanted)
        if here is not None and _taken(engine, here, str(ref) if not ref.digest else name, lease):
            engine.events.emit("image", "pull", ref.familiar(), {"name": ref.familiar_name()})
            return Pulled(ref, name.partition("@")[2], here, before != here.manifest_digest)
        from sampan.store import gc
        from sampan.transfer import pull as moving

        gc.sweep(engine.store.paths, remove_tree=engine.remove_tree)
        found, _ = moving.pull(
            engine.store,
            source,
            names,
            engine.host.facts,
            moving.crew(speaker.interrupt),
            listen=listen,
            lease=lease,
        )
    except SampanError as exc:
        _name(exc, ref)
        raise
    _warn_of_platform(engine, found.config, wanted, ref)
    engine.events.emit("image", "pull", ref.familiar(), {"name": ref.familiar_name()})
    return Pulled(ref, source.digest, found, before != found.manifest_digest)


def _taken(engine: Engine, found: Image, name: str, lease: Lease | None) -> bool:
    """Name an image that is here, and keep it; False when it was removed meanwhile."""
    images = engine.store.images
    try:
        with engine.store.db.transaction():
            images.tag(name, found.manifest_digest)
            if lease is not None:
                images.hold(found, lease)
    except NotFound:
        return False
    return True


def _layers(picture: Picture) -> list[dict[str, Any]]:
    return list(picture.document["layers"]) if picture.is_image else []


def _source(
    engine: Engine, speaker: Registries, ref: Reference, wanted: platforms.Platform, strict: bool, listen: Listen
) -> RegistrySource:
    """Give the registry's image; of its documents none is fetched that is here, or that another pull is fetching."""
    from sampan.store.leases import Leases
    from sampan.store.partials import open_partial
    from sampan.transfer.registries import RegistrySource

    content = engine.store.content

    def local(digest: str) -> bytes | None:
        try:
            return content.read(digest) if content.has(digest) else None
        except IntegrityError:
            return None  # damaged: fetched anew

    def once(digest: str, fetch: Callable[[], bytes]) -> bytes:
        paths = engine.store.paths
        with Leases(engine.store.db).take("pull") as lease, open_partial(paths, digest, lease) as partial:
            lease.hold(digest)
            if partial is not None:
                partial.discard()  # what a crash left of so small a blob is not worth a Range
            known = local(digest)
            if known is None:
                known = fetch()
                content.add(known, expected=digest, lease=lease)
            return known

    places = speaker.repositories(ref)
    return RegistrySource(ref, places, wanted, strict=strict, listen=listen, local=local, once=once)


def _complete(engine: Engine, name: str, wanted: platforms.Platform) -> Image | None:
    """Give the image that a repository's digest is known to mean, if all of it is here."""
    store = engine.store
    try:
        found = store.images.resolve(name) if not name.endswith("@") else None
    except NotFound:
        return None
    if found is None or not platforms.matches(wanted, platforms.from_descriptor(found.config)):
        return None
    whole = all(store.snapshots.find(diff_id) for diff_id in found.diff_ids)
    return found if whole and _has_blobs(store, found) else None


def _has_blobs(store: Store, found: Image) -> bool:
    """Tell whether all blobs of an image are here with their sizes; what is inside them `system check` compares."""
    try:
        manifest = documents.parse_manifest(store.content.read(found.manifest_digest))
        if manifest["config"]["mediaType"] in documents.CONFIGS:
            store.content.read(manifest["config"]["digest"])
    except (NotFound, IntegrityError, InvalidArgument):
        return False
    return all(store.content.holds(one["digest"], one["size"]) for one in (manifest["config"], *manifest["layers"]))


def _greeting(ref: Reference) -> str:
    return f"{ref.digest or ref.tag}: Pulling from {ref.familiar_name() if ref.domain != 'docker.io' else ref.path}"


def _known(engine: Engine, name: str) -> str:
    try:
        return str(engine.store.images.resolve(name).manifest_digest)
    except NotFound:
        return ""


def _name(exc: SampanError, ref: Reference) -> None:
    """Say what was pulled, where the error is about a part of it only."""
    if not exc.message.startswith("cannot pull"):
        reason = exc.message.removeprefix(f"cannot use {ref.familiar()}: ")
        exc.message = f"cannot pull {ref.familiar()}: {reason}"
        exc.args = (exc.message,)


def _warn_of_platform(engine: Engine, config: dict[str, Any], wanted: platforms.Platform, ref: Reference) -> None:
    offered = platforms.from_descriptor(config)
    if config and not platforms.matches(wanted, offered):
        engine.warn([f"{ref.familiar()} is for {offered}, this host is {wanted}"])


def obtain(
    engine: Engine,
    name: str,
    policy: str,
    platform: str = "",
    listen: Listen = events.ignore,
    lease: Lease | None = None,
) -> Image:
    """Pull an image where `policy` asks for it: "always", "missing" (when it is not here), "never"; give it.

    NotFound says both: that it is not here, and why it cannot be pulled. With a `lease` that one keeps it.
    """
    absent: NotFound | None = None
    try:
        found: Image = engine.images.resolve(name) if lease is None else engine.store.images.claim(name, lease)
    except NotFound as exc:
        absent = exc
    else:
        fits = not platform or platforms.matches(platforms.parse(platform), platforms.from_descriptor(found.config))
        if policy == "never" or (policy != "always" and fits):
            return found
    if policy == "never" and absent is not None:
        raise absent
    try:
        reference.parse(name)
    except InvalidArgument:
        if absent is not None:
            raise absent from None  # an id: there is nothing to ask a registry for
        raise
    if absent is not None:
        listen(events.Event(events.TEXT, text=f"Unable to find image '{name}' locally"))
    try:
        return pull(engine, name, platform=platform, listen=listen, lease=lease)[0].image
    except SampanError as exc:
        if absent is None:
            raise
        raise NotFound(f"{absent.message}; {exc.message}", exc.hint or absent.hint) from exc
