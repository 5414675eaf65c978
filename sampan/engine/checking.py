"""`system check`: whether everything in the store is what it was, and with `repair` making it so again.

Order: the database, then blobs by their digests, then unpacked layers against their blobs, then what containers and
volumes need, then what nobody owns. Nothing is repaired by guessing: a layer comes from its blob, a blob from what its
digest proves, and what only a registry has is named with the command that brings it.

Others may use the store meanwhile. So what seems to be missing is looked for again before it is told (`_lacks`), a
layer is compared under a lease, and only the very file that was found damaged is deleted.
"""

from __future__ import annotations

import os

from sampan.engine import alone
from sampan.errors import IntegrityError, NotFound, SampanError, Unavailable
from sampan.oci import jsontext, reference
from sampan.store import content, ledger, salvage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.engine.engine import Engine


class Fault:
    """One thing that is wrong: `kind` (database, blob, layer, container, volume, file), `what`, `why`, whose it is
    (`users`), and `repaired`: "" or what was done; `hint` says what the user can do."""

    __slots__ = ("hint", "kind", "repaired", "users", "what", "why")

    def __init__(self, kind: str, what: str, why: str, users: list[str] | None = None, hint: str = "") -> None:
        self.kind = kind
        self.what = what
        self.why = why
        self.users = users or []
        self.hint = hint
        self.repaired = ""


class Checked:
    """How much was looked at, by kind."""

    __slots__ = ("blobs", "containers", "layers", "volumes")

    def __init__(self) -> None:
        self.blobs = self.layers = self.containers = self.volumes = 0


