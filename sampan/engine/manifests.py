"""Manifests in registries, and indexes made of them: `manifest inspect`, `create`, `annotate`, `push`, `rm`."""

from __future__ import annotations

from sampan.engine.pulling import registries
from sampan.errors import Conflict, IntegrityError, InvalidArgument, NotFound
from sampan.oci import image, jsontext, platform, reference
from sampan.store.manifestlists import ManifestLists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.reference import Reference
    from sampan.registry.connect import Registries
    from sampan.transfer.registries import RegistrySource

_INSPECT = "inspect"  # what errors say was tried
_MOST = 512  # manifests of an index that are fetched, each of which may have 4 MiB
_FROM = "sampan.from"  # kept beside a descriptor: the repository that has the manifest


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    """Give a list that is made here, else the manifest or index of a registry, as it is there."""
    ref = reference.parse(name)
    lists = ManifestLists(engine.store.db)
    if lists.has(str(ref)):
        value: dict[str, Any] = jsontext.loads(_index(lists.get(str(ref)))[0])
        return value
    speaker = registries()
    try:
        document: dict[str, Any] = jsontext.loads(_source(speaker, ref).top().data)
        return document
    finally:
        speaker.close()


def describe(name: str) -> list[dict[str, Any]]:
    """Give, for each manifest that a reference leads to, its reference, descriptor and document (`--verbose`)."""
    ref = reference.parse(name)
    speaker = registries()
    try:
        top = _source(speaker, ref).top()
        if top.media_type not in image.INDEXES:
            return [_described(ref, _descriptor(speaker, ref, top), top.document)]
        repository = speaker.repositories(ref, verb=_INSPECT)[0]
        found: list[dict[str, Any]] = []
        if len(top.document["manifests"]) > _MOST:
            raise IntegrityError(f"cannot inspect {ref.familiar()}: it lists more than {_MOST} manifests")
        for entry in top.document["manifests"]:
            below = repository.manifest(entry["digest"], entry["digest"])
            found.append(_described(ref.with_digest(entry["digest"]), entry, below.document))
        return found
    finally:
        speaker.close()


