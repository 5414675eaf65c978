"""The executor: what a step does to files and which processes it starts, all of it through the helper.

    Executor      what solve asks for; tests may give another
    Root          a step's writable root: layers below, one new directory on top
    HelperExecutor    the real one

A root is mounted by the helper in a mount namespace of its own for each operation, and gone with it: nothing is left
mounted when this process dies. Reading goes through one open session per root, because a build asks several small
questions of it.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import NotFound
from sampan.runtime import rootfs, tree
from sampan.runtime.compile import Facts
from sampan.runtime.rootfs import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from sampan.build.running import Process
    from sampan.oci.entry import Content, Entry, Source
    from sampan.runtime.launch import Child, Exit
    from sampan.runtime.plan import Plan
    from sampan.store.parts import Store
    from sampan.store.snapshots import Active

    Output = Callable[[int, bytes], None]

    class Executor(Protocol):
        """Work on the files of roots; `layers` are diff_ids, lowest first."""

        def kind(self, layers: list[str], path: str) -> str: ...
        def names(self, layers: list[str], path: str) -> list[Entry]: ...
        def pack(self, layers: list[str], path: str) -> Source: ...
        def read(self, layers: list[str], path: str, limit: int) -> bytes: ...
        def apply(self, root: Root, base: str, source: Source) -> None: ...
        def run(self, root: Root, process: Process, output: Output) -> Exit: ...
        def diff(self, root: Root) -> Source: ...
        def opaque_name(self) -> str: ...
        def accounts(self, root: Root) -> tuple[bytes, bytes]: ...
        def notes(self) -> list[str]: ...
        def close(self) -> None: ...

    class Prepared(Protocol):
        """What starter.prepare gives."""

        plan: Plan
        placement: Any
        warnings: list[str]

    class Host(Protocol):
        """What engine.host.Host is."""

        rootless: bool
        notes: list[str]

        def facts(self) -> Facts: ...

    class Starter(Protocol):
        """The module that turns a specification into a process (engine/starter.py)."""

        def prepare(self, spec: dict[str, Any], facts: Facts, host: Any, container_id: str) -> Prepared: ...
        def start(self, prepared: Any, stdin: int, stdout: int, stderr: int) -> Child: ...


_KEPT = ("st_mode", "st_uid", "st_gid")
_ACCOUNTS = 4 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Root:
    """Hold a step's root: the layers below, and the snapshot that is being made."""

    __slots__ = ("_mounts", "active", "layers")

    def __init__(self, layers: list[str], active: Active) -> None:
        self.layers = layers
        self.active = active
        self._mounts = 0

    def work(self) -> str:
        """Make a work directory for one mount: overlayfs refuses one that a volatile mount has used (overlayfs.rst)."""
        self._mounts += 1
        name = f"work{self._mounts}"
        os.mkdir(os.path.join(self.active.path, name), 0o700)
        return name


