"""What a container changed: its upper directory beside the layers below, for `diff` and `commit`.

The upper directory is read by the helper as a tree of its own, with overlayfs's marks in it.  A second helper says what
stands below, one directory at a time and only where the layers have a directory too, so that a link below never
decides about a directory above.  Mount points that a start had to make are no change of the container's.
"""

from __future__ import annotations

import os

from sampan.engine import alone
from sampan.errors import NotFound
from sampan.oci import entry as kinds
from sampan.runtime import hostfiles, rootfs, tree
from sampan.runtime.rootfs import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.engine import Engine
    from sampan.oci.entry import Content, Entry
    from sampan.store.containers import Record

ADDED, CHANGED, DELETED = "A", "C", "D"


class Below:
    """Look at the layers below a container, within a `with` block."""

    def __init__(self, engine: Engine, record: Record) -> None:
        root = Rootfs(engine.store.paths.snapshots, engine.store.snapshots.read_only(record.config["layers"]))
        read, request, self._child = rootfs.open_pack(engine.host.facts(), root, tree.REQUESTS)
        self._fds = (read, request)
        self._packer = tree.Packer(read, request, self._child.wait)

    def __enter__(self) -> Below:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
        self._child.close()

    def list(self, path: bytes) -> dict[bytes, Entry]:
        """Give what is in a directory, by name."""
        return {entry.path: entry for entry, _ in self._packer.ask(path, contents=False, depth=1) if entry.path}

    def has(self, path: bytes) -> bool:
        """Say whether anything is at a path."""
        try:
            return bool(list(self._packer.ask(path, contents=False, depth=0)))
        except NotFound:
            return False


def entries(engine: Engine, record: Record, below: Below, contents: bool) -> Iterator[tuple[Entry, Content]]:
    """Give what a container's upper directory holds, in order, its root first, without mount points."""
    alone.restore(engine, record, "read the changes of")
    upper = Rootfs(directory=os.path.join(engine.store.paths.container(record.id), "upper"))
    made = _mount_points(engine, record)
    for entry, content in rootfs.packed(engine.host.facts(), upper, 0 if contents else tree.LIST):
        is_whole = entry.size or entry.type not in (kinds.DIRECTORY, kinds.FILE)
        if entry.path not in made or is_whole or below.has(entry.path):
            yield entry, content


def _mount_points(engine: Engine, record: Record) -> set[bytes]:
    """Give where the kernel's file systems and the engine's own files are mounted; volumes are the user's."""
    home = engine.store.paths.container(record.id) + "/"
    found = {b"etc/hostname"}  # made by a start where the image has removed it
    for mount in record.spec["mounts"]:
        path = mount["destination"].strip("/")
        if path.split("/")[0] in ("proc", "sys", "dev") or str(mount.get("source") or "").startswith(home):
            found.add(os.fsencode(path))
    # These a start may bind without an entry (hostfiles.add_local, sharing.share_names).
    found.update(b"etc/" + name.encode() for name in hostfiles.NAMES if os.path.exists(home + name))
    return found


class _Level:
    """A directory of the upper one: what is below it, what of that was mentioned, and whether the rest is hidden."""

    __slots__ = ("below", "opaque", "path", "seen", "told")

    def __init__(self, path: bytes, below: dict[bytes, Entry], opaque: bool, told: bool) -> None:
        self.path = path
        self.below = below
        self.opaque = opaque
        self.told = told
        self.seen: set[bytes] = set()


class _Comparison:
    """Compare the entries of an upper directory, in order, with what is below."""

    def __init__(self, below: Below, opaque_name: bytes) -> None:
        self.below = below
        self.opaque_name = opaque_name
        self.levels: list[_Level] = []
        self.found: list[tuple[str, bytes]] = []

    def take(self, entry: Entry) -> None:
        """Take the next entry."""
        if not entry.path:
            self.levels.append(_Level(b"", self.below.list(b""), False, True))
            return
        parent, _, name = entry.path.rpartition(b"/")
        while self.levels[-1].path != parent:
            self.leave()
        level = self.levels[-1]
        level.seen.add(name)
        known = level.below.get(name)
        if entry.type == kinds.DIRECTORY:
            self._directory(entry, known)
        elif entry.type == kinds.CHAR_DEVICE and not (entry.major or entry.minor):
            if known is not None:
                self._tell(DELETED, entry.path)
        elif known is None:
            self._tell(ADDED, entry.path)
        elif _differs(entry, known):
            self._tell(CHANGED, entry.path)

    def _directory(self, entry: Entry, known: Entry | None) -> None:
        opaque = (entry.xattrs or {}).get(self.opaque_name) == b"y"
        both = known is not None and known.type == kinds.DIRECTORY
        if known is None:
            self._tell(ADDED, entry.path)
        elif _differs(entry, known):
            self._tell(CHANGED, entry.path)
        told = known is None or _differs(entry, known)
        self.levels.append(_Level(entry.path, self.below.list(entry.path) if both else {}, opaque, told))

    def _tell(self, kind: str, path: bytes) -> None:
        """Note a change, and that the directories above it changed."""
        for level in self.levels:
            if not level.told:
                level.told = True
                self.found.append((CHANGED, level.path))
        self.found.append((kind, path))

    def leave(self) -> None:
        """End the current directory: what an opaque one does not mention is deleted."""
        level = self.levels[-1]
        if level.opaque:
            for name in level.below.keys() - level.seen:
                self._tell(DELETED, level.path + b"/" + name)
        self.levels.pop()


def _differs(new: Entry, old: Entry) -> bool:
    """Compare what Docker compares: a directory's time says nothing, and a file may be copied up without a change."""
    links = (kinds.FILE, kinds.HARD_LINK)
    if new.type != old.type and not (new.type in links and old.type in links):
        return True
    if (new.mode, new.uid, new.gid) != (old.mode, old.uid, old.gid):
        return True
    if new.type == kinds.DIRECTORY:
        return False
    times = (new.mtime_sec, new.mtime_nsec) != (old.mtime_sec, old.mtime_nsec)
    return times or (new.type == old.type == kinds.FILE and new.size != old.size)


def diff(engine: Engine, name: str) -> list[tuple[str, str]]:
    """List what a container changed of its image: (A, C or D, absolute path), by path."""
    record = engine.containers.get(name)
    opaque = os.fsencode(rootfs.opaque_name(engine.host.rootless))
    with Below(engine, record) as below:
        comparison = _Comparison(below, opaque)
        for entry, _ in entries(engine, record, below, contents=False):
            comparison.take(entry)
        while comparison.levels:
            comparison.leave()
    return [(kind, "/" + os.fsdecode(path)) for kind, path in sorted(comparison.found, key=lambda pair: pair[1])]