def _described(ref: Reference, descriptor: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    # The keys of `docker manifest inspect --verbose` (docker/cli, cli/manifest/types).
    key = "SchemaV2Manifest" if descriptor.get("mediaType") == image.DOCKER_MANIFEST else "OCIManifest"
    return {"Ref": str(ref), "Descriptor": descriptor, key: document}


def _source(speaker: Registries, ref: Reference) -> RegistrySource:
    from sampan.transfer.registries import RegistrySource

    return RegistrySource(ref, speaker.repositories(ref, verb=_INSPECT), None)


def referrers(name: str, artifact_type: str = "", platform_name: str = "") -> list[dict[str, Any]]:
    """List the descriptors of what refers to an image in its registry: signatures, SBOMs and other artifacts.

    A name for several platforms is asked for as a whole, unless `platform_name` chooses one.
    """
    from sampan.registry import referrers
    from sampan.transfer.registries import RegistrySource

    ref = reference.parse(name)
    wanted = platform.parse(platform_name) if platform_name else None
    speaker = registries()
    try:
        source = RegistrySource(ref, speaker.repositories(ref, verb=_INSPECT), wanted, strict=True)
        digest = source.picture().digest if wanted is not None else source.locate() or source.top().digest
        return referrers.ls(speaker.repositories(ref, verb=_INSPECT)[0], digest, artifact_type)
    finally:
        speaker.close()


def _descriptor(speaker: Registries, ref: Reference, manifest: Any) -> dict[str, Any]:
    """Give the descriptor of an image's manifest, with the platform that its config names."""
    described = image.descriptor(manifest.media_type, manifest.digest, len(manifest.data))
    config = manifest.document["config"]
    if config["mediaType"] not in image.CONFIGS:
        return described
    data = _source(speaker, ref).document(config)
    described["platform"] = platform.from_descriptor(image.parse_config(data)).descriptor()
    return described


def create(engine: Engine, name: str, members: Sequence[str], *, amend: bool = False) -> str:
    """Make a list of manifests that are in registries, all of them of the same one; give its full name."""
    full = reference.parse(name)
    lists = ManifestLists(engine.store.db)
    if full.digest:
        raise InvalidArgument(f"cannot make a manifest list {name}: its digest follows from what it lists")
    if lists.has(str(full)) and not amend:
        raise Conflict(f"cannot make manifest list {full.familiar()}: it exists", "use --amend to add to it")
    entries = lists.get(str(full)) if lists.has(str(full)) else []
    speaker = registries()
    try:
        for member in members:
            for entry in _entries(speaker, full, reference.parse(member)):
                entries = [one for one in entries if one["digest"] != entry["digest"]] + [entry]
    finally:
        speaker.close()
    lists.put(str(full), entries)
    return str(full)


def _entries(speaker: Registries, full: Reference, member: Reference) -> list[dict[str, Any]]:
    if member.domain != full.domain:
        raise InvalidArgument(
            f"cannot put {member.familiar()} into {full.familiar()}: it is in another registry", "copy it there first"
        )
    top = _source(speaker, member).top()
    if top.media_type in image.INDEXES:
        return [{**entry, _FROM: member.path} for entry in top.document["manifests"]]
    return [{**_descriptor(speaker, member, top), _FROM: member.path}]


def annotate(engine: Engine, name: str, member: str, changes: dict[str, Any]) -> None:
    """Change what a list says of the platform of one of its manifests (keys of a descriptor's `platform`)."""
    full, wanted = reference.parse(name), reference.parse(member)
    lists = ManifestLists(engine.store.db)
    entries = lists.get(str(full))
    speaker = registries()
    try:
        digest = wanted.digest or _source(speaker, wanted).top().digest
    finally:
        speaker.close()
    found = next((entry for entry in entries if entry["digest"] == digest), None)
    if found is None:
        raise NotFound(f"cannot annotate {member}: it is not in {full.familiar()}")
    found["platform"] = {**found.get("platform", {}), **changes}
    lists.put(str(full), entries)


def _index(entries: list[dict[str, Any]]) -> tuple[bytes, str]:
    """Give an index's bytes and media type: Docker's kind when all that it lists is Docker's."""
    manifests = [{key: value for key, value in entry.items() if key != _FROM} for entry in entries]
    if manifests and all(entry["mediaType"] == image.DOCKER_MANIFEST for entry in manifests):
        document = {"schemaVersion": 2, "mediaType": image.DOCKER_INDEX, "manifests": manifests}
        return jsontext.dumps(document), image.DOCKER_INDEX
    return image.build_index(manifests), image.OCI_INDEX


def push(engine: Engine, name: str, *, purge: bool = False) -> str:
    """Send a list, and first the manifests that its repository lacks; give its digest."""
    from sampan.transfer import pull
    from sampan.transfer.copy import copy
    from sampan.transfer.push import RegistryDestination
    from sampan.transfer.registries import RegistrySource

    full = reference.parse(name)
    lists = ManifestLists(engine.store.db)
    entries = lists.get(str(full))
    if not entries:
        raise IntegrityError(f"cannot push {full.familiar()}: it lists nothing")
    speaker = registries()
    try:
        repository = speaker.repositories(full, push=True)[0]
        destination = RegistryDestination(repository, full.domain, [])
        for entry in entries:
            if not repository.has_manifest(entry["digest"]):
                member = reference.Reference(full.domain, entry[_FROM], "", entry["digest"])
                source = RegistrySource(member, speaker.repositories(member), None)
                copy(source, destination, pull.crew(speaker.interrupt))
        digest = repository.put_manifest(full.tag, *_index(entries))
    finally:
        speaker.close()
    if purge:
        lists.remove(str(full))
    return digest


def remove(engine: Engine, name: str) -> None:
    """Forget a list."""
    ManifestLists(engine.store.db).remove(str(reference.parse(name)))
