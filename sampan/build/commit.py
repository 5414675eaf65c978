"""What a step left becomes a layer, and what a build left becomes an image.

The layer is the exact difference: the helper packs the step's upper directory alone, names sorted, and the archive is
stored uncompressed, so that its digest is the diff_id. A step that changed nothing has no layer. An image is looked
up before it is made: the same layers and configuration are the same image, with the times of its first build.
"""

from __future__ import annotations

import time

from sampan.build import keys
from sampan.errors import NotFound
from sampan.oci import image as images
from sampan.oci import jsontext, reference, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.build.execute import Executor, Root
    from sampan.build.metadata import State
    from sampan.build.stores import Claim
    from sampan.oci.entry import Source
    from sampan.store.leases import Lease
    from sampan.store.parts import Store
    from sampan.store.snapshots import Active


def execute(
    store: Store, claim: Claim, executor: Executor, layers: list[str], work: Callable[[Root], None]
) -> tuple[str, int]:
    """Do `work` on a new root above `layers`; give diff_id and size of the new layer, or ("", 0) for no change."""
    from sampan.build.execute import Root
    from sampan.runtime import launch

    lease = claim.lease()
    active = store.snapshots.prepare()
    try:
        root = Root(layers, active)
        work(root)
        diff_id, size = _layer(store, lease, executor, root, active)
        if diff_id:
            claim.made.append(diff_id)
        return diff_id, size
    except BaseException:
        launch.settle()  # one that was still starting, say, must not make what is being removed
        raise
    finally:
        store.snapshots.abort(active)


def seal(store: Store, claim: Claim) -> None:
    """Make the layers of all steps durable, those of other stages too: they are found again after a reboot."""
    from sampan.store import snapshots

    snapshots.seal(store.db, store.paths, claim.made)


def _layer(store: Store, lease: Lease, executor: Executor, root: Root, active: Active) -> tuple[str, int]:
    with store.content.ingest(lease=lease) as ingest:
        count, unpacked = pack(executor.diff(root), executor.opaque_name(), ingest.write)
        if not count:
            return "", 0
        diff_id, size = ingest.commit()
    # Made durable with all others of the build, by one syncfs at its end: after a power cut a step is worked again.
    store.snapshots.commit(active, diff_id, size=unpacked, lease=lease, durable=False)
    return diff_id, size


def pack(entries: Source, opaque: str, write: Callable[[bytes], object]) -> tuple[int, int]:
    """Write the archive of an upper directory's entries; give how many there are, and the sum of their files' sizes.

    The root directory is there in every image: its times would make each step a change.
    """
    from sampan.oci.layer import TarWriter, from_overlay
    from sampan.transfer.ahead import Behind

    count = size = 0
    with Behind(write) as behind:
        tar = TarWriter(behind.write)
        for entry, content in from_overlay(entries, opaque):
            if entry.path:
                tar.add(entry, content)
                size += entry.size
                count += 1
        if count:
            tar.close()
    return count, size


def image(
    store: Store, claim: Claim, state: State, names: Sequence[str] = (), no_cache: bool = False
) -> tuple[str, list[str]]:
    """Store and name the image that a state describes; give its id and the full names."""
    document = _document(state, "")
    key = keys.key("image", jsontext.dumps(document, sort_keys=True), state.manifest)
    full = [str(reference.parse(name)) for name in names]
    known = None if no_cache else store.buildcache.get(key)
    if known is not None:
        try:
            found = claim.image(known["manifest"])
            _tag(store, full, found.manifest_digest)
            return found.id, full
        except NotFound:
            created = str(known["created"])
    else:
        created = timestamp.format(time.time_ns() // 1_000_000_000 * 1_000_000_000)
    image_id, manifest = _store(store, claim.lease(), _document(state, created), _layers(store, state), full)
    store.buildcache.put(key, {"manifest": manifest, "created": created})
    return image_id, full


def _tag(store: Store, names: list[str], manifest: str) -> None:
    """Point references at an image that is here; those that name it already cost nothing."""
    anew = [name for name in names if not _is_named(store, name, manifest)]
    if anew:
        store.images.tag_all(anew, manifest)


def _is_named(store: Store, name: str, manifest: str) -> bool:
    try:
        return store.images.resolve(name).manifest_digest == manifest
    except NotFound:
        return False


def _document(state: State, created: str) -> dict[str, Any]:
    """Give the image configuration; rows that have no time of their own get `created`."""
    rows = []
    for row in state.history:
        rows.append({**row, "created": created} if row.get("created") == "" else row)
    document: dict[str, Any] = {"created": created, **state.platform, "config": state.config}
    if state.author:
        document["author"] = state.author
    document["rootfs"] = {"type": "layers", "diff_ids": state.diff_ids}
    document["history"] = rows
    return document


def _layers(store: Store, state: State) -> list[dict[str, Any]]:
    """Give the descriptors of all layers: those of the base image's manifest, then our own."""
    found: list[dict[str, Any]] = []
    if state.manifest:
        base = images.parse_manifest(store.content.read(state.manifest))
        for layer in base["layers"]:
            kind = images.OCI_LAYERS[images.compression(layer["mediaType"])]
            found.append(images.descriptor(kind, layer["digest"], layer["size"]))
    for diff_id in state.diff_ids[len(found) :]:
        found.append(images.descriptor(images.OCI_LAYER, diff_id, state.sizes[diff_id]))
    return found


def _store(
    store: Store, lease: Lease, document: dict[str, Any], layers: list[dict[str, Any]], names: list[str]
) -> tuple[str, str]:
    config = images.build_config(document)
    config_digest = store.content.add(config, lease=lease)
    manifest = images.build_manifest(images.descriptor(images.OCI_CONFIG, config_digest, len(config)), layers)
    manifest_digest = store.content.add(manifest, lease=lease)
    with store.db.transaction():  # one: nobody removes it before it has its names
        found = store.images.put(manifest_digest)
        if names:
            store.images.tag_all(names, manifest_digest)
    return found.id, manifest_digest