class Session:
    """Ask the helper for files of one read-only root, one answer after another."""

    def __init__(self, child: Child, read_fd: int, request_fd: int) -> None:
        self.child = child
        self.busy = False
        self._fds = [read_fd, request_fd]
        self._packer = tree.Packer(read_fd, request_fd, child.wait)

    def ask(self, path: str, follow: bool, contents: bool, depth: int) -> Iterator[tuple[Entry, Content]]:
        """Give the entries at a path, named below it; NotFound when it is not there."""
        self.busy = True
        try:
            yield from self._packer.ask(os.fsencode(path.strip("/")), follow=follow, contents=contents, depth=depth)
        except NotFound:
            self.busy = False
            raise
        self.busy = False

    def close(self) -> None:
        """End the session; a failure of the helper that was not asked for any more does not matter."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self.child.close()


class HelperExecutor:
    """Execute steps with the helper, on the layers of one store."""

    def __init__(self, store: Store, host: Host, starter: Starter) -> None:
        self.store = store
        self.host = host
        self.starter = starter
        self._session: Session | None = None
        self._layers: list[str] = []
        self._notes: list[str] = []
        self._told = 0

    # ---- reading ----

    def _ask(self, layers: list[str], path: str, contents: bool, depth: int) -> Iterator[tuple[Entry, Content]]:
        if self._session is None or self._session.busy or self._layers != layers:
            self.close()
            self._session, self._layers = self._open(layers), list(layers)
        return self._session.ask(path, True, contents, depth)

    def _open(self, layers: list[str]) -> Session:
        root = Rootfs(self.store.paths.snapshots, self.store.snapshots.read_only(layers))
        read, request, child = rootfs.open_pack(self.host.facts(), root, tree.REQUESTS)
        return Session(child, read, request)

    def kind(self, layers: list[str], path: str) -> str:
        """Give the type letter of what is at a path, symbolic links followed; "" for nothing."""
        if not layers or path in ("", "/"):
            return "" if path.strip("/") else "D"
        try:
            found = [entry.type for entry, _ in self._ask(layers, path, False, 0)]
        except NotFound:
            return ""
        return found[0] if found else ""

    def names(self, layers: list[str], path: str) -> list[Entry]:
        """List a directory: itself with path b"", and what is directly inside; NotFound when it is not there."""
        if not layers:
            return []
        return [entry for entry, _ in self._ask(layers, path, False, 1)]

    def pack(self, layers: list[str], path: str) -> Source:
        """Give a file, or a directory with all that is below, with contents."""
        return self._ask(layers, path, True, tree.UNLIMITED)

    def read(self, layers: list[str], path: str, limit: int) -> bytes:
        """Give a regular file of at most `limit` bytes, b"" for anything else; NotFound when there is nothing."""
        data = b""
        if not layers:
            return data
        if any(entry.type != "F" or entry.size > limit for entry, _ in self._ask(layers, path, False, 0)):
            return data
        for _, content in self._ask(layers, path, True, 0):
            for offset, piece in content:
                data += bytes(offset - len(data)) + piece
        return data

    def accounts(self, root: Root) -> tuple[bytes, bytes]:
        """Give the root's passwd and group files, empty when they are missing or no regular files of a sane size."""
        found = []
        for path in ("/etc/passwd", "/etc/group"):
            try:
                found.append(self.read(root.layers, path, _ACCOUNTS))
            except NotFound:
                found.append(b"")
        return found[0], found[1]

    def opaque_name(self) -> str:
        """Give the attribute that marks opaque directories in a layer's directory."""
        return rootfs.opaque_name(self.host.rootless)

    # ---- writing ----

    def _writable(self, root: Root) -> Rootfs:
        relative = f".active/{root.active.id}"
        lowers = self.store.snapshots.lowers(root.layers)
        return Rootfs(self.store.paths.snapshots, lowers, f"{relative}/upper", f"{relative}/{root.work()}")

    def apply(self, root: Root, base: str, source: Source) -> None:
        """Write entries below `base`, which is made when it is missing."""
        flags = tree.MERGE | tree.CREATE_BASE | tree.KEEP_TYPE
        write, child = rootfs.open_apply(self.host.facts(), self._writable(root), base.strip("/"), flags=flags)
        rootfs.send(write, child, lambda applier: applier.feed(source))

    def diff(self, root: Root) -> Source:
        """Give what the step changed: the entries of its upper directory, overlayfs's marks among them."""
        return rootfs.packed(self.host.facts(), Rootfs(directory=root.active.upper))

    def run(self, root: Root, process: Process, output: Output) -> Exit:
        """Run a process in the root until it ends; everything that it started ends with it."""
        from sampan.build import process as processes

        facts = self.host.facts()
        rootfs.set_root(facts, self._writable(root))
        script = self._script(root, process.script) if process.script else ""
        spec = processes.specification(process, script, self.host.rootless)
        from sampan.runtime import hostfiles

        layers = self.store.snapshots.directories(root.layers)
        taken = [mount["destination"] for mount in spec["mounts"]]
        lacking = hostfiles.add_for_step(
            spec, root.active.path, [root.active.upper, *layers], process.network == "host"
        )
        stubs = self._absent(root, taken + lacking)
        ended, warnings = processes.run(self.starter, self.host, spec, facts, output)
        self._notes += [text for text in warnings + self.host.notes if text not in self._notes]
        remove_stubs(root.active.upper, stubs)
        if "/etc" not in stubs and any(path.startswith("/etc/") for path in stubs):
            forget_copy(root.active.upper, layers, "etc")
        return ended

    def _script(self, root: Root, text: bytes) -> str:
        """Write a step's script beside its upper directory."""
        path = os.path.join(root.active.path, "script")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o755)  # whoever the step runs as must be able to execute it
            file.write(text)
        return path

    def _absent(self, root: Root, destinations: list[str]) -> list[str]:
        """List the mount points that the root does not have, and parents: made for the mounts, they are no part of the
        layer.  The deepest are first.
        """
        inner = ("/proc/", "/sys/", "/dev/")
        wanted = {path for path in destinations if not path.startswith(inner)}
        for path in list(wanted):
            wanted.update(path[:at] for at in range(1, len(path)) if path[at] == "/")
        return sorted((path for path in wanted if not self.kind(root.layers, path)), key=len, reverse=True)

    def notes(self) -> list[str]:
        """Give what the user should know about this host and was not told yet."""
        told = self._notes[self._told :]
        self._told = len(self._notes)
        return told

    def close(self) -> None:
        """End the open session."""
        if self._session is not None:
            self._session.close()
            self._session = None


def forget_copy(upper: str, layers: list[str], name: str) -> None:
    """Remove a directory that overlayfs copied up for a mount point in it, unless the step changed it.

    `layers` are those below, top first.
    """
    try:
        here, below = os.lstat(f"{upper}/{name}"), None
        for layer in layers:
            if os.path.lexists(f"{layer}/{name}"):
                below = os.lstat(f"{layer}/{name}")
                break
        same = below is not None and all(getattr(here, key) == getattr(below, key) for key in _KEPT)
        if same and stat.S_ISDIR(here.st_mode) and not _is_opaque(f"{upper}/{name}"):
            os.rmdir(f"{upper}/{name}")
    except OSError:
        return  # it is not there, or the step put something in it


def _is_opaque(path: str) -> bool:
    return any(name.endswith(".overlay.opaque") for name in os.listxattr(path, follow_symlinks=False))


def remove_stubs(upper: str, paths: list[str]) -> None:
    """Remove empty mount points, by descriptors: the step may have put symbolic links in place of their parents."""
    for path in paths:
        *parents, last = path.strip("/").split("/")
        at = os.open(upper, _DIRECTORY)
        try:
            for part in parents:
                below = os.open(part, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            if stat.S_ISDIR(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
                os.rmdir(last, dir_fd=at)
            elif os.stat(last, dir_fd=at, follow_symlinks=False).st_size == 0:
                os.unlink(last, dir_fd=at)
        except OSError:
            continue  # it is not there, or not empty: then the step made it
        finally:
            os.close(at)
