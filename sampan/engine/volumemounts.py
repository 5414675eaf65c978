"""The volumes of a container: from mounts of type `volume` to directories of the store, filled from the image.

Docker's rules: a volume that is empty gets what the image has at the destination, with owners and modes, unless it is
mounted with `nocopy`; a volume without a name goes with its container (`run --rm`, `rm -v`), a named one never does.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.engine import matching
from sampan.errors import Conflict, Denied, InvalidArgument, NotFound, Unavailable
from sampan.store import files, leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.options import RunOptions
    from sampan.store.containers import Record


def attach(engine: Engine, spec: dict[str, Any], layers: list[str], container_id: str) -> None:
    """Turn volume mounts into binds of the store's directories, and make bind sources that may be made.

    Until the record of the container is in the store, a lease keeps its volumes.
    """
    anonymous: list[str] = []
    lease: leases.Lease | None = None
    try:
        for mount in spec["mounts"]:
            words = mount.get("options", [])
            if mount["type"] == "volume":
                now = time.time_ns()
                with engine.store.db.transaction():
                    lease = lease or engine.store.leases.take(leases.for_container(container_id))
                    volume = engine.store.volumes.create(mount["source"])
                    lease.hold(leases.VOLUME + volume.name)
                if volume.created >= now:
                    engine.events.emit("volume", "create", volume.name, {"driver": "local"})
                if not mount["source"]:
                    anonymous.append(volume.name)
                if "nocopy" not in words:
                    _fill(engine, volume.name, volume.path, layers, mount["destination"])
                mount["type"], mount["source"] = "bind", volume.path
                words = [*words, "rbind"]
            elif mount["type"] == "bind" and "create" in words and not os.path.lexists(mount["source"]):
                _make_source(mount["source"])
            mount["options"] = [word for word in words if word not in ("create", "nocopy")]
    except BaseException:
        let_go(engine, container_id)
        for path in release(engine, anonymous):
            engine.remove_tree(path)
        raise


def _make_source(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        kind = Denied if isinstance(error, PermissionError) else Unavailable
        raise kind(f"cannot make {path} to mount it: {error.strerror}", "the source of -v does not exist") from error


def let_go(engine: Engine, container_id: str) -> None:
    """End the lease on the volumes of a container that is not made after all, or has been."""
    engine.store.leases.end(leases.for_container(container_id))


def borrow(engine: Engine, spec: dict[str, Any], options: RunOptions) -> None:
    """Add the mounts of other containers (--volumes-from); own ones win, then the first that has a destination."""
    taken = {mount[2] for mount in options.mounts} | {text.partition(":")[0] for text in options.tmpfs}
    for word in options.volumes_from:
        name, _, mode = word.partition(":")
        if mode not in ("", "ro", "rw"):
            raise InvalidArgument(f"invalid --volumes-from {word[:200]!r}: the mode is ro or rw, not {mode[:40]!r}")
        for mount in matching.mounts(engine, engine.store.containers.get(name)):
            if mount["destination"] in taken:
                continue
            taken.add(mount["destination"])
            words = [text for text in mount["options"] if text not in ("ro", "rw") or not mode] + (
                [mode] if mode else []
            )
            borrowed = {
                "type": "bind",
                "source": mount["source"],
                "destination": mount["destination"],
                "options": words,
            }
            rest = [m for m in spec["mounts"] if m["destination"] != mount["destination"]]
            # In the place of one of ours, so that what is ours below it comes on top of it (oci/mounts.py).
            own = next((i for i, m in enumerate(spec["mounts"]) if m["destination"] == mount["destination"]), len(rest))
            spec["mounts"] = [*rest[:own], borrowed, *rest[own:]]


def unnamed(engine: Engine, record: Record) -> list[str]:
    """Give the names of the volumes that the container mounts though nobody named them when it was created."""
    inside = engine.store.paths.volumes + "/"
    sources = (str(mount.get("source") or "") for mount in record.spec["mounts"])
    names = (source[len(inside) :].partition("/")[0] for source in sources if source.startswith(inside))
    asked = {mount[1] for mount in record.options.get("mounts") or ()}
    return [name for name in names if name not in asked]


def release(engine: Engine, names: Iterable[str]) -> list[str]:
    """Forget those of the volumes that have no name of a user's choice, and give where their content is; one that
    another container uses stays.

    Within a transaction of the caller's, what else that forgets and these are forgotten together.
    """
    gone = []
    for name in names:
        try:
            if engine.store.volumes.get(name).anonymous:
                gone.append(engine.store.volumes.forget(name))
                engine.events.emit("volume", "destroy", name, {"driver": "local"})
        except (Conflict, NotFound):
            continue  # in use, or somebody was faster
    return gone


def _fill(engine: Engine, name: str, path: str, layers: list[str], destination: str) -> None:
    """Copy what the image has at the destination into the volume, if that is empty."""
    try:
        if not layers or os.listdir(path):
            return
    except PermissionError:
        return  # its owner is a mapped id: somebody has used it already
    from sampan.build.execute import HelperExecutor
    from sampan.engine import starter

    image = HelperExecutor(engine.store, engine.host, starter)
    try:
        if image.kind(layers, destination) == "D":
            _copy(engine, name, path, image.pack(layers, destination))
    finally:
        image.close()


def _copy(engine: Engine, name: str, path: str, source: Any) -> None:
    """Write the files beside the volume and put them in its place at once, so that a crash leaves no half of them.

    A volume that a container has mounted cannot be replaced: there they are written in place.
    """
    if engine.store.volumes.users(name):
        _apply(engine, path, source)
        return
    fresh = f"{engine.store.paths.volumes}/{files.temporary_name()}"
    os.mkdir(fresh)
    try:
        os.chmod(fresh, 0o755)
        _apply(engine, fresh, source)
        os.rename(fresh, path)
        files.sync_directory(os.path.dirname(path))
    except OSError as exc:
        engine.remove_tree(fresh)
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # those: another container was faster
            raise Conflict(f"cannot fill volume {name}: {exc.strerror}") from exc
    except BaseException:
        engine.remove_tree(fresh)
        raise


def _apply(engine: Engine, directory: str, source: Any) -> None:
    from sampan.runtime import rootfs, tree

    root = rootfs.Rootfs(directory=directory)
    write, child = rootfs.open_apply(engine.host.facts(), root, flags=tree.MERGE | tree.SYNC)
    rootfs.send(write, child, lambda applier: applier.feed(source))
