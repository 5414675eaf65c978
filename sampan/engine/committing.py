"""`commit`: what a container changed becomes a layer, and the container an image.

The layer is what the helper packs of the upper directory, as a build step's is; the processes stand still meanwhile,
where a freezer is there.  The image's configuration is the container's own, then `changes`.
"""

from __future__ import annotations

import os
import time

from sampan.build import commit as images
from sampan.build import solve
from sampan.build.stores import Claim
from sampan.engine import changes as instructions
from sampan.engine import differences, matching
from sampan.errors import NotFound, NotSupported, Unavailable
from sampan.oci import health, timestamp
from sampan.oci import image as documents
from sampan.oci import reference as references
from sampan.oci.layer import TarReader
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record
    from sampan.store.images import Image


class Still:
    """Keep a running container's processes from changing files within a `with` block; a paused one stays paused."""

    def __init__(self, engine: Engine, record: Record, wanted: bool) -> None:
        self.engine = engine
        self.record = record
        self.wanted = wanted and record.status == "running"
        self.placement: cgroup.Placement | None = None

    def __enter__(self) -> Still:
        if self.wanted:
            placement = cgroup.named(self.record.id)
            try:
                cgroup.freeze(placement)
                self.placement = placement
            except (NotSupported, Unavailable) as exc:
                self.engine.warn([f"container {self.record.name} was not paused during the commit: {exc.message}"])
        return self

    def __exit__(self, *_: object) -> None:
        if self.placement is not None:
            cgroup.thaw(self.placement)


def commit(
    engine: Engine,
    name: str,
    reference: str = "",
    *,
    author: str = "",
    message: str = "",
    changes: Iterable[str] = (),
    pause: bool = True,
) -> str:
    """Make an image of a container and give its id; when it returns the image is on disk.

    `changes` are Dockerfile instructions that set the configuration; InvalidArgument for those that need a build.
    """
    record = engine.containers.get(name)
    full = references.new_name(reference) if reference else ""
    base = _base(engine, record)
    state = solve.state_of(base)
    state.config = instructions.config_of(changes, configuration(record, state.config))
    documents.check_run_config(state.config)
    state.author = author
    claim = Claim(engine.store)
    try:
        diff_id, size = _layer(engine, record, claim, pause)
        if diff_id:
            state.diff_ids.append(diff_id)
            state.sizes[diff_id] = size
        row = {"created": timestamp.format(time.time_ns()), "created_by": " ".join(state.config.get("Cmd") or ())}
        extra: dict[str, Any] = {"author": author, "comment": message, "empty_layer": not diff_id}
        state.history.append({**row, **{key: value for key, value in extra.items() if value}})
        image_id, _ = images.image(engine.store, claim, state, [full] if full else [], no_cache=True)
        if full:
            named = {"name": references.parse(full).familiar()}
            engine.events.emit("image", "tag", image_id, {**(state.config.get("Labels") or {}), **named})
    finally:
        claim.release()
    engine.events.container("commit", record, comment=message, imageID=image_id, imageRef=full)
    return image_id


def _base(engine: Engine, record: Record) -> Image:
    try:
        return engine.images.resolve(record.image_id)
    except NotFound as exc:
        raise NotFound(
            f"cannot commit container {record.name}: its image {record.image_reference} is gone",
            "use `sampan export` and `sampan import` instead",
        ) from exc


def _layer(engine: Engine, record: Record, claim: Claim, pause: bool) -> tuple[str, int]:
    """Store the changes as a layer, packed and unpacked; give its diff_id ("" for no change) and its size."""
    store, lease = engine.store, claim.lease()
    if record.config["layers"]:
        lease.hold(*record.config["layers"])
    with store.content.ingest(lease=lease) as ingest:
        opaque = rootfs.opaque_name(engine.host.rootless)
        with differences.Below(engine, record) as below, Still(engine, record, pause):
            entries = differences.entries(engine, record, below, contents=True)
            count, _ = images.pack(entries, opaque, ingest.write)
        if not count:
            return "", 0
        diff_id, size = ingest.commit()
    _unpack(engine, claim, diff_id)
    return diff_id, size


def _unpack(engine: Engine, claim: Claim, diff_id: str) -> None:
    """Make the snapshot of a layer whose archive is in the store."""
    from sampan.transfer import layers

    store = engine.store
    if store.snapshots.find(diff_id) is not None:
        claim.lease().hold(diff_id)
        return
    active = store.snapshots.prepare()
    fd = store.content.open(diff_id)
    try:
        unpacked = layers.unpack(TarReader(lambda count: os.read(fd, count)), engine.host.facts(), active.upper)
        store.snapshots.commit(active, diff_id, size=unpacked, lease=claim.lease())
    except BaseException:
        store.snapshots.abort(active)
        raise
    finally:
        os.close(fd)


def configuration(record: Record, image: dict[str, Any]) -> dict[str, Any]:
    """Give the run configuration of a container: its image's, with what it was made with (image-spec config.md)."""
    asked = record.options
    found = {key: value for key, value in image.items() if value is not None}
    if asked.get("entrypoint") is not None:
        found["Entrypoint"] = asked["entrypoint"]
        found.pop("Cmd", None)  # the image's was meant for its own entry point
    if asked.get("command"):
        found["Cmd"] = asked["command"]
    env = {entry.partition("=")[0]: entry for entry in [*(image.get("Env") or ()), *(asked.get("env") or ())]}
    if env:
        found["Env"] = [entry for entry in env.values() if "=" in entry]
    for key, field in (("WorkingDir", "workdir"), ("User", "user"), ("StopSignal", "stop_signal")):
        if asked.get(field):
            found[key] = asked[field]
    check = health.healthcheck(image, RunOptions(**asked))
    if check is not None:
        found["Healthcheck"] = check
    if asked.get("expose"):
        ports: dict[str, Any] = {port: {} for text in asked["expose"] for port in matching.ports(text)}
        found["ExposedPorts"] = {**(image.get("ExposedPorts") or {}), **ports}
    if record.labels:
        found["Labels"] = dict(record.labels)
    unnamed: dict[str, Any] = {
        mount[2]: {} for mount in asked.get("mounts") or () if mount[0] == "volume" and not mount[1]
    }
    if unnamed:
        found["Volumes"] = {**(image.get("Volumes") or {}), **unnamed}
    return found