class Check:
    """One examination of a store; iterate over `run()` for the faults as they are found."""

    def __init__(self, engine: Engine, *, repair: bool = False, quick: bool = False) -> None:
        self.engine = engine
        self.store = engine.store
        self.repair = repair
        self.quick = quick
        self.checked = Checked()
        self._owners: dict[str, set[str]] = {}
        self._bad: set[str] = set()

    def run(self) -> Iterator[Fault]:
        """Give every fault; with `quick` layers are only looked for, not compared with their blobs."""
        yield from self._database()
        self._pulled: set[str] = set()  # names of images that came from a registry
        self._owners = self._users()
        yield from self._layout()
        yield from self._blobs()
        yield from self._layers()
        yield from self._containers()
        yield from self._volumes()
        yield from self._strays()

    # ---- the database ----

    def _database(self) -> Iterator[Fault]:
        paths = self.store.paths
        try:
            found = salvage.faults(self.store.db) or salvage.lost(self.store.db, paths)
        except IntegrityError as exc:
            found = [str(exc)]
        if not found:
            return
        fault = Fault("database", paths.database, "; ".join(found)[:500], hint=_REPAIR)
        if self.repair:
            fault.repaired = "; ".join(self.engine.salvage())
            self.store = self.engine.store
        yield fault
        if not self.repair:
            raise Unavailable("the rest was not checked, because the database cannot be trusted", _REPAIR)

    def _layout(self) -> Iterator[Fault]:
        """Look at what makes the blobs a layout that others read, and from what a lost database is made again.

        An index of other images than the records tell of is no fault: a killed command may leave one. Repair writes it.
        """
        paths = self.store.paths
        if self.store.db.one("SELECT 1 FROM image_references") is None:
            return  # not written yet, perhaps
        sound = {"index.json": salvage.listed(paths) is not None, "oci-layout": content.is_layout(paths)}
        found = []
        for name in [name for name in sound if not sound[name]]:
            why = "it is not as sampan writes it" if os.path.exists(f"{paths.oci}/{name}") else "it is missing"
            found.append(Fault("file", f"oci/{name}", why, hint=_REPAIR))
        if self.repair:
            self.store.images.rewrite_index()
            for fault in found:
                fault.repaired = "written again from the database"
        yield from found

    # ---- blobs ----

    def _users(self) -> dict[str, set[str]]:
        """Tell for each blob and layer the names of the images that need it."""
        found: dict[str, set[str]] = {}
        for image in self.store.images.ls():
            names = [reference.parse(name).familiar() for name in image.references] or [image.short_id]
            self._pulled.update(names if image.digests else ())
            for blobs, diff_ids in self.store.db.query("SELECT blobs, diff_ids FROM images WHERE id = ?", (image.id,)):
                for digest in (*jsontext.loads(blobs), *jsontext.loads(diff_ids)):
                    found.setdefault(digest, set()).update(names)
        return found

    def _bring(self, users: list[str]) -> str:
        """Say how a user gets what the store cannot make again: of several images one is enough."""
        if not users:
            return "build again what needed it"
        pulls = [f"sampan pull {name}" for name in users if name in self._pulled] or [
            f"sampan pull {name}" for name in users
        ]
        rest = "it" if len(users) == 1 else "one of them"
        return f"bring it again: {' or '.join(pulls)}, or build or load {rest}"

    def _named(self, digest: str) -> list[str]:
        return sorted(self._owners.get(digest, ()))

    def _blobs(self) -> Iterator[Fault]:
        for digest in self.store.content.ls():
            self.checked.blobs += 1
            inode = self.store.content.inode(digest)
            try:
                if self.store.content.verify(digest):
                    continue
            except NotFound:
                continue  # removed while we looked
            except SampanError as exc:
                yield self._blob_fault(digest, str(exc), inode)
                continue
            yield self._blob_fault(digest, "its content has another digest", inode)
        for row in self.store.db.query("SELECT blobs FROM images"):
            for digest in jsontext.loads(row[0]):
                if digest not in self._bad and self._lacks("blobs", digest, self.store.content.has):
                    yield self._blob_fault(digest, "it is missing")

    def _lacks(self, column: str, digest: str, is_here: Callable[[str], object]) -> bool:
        """Tell whether something that an image needs is not here: it may have come, or its image gone, as we look."""
        needed = f"SELECT 1 FROM images WHERE instr({column}, ?)"
        return not any(is_here(digest) or self.store.db.one(needed, (digest,)) is None for _ in range(_LOOKS))

    def _blob_fault(self, digest: str, why: str, inode: int = 0) -> Fault:
        self._bad.add(digest)
        fault = Fault("blob", digest, why, self._named(digest), _REPAIR)
        if not self.store.content.has(digest) and not self._may_mend(digest):
            fault.hint = self._bring(fault.users)
        if self.repair and os.path.isdir(path := self.store.paths.blob(digest)) and not os.path.islink(path):
            fault.hint = f"move {path} away, then check again"  # what is in it is nobody's of sampan's
        elif self.repair:
            fault.repaired = self._mend_blob(digest)
            if fault.repaired:
                self._bad.discard(digest)
            else:
                if inode and self.store.content.inode(digest) == inode:  # another may have brought it again
                    self.store.content.delete(digest)
                fault.hint = self._bring(fault.users)
        return fault

    def _may_mend(self, digest: str) -> bool:
        """Tell whether `_mend_blob` has something to begin with."""
        known = self.store.db.one("SELECT 1 FROM images WHERE id = ?", (digest,)) is not None
        return known or self.store.snapshots.find(digest) is not None

    def _mend_blob(self, digest: str) -> str:
        """Make a blob again from what its digest proves: the database's copy of a config, or an unpacked layer."""
        row = self.store.db.one("SELECT config FROM images WHERE id = ?", (digest,))
        with self.store.leases.take("check") as lease:
            try:
                if row is not None:
                    self.store.content.add(_bytes(row[0]), expected=digest, lease=lease)
                    return "made again from the database"
                return self._repacked(digest, lease)
            except (IntegrityError, NotFound):
                return ""

    def _repacked(self, digest: str, lease: Any) -> str:
        """Pack an unpacked layer as a build would: right if the digest says so."""
        from sampan.transfer import compare

        directory = self.store.snapshots.path(digest)  # a local layer's diff_id is its blob's digest
        with self.store.content.ingest(lease=lease) as ingest:
            if not compare.repack(self.engine.host.facts(), directory, ingest.write):
                return ""
            ingest.commit(digest)
        return "made again from the unpacked layer"

    # ---- layers ----

    def _sources(self) -> dict[str, str]:
        """Tell for each layer (diff_id) which blob it comes from."""
        found = {diff_id: diff_id for diff_id, _, _ in self.store.snapshots.ls()}
        for blobs, diff_ids in self.store.db.query("SELECT blobs, diff_ids FROM images"):
            # manifest, config, then the layers (store/images.py)
            found.update(zip(jsontext.loads(diff_ids), jsontext.loads(blobs)[2:], strict=False))
        return found

    def _layers(self) -> Iterator[Fault]:
        for diff_id, digest in self._sources().items():
            self.checked.layers += 1
            if not self._directory(diff_id):
                if self._lacks("diff_ids", diff_id, self._directory):
                    yield self._layer_fault(diff_id, digest, "it is not unpacked")
            elif digest in self._bad or not self.store.content.has(digest):
                if digest not in self._bad and self._is_needed(diff_id) and not self.store.content.has(digest):
                    yield Fault("layer", diff_id, "it cannot be compared: its blob is not here", self._named(diff_id))
            elif not self.quick:
                yield from self._kept_and_compared(diff_id, digest)

    def _directory(self, diff_id: str) -> str:
        """Give the directory of an unpacked layer, "" when there is none."""
        number = self.store.snapshots.find(diff_id)
        path = self.store.paths.snapshot(number) if number is not None else ""
        return path if path and os.path.isdir(path) else ""

    def _is_needed(self, diff_id: str) -> bool:
        """Tell whether an image or a step needs a layer with its blob; else the next collection takes it."""
        return any(
            self.store.db.one(f"SELECT 1 FROM {table} WHERE instr({column}, ?)", (diff_id,)) is not None
            for table, column in (("images", "diff_ids"), ("build_cache", "result"))
        )

    def _kept_and_compared(self, diff_id: str, digest: str) -> Iterator[Fault]:
        try:
            lease = self.store.leases.take("check")
        except Unavailable as exc:
            yield self._not_compared(diff_id, exc)
            return
        with lease:
            lease.hold(diff_id, digest)
            directory = self._directory(diff_id)
            if directory and self.store.content.has(digest):
                yield from self._compared(diff_id, digest, directory)

    def _not_compared(self, diff_id: str, exc: Unavailable) -> Fault:
        why = f"it cannot be compared, as it must be unpacked once more for that: {exc.message}"
        return Fault("layer", diff_id, why, self._named(diff_id), _ROOM)

    def _compared(self, diff_id: str, digest: str, directory: str) -> Iterator[Fault]:
        from itertools import islice

        from sampan.runtime.rootfs import Rootfs
        from sampan.transfer import compare

        try:
            fresh = compare.unpack_again(self.store, self.engine.host.facts(), digest, diff_id)
        except Unavailable as exc:
            yield self._not_compared(diff_id, exc)
            return
        try:
            try:
                wanted, there = Rootfs(directory=fresh[0].upper), Rootfs(directory=directory)
                compared = compare.differences(self.engine.host.facts, wanted, there)
                found = [str(one) for one in islice(compared, _MOST)]
            except SampanError as exc:  # the disk itself, or what the helper refuses in a layer
                found = [str(exc)]
            if found:
                yield self._layer_fault(diff_id, digest, "; ".join(found), fresh)
        finally:
            self.store.snapshots.abort(fresh[0])

    def _layer_fault(self, diff_id: str, digest: str, why: str, fresh: Any = None) -> Fault:
        fault = Fault("layer", diff_id, why, self._named(diff_id), _REPAIR)
        if not self.repair:
            return fault
        busy = self._running_on(diff_id)
        if busy:
            fault.hint = f"container {busy} runs on it: stop it, then check again"
        elif digest in self._bad or not self.store.content.has(digest):
            fault.hint = self._bring(fault.users)
        else:
            self._replace(diff_id, digest, fresh)
            fault.repaired = "unpacked again from its blob"
        return fault

    def _running_on(self, diff_id: str) -> str:
        """Name a container that has the layer mounted now."""
        for row in self.engine.containers.ls(all=False):
            record = self.store.containers.get(row["ID"])
            if diff_id in (record.config.get("layers") or ()):
                return str(record.name)
        return ""

    def _replace(self, diff_id: str, digest: str, fresh: Any) -> None:
        from sampan.transfer import compare

        with self.store.leases.take("check") as lease:
            lease.hold(diff_id)
            fresh = fresh or compare.unpack_again(self.store, self.engine.host.facts(), digest, diff_id)
            self.store.snapshots.remove(diff_id)
            self.store.snapshots.commit(fresh[0], diff_id, size=fresh[1], lease=lease)
        for (manifest,) in self.store.db.query(
            "SELECT manifest_digest FROM images WHERE instr(diff_ids, ?)", (diff_id,)
        ):
            if self.store.content.has(manifest):
                self.store.images.put(manifest)  # what is known of its size now

    # ---- what needs them ----

    def _containers(self) -> Iterator[Fault]:
        for record in self.store.containers.ls():
            self.checked.containers += 1
            hint = f"sampan rm {record.name}"
            # A power cut may take the directory of one that it ended, or that was never started, with nothing that was
            # synced. It is made again: the former's when its end is looked at (alone.py, outcome.py).
            try:
                self.engine.containers.refresh(record, going=True)
            except NotFound:
                continue  # removed while we looked
            home = self.store.paths.container(record.id)
            if record.started and not os.path.isdir(home) and not alone.is_going(home) and self._is_there(record.id):
                yield Fault("container", record.name, "its directory is missing", hint=hint)
            for diff_id in record.config.get("layers") or ():
                if self.store.snapshots.find(diff_id) is None and self._is_there(record.id):
                    yield Fault("container", record.name, f"its layer {diff_id} is missing", hint=hint)

    def _is_there(self, container_id: str) -> bool:
        return self.store.db.one("SELECT 1 FROM containers WHERE id = ?", (container_id,)) is not None

    def _volumes(self) -> Iterator[Fault]:
        for volume in self.store.volumes.ls():
            self.checked.volumes += 1
            if not os.path.isdir(volume.path) and not self.store.volumes.recover(volume.name):
                if not self._has_volume(volume.name):
                    continue  # removed while we looked
                users = self.store.volumes.users(volume.name)
                yield Fault("volume", volume.name, "its directory is missing", users, f"sampan volume rm {volume.name}")

    def _has_volume(self, name: str) -> bool:
        return self.store.db.one("SELECT 1 FROM volumes WHERE name = ?", (name,)) is not None

    def _strays(self) -> Iterator[Fault]:
        from sampan.engine import disk

        for line in disk.lines(self.engine):
            if line.kind == ledger.UNKNOWN:
                yield Fault("file", line.path, "nothing of sampan's belongs there", hint="move or remove it")


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


_LOOKS = 3  # for what seems to be missing: it would have to come and go in each of them
_MOST = 10  # differences of one layer that are told
_ROOM = "free some space, or use --quick"
_REPAIR = "run `sampan system check --repair`"


def check(
    engine: Engine, *, repair: bool = False, quick: bool = False, tell: Callable[[Fault], None]
) -> tuple[Checked, int]:
    """Examine a store, telling each fault; give what was looked at and how many faults are left."""
    work = Check(engine, repair=repair, quick=quick)
    left = 0
    for fault in work.run():
        left += not fault.repaired
        tell(fault)
    return work.checked, left
