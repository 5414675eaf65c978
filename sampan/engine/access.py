"""A container's files as the helper reaches them, whether it runs or not.

Of a running (or paused) container the helper joins the mount namespace, as `exec` does, and so sees its volumes and
tmpfs; it joins neither its control group, which may be frozen or full, nor its pid namespace: in the container's /proc
it is nobody.  Of one that does not run the helper mounts the layers, and volumes and binds over them, in a namespace of
its own; a start waits meanwhile.  Either way every path is resolved by the helper below the container's root.
"""

from __future__ import annotations

import errno
import os

from sampan.engine import members
from sampan.engine.alone import Alone
from sampan.errors import Conflict, Denied, NotFound, NotSupported, counted
from sampan.oci import entry as kinds
from sampan.runtime import compile, mounts, process, rootfs, tree
from sampan.runtime import plan as p
from sampan.runtime.compile import Facts
from sampan.runtime.plan import Plan
from sampan.store import files

_SMALL = 4 << 20  # bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.oci.entry import Content, Entry
    from sampan.runtime.launch import Child
    from sampan.store.containers import Record


class Files:
    """Reach the files of one container, within a `with` block."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._alone: Alone | None = None
        self._reader: tuple[tree.Packer, Child, list[int]] | None = None

    def __enter__(self) -> Files:
        containers = self.engine.containers
        record_id = containers.store.get(self.name).id
        alone = Alone(self.engine.store.paths.container(record_id), restore=True)
        alone.__enter__()
        try:
            self.record: Record = containers.get(self.name, record_id)
            self.running = members.running(self.record)
            self.facts: Facts = self.engine.host.facts()
            self.engine.warn(self.engine.host.notes)
        except BaseException as exc:
            alone.__exit__(type(exc))
            raise
        if self.running:
            alone.__exit__()
        else:
            self._alone = alone
        return self

    def __exit__(self, *_: object) -> None:
        self.close_reader()
        if self._alone is not None:
            self._alone.__exit__()

    # ---- plans ----

    def _facts(self) -> Facts:
        facts = self.engine.host.facts()
        facts.stdio = p.NULL_OUT
        return facts

    def _joined(self) -> Plan:
        """Begin a plan in the namespaces of the running container that hold its files."""
        plan, facts = Plan(), self._facts()
        mapped, facts.uid_map = facts.uid_map, ""
        compile.supervisor(plan, facts)
        flags = p.CLONE_NEWNS | (p.CLONE_NEWUSER if mapped else 0)
        plan.add(p.ENTER, flags=flags, label=f"join the mount namespace of container {self.record.name}")
        if mapped:
            compile.become_root(plan, facts)
        plan.add(p.NO_DEVICES, flags=1, label="let no device be opened")
        return plan

    def _mounted(self, writable: bool) -> Plan:
        """Begin a plan that mounts the container's root and volumes as a start would, without the kernel's mounts."""
        store, spec = self.engine.store, self.record.spec
        plan, facts = Plan(), self._facts()
        home = store.paths.container(self.record.id)
        binds = _binds(spec, home)
        lowers = store.snapshots.lowers(self.record.config["layers"])
        upper = os.path.relpath(os.path.join(home, "upper"), store.paths.snapshots)
        facts.snapshots = store.paths.snapshots
        os.makedirs(facts.target, mode=0o700, exist_ok=True)
        if writable or binds:  # mount points may have to be made
            work = os.path.relpath(os.path.join(home, "work"), store.paths.snapshots)
            facts.lowers, facts.upper, facts.work = lowers, upper, work
        else:
            facts.lowers = [upper, *lowers]
        compile.supervisor(plan, facts)
        flags = p.CLONE_NEWNS | (p.CLONE_NEWUSER if facts.rootless else 0)
        plan.add(p.CLONE, flags=flags, label="create namespaces: mount")
        if facts.rootless:
            compile.become_root(plan, facts)
        mounts.root(plan, facts)
        bare = Facts()  # the devices of an ordinary user's container are not wanted
        slots = mounts.sources(plan, {"mounts": binds}, bare)
        plan.add(p.PIVOT, facts.target, label="enter it (chroot)")
        mounts.volumes(plan, {"mounts": binds}, bare, slots)
        plan.add(p.DETACH, label="make it the root, and take the host's file systems away (pivot_root)")
        plan.add(p.NO_DEVICES, label="let no device be opened")
        if spec["root"].get("readonly"):
            plan.add(p.ROOT_RO, label="make the root file system read-only")
        return plan

    def _start(self, writable: bool, add: Callable[[Plan], None], source: int, sink: int) -> Child:
        plan = self._joined() if self.running else self._mounted(writable)
        add(plan)
        if not self.running:
            return rootfs.start(plan, source, sink)
        record = self.record
        try:
            target = process.open_pidfd(record.pid, record.pid_start, record.boot_id)
        except NotFound as exc:
            raise Conflict(f"cannot reach the files of container {record.name}: it has just ended") from exc
        try:
            return rootfs.start(plan, source, sink, target)
        finally:
            os.close(target)

    # ---- reading ----

    def _open_reader(self, flags: int) -> tuple[tree.Packer, Child, list[int]]:
        how = flags | tree.REQUESTS

        def add(plan: Plan) -> None:
            plan.add(p.PACK, "", rootfs.opaque_name(self.facts.rootless), flags=how, label="read files")

        out_read, in_write, child = rootfs.piped(lambda source, sink: self._start(False, add, source, sink))
        return tree.Packer(out_read, in_write, child.wait), child, [out_read, in_write]

    def close_reader(self) -> None:
        """End the helper that reads, if there is one; whatever it was doing is not wanted any more."""
        if self._reader is not None:
            _, child, fds = self._reader
            self._reader = None
            for fd in fds:
                os.close(fd)
            child.close()

    def entries(
        self, path: str, *, follow: bool = False, contents: bool = True, depth: int = tree.UNLIMITED
    ) -> Iterator[tuple[Entry, Content]]:
        """Give the entries at an absolute path, named below it ("" is the path itself); NotFound when nothing is there.

        File systems of the kernel (proc, sysfs, cgroups) inside what is asked for are given as empty directories.
        """
        if self._reader is None:
            self._reader = self._open_reader(tree.NO_KERNEL)
        asked = os.fsencode(path.removesuffix("/.").strip("/"))
        try:
            yield from self._reader[0].ask(asked, follow=follow, contents=contents, depth=depth)
        except NotSupported as exc:
            exc.hint = "what the kernel answers is no file to copy: read it with `sampan exec`"
            raise

    def look(self, path: str, follow: bool = False) -> Entry | None:
        """Describe what is at a path; None when nothing is."""
        try:
            found = [entry for entry, _ in self.entries(path, follow=follow, contents=False, depth=0)]
        except NotFound:
            return None
        return found[0] if found else None

    def small(self, path: str) -> bytes | None:
        """Give a regular file of at most 4 MiB, links followed; None for anything else."""
        found, data = self.look(path, True), b""
        if found is None or found.type != kinds.FILE or found.size > _SMALL:
            return None
        for entry, content in self.entries(path, follow=True, depth=0):
            if entry.size > _SMALL:
                raise Conflict(f"cannot read {path} of container {self.record.name}: it grows while it is read")
            for offset, piece in content:
                data += bytes(offset - len(data)) + bytes(piece)
        return data

    def circles(self, path: str) -> bool:
        """Tell whether a path leads through more links than the kernel follows."""
        try:
            return not list(self.entries(path, follow=True, contents=False, depth=0))
        except NotFound as exc:
            return exc.message.endswith(os.strerror(errno.ELOOP))

    # ---- writing ----

    def apply(self, base: str, send: Callable[[tree.Applier], Any]) -> None:
        """Let `send` write entries below an existing directory; what is in the way is replaced, but a directory only by
        a directory.  When it returns they are on disk, unless the container is one that removes itself.
        """
        self.close_reader()
        if not self.running and files.is_read_only(self.engine.store.paths.containers):
            what = f"cannot write files of container {self.record.name}"
            raise Denied(f"{what}: its file system is mounted read-only", files.READ_ONLY)
        flags = tree.MERGE | tree.KEEP_TYPE | (0 if self.record.auto_remove else tree.SYNC)
        flags |= rootfs.best_effort(self.facts)

        def add(plan: Plan) -> None:
            plan.add(p.APPLY, base.removesuffix("/.").strip("/"), "", flags=flags, label="write files")

        write, child = rootfs.fed(lambda source, sink: self._start(True, add, source, sink))
        rootfs.send(write, child, send)
        if child.skipped:
            skipped = counted(child.skipped, "owner or device", "owners or devices")
            self.engine.warn([f"{skipped} could not be set: this user may not"])


def _binds(spec: dict[str, Any], home: str) -> list[dict[str, Any]]:
    """Give the volumes and binds of a container; what the engine itself puts there at each start is not among them."""
    return [
        mount
        for mount in spec["mounts"]
        if mount["type"] == "bind"
        and not mount["source"].startswith(home + "/")
        and mount["destination"].split("/")[1] not in ("proc", "sys", "dev")
    ]
