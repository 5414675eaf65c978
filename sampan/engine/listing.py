"""What `ps` shows: the records that were asked for, brought up to date, in Docker's fields.

Cheap with many containers: rows that cannot be shown are left in the database, and what only some formats need (sizes,
names of images) is looked up once and only then.
"""

from __future__ import annotations

import os
import stat
import time

from sampan.engine import health, leftovers, matching
from sampan.engine.inspect import age, status, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NotRequired, TypedDict

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

    class Row(TypedDict):
        """A container as `ls` lists it; `Created` is in unix nanoseconds."""

        ID: str
        Names: str
        Image: str
        Command: str
        CreatedAt: str
        Created: int
        RunningFor: str
        Status: str
        State: str
        Ports: str
        Labels: str
        LabelMap: dict[str, str]
        MountList: list[str]
        Networks: str
        LocalVolumes: str
        SizeRw: NotRequired[int]
        SizeRootFs: NotRequired[int]


def ls(
    engine: Engine,
    *,
    all: bool = False,
    filters: dict[str, list[str]] | None = None,
    limit: int = 0,
    size: bool = False,
) -> list[Row]:
    """List containers, newest first, with the fields of `docker ps --format`; `size` adds SizeRw and SizeRootFs, in
    bytes."""
    containers, wanted = engine.containers, filters or {}
    tests = matching.tests(engine, wanted)
    everything = bool(all or limit or matching.every_state(wanted))
    shown: list[Record] = []
    for found in containers.store.ls(ended=everything):
        record = containers.tidied(found)
        if record is None or not (everything or record.status not in ("created", "exited")):
            continue
        if all_pass(tests, record):
            shown.append(record)
            if limit and len(shown) == limit:
                break
    leftovers.collect(engine, patience=leftovers.PATIENCE)
    now, names = time.time_ns(), _Names(engine)
    rows = [_row(engine, record, now, names.of(record)) for record in shown]
    if size:
        for row, record in zip(rows, shown, strict=True):
            row["SizeRw"], row["SizeRootFs"] = sizes(engine, record)
    return rows


def all_pass(tests: list[matching.Test], record: Record) -> bool:
    """Tell whether a record passes every test."""
    return all(test(record) for test in tests)


class _Names:
    """What stands in the IMAGE column: the name that was given while it still means that image, else the id."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[tuple[str, str], str] = {}

    def of(self, record: Record) -> str:
        key = (record.image_reference, record.image_id)
        if key not in self.known:
            self.known[key] = self._look(*key)
        return self.known[key]

    def _look(self, name: str, image_id: str) -> str:
        from sampan.errors import SampanError

        try:
            found = self.engine.store.images.resolve(name).id
        except SampanError:
            found = ""
        return name if found == image_id else image_id.removeprefix("sha256:")[:12]


def _row(engine: Engine, record: Record, now: int, image: str) -> Row:
    spec = record.spec
    mounts = matching.mounts(engine, record)
    return {
        "ID": record.id,
        "Names": record.name,
        "Image": image,
        "Command": " ".join(
            f"'{word}'" if " " in word else word for word in spec["process"]["args"]
        ),  # as Docker's daemon
        "CreatedAt": timestamp(record.created),
        "Created": record.created,
        "RunningFor": age((now - record.created) / 1e9) + " ago",
        "Status": status(record, now) + health.shown(engine, record),
        "State": record.status,
        "Ports": "",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(record.labels.items())),
        "LabelMap": record.labels,
        "MountList": [mount["name"] or mount["source"] for mount in mounts],
        "Networks": matching.network(record),
        "LocalVolumes": str(sum(1 for mount in mounts if mount["name"])),
    }


def sizes(engine: Engine, record: Record) -> tuple[int, int]:
    """Return the bytes that a container has written, and those together with its image's."""
    upper = os.path.join(engine.store.paths.container(record.id), "upper")
    try:
        written = _tree_size(upper)
    except PermissionError:
        written = mapped_size(engine, upper)
    known = {diff_id: size for diff_id, _, size in engine.store.snapshots.ls()}
    return written, written + sum(known.get(diff_id, 0) for diff_id in record.config.get("layers") or ())


def _tree_size(path: str) -> int:
    """Add up the regular files below a directory, one with several names once."""
    from sampan.store import files

    total = 0
    seen: set[int] = set()
    for state in files.below(path):
        if stat.S_ISREG(state.st_mode) and state.st_ino not in seen:
            total += state.st_size
            if state.st_nlink > 1:
                seen.add(state.st_ino)
    return total


def mapped_size(engine: Engine, path: str) -> int:
    """Add them up as root of the user namespace, where directories are closed to the caller himself."""
    from sampan.runtime import rootfs, tree

    root = rootfs.Rootfs(directory=path)
    read, request, child = rootfs.open_pack(engine.host.facts(), root, tree.REQUESTS)
    try:
        found = tree.Packer(read, request, child.wait).ask(b"", contents=False)
        return sum(entry.size for entry, _ in found if entry.type == "F")
    finally:
        os.close(request)
        os.close(read)
        rootfs.settle(child)
