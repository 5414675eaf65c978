"""Collect paths of this host into a tree to pack: every link on the way is kept as a link, and what it points to
comes along.

A path is walked by hand, component by component, below `root` (the host, or another tree in tests): so /bin stays a
link to usr/bin where the host has it so, and each file lies under its real name once. Owners are written as 0:0 and
directories that merely lead somewhere as 0755, whoever packs.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import Denied, InvalidArgument, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_LINKS = 40  # path_resolution(7): MAXSYMLINKS
CHUNK = 1 << 20


class Node:
    """One file to pack: `type` is D, F or L; a regular file has a `source` to read or its `data` here."""

    __slots__ = ("data", "mode", "mtime", "path", "size", "source", "target", "type")

    def __init__(
        self, path: str, type: str, mode: int, *, mtime: int = 0, source: str = "", data: bytes = b"", target: str = ""
    ) -> None:
        self.path = path
        self.type = type
        self.mode = mode
        self.mtime = mtime
        self.source = source
        self.data = data
        self.target = target
        self.size = len(data)

    def read(self) -> Iterator[bytes]:
        """Yield the content, exactly `size` bytes of it; raise Unavailable if the file has changed."""
        if not self.source:
            if self.data:
                yield self.data
            return
        left = self.size
        with open(self.source, "rb", buffering=0) as file:
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    break
                left -= len(chunk)
                yield chunk
            if left or file.read(1):
                raise Unavailable(f"cannot pack {self.source}: it changed while it was read")


class Tree:
    """The files to pack, by absolute path below `root`."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self._nodes: dict[str, Node] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._nodes

    def add(self, path: str) -> str:
        """Add the file, directory or link at `path` with all that leads there; return its real path."""
        parts = path.split("/")[::-1]
        at = ""
        links = 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                at = os.path.dirname(at).rstrip("/")
                continue
            here = f"{at}/{part}"
            info = self._lstat(here)
            if stat.S_ISLNK(info.st_mode):
                links += 1
                if links > MAX_LINKS:
                    raise InvalidArgument(f"cannot pack {path}: too many links")
                target = os.readlink(self.root + here)
                self._put(Node(here, "L", 0o777, target=target))
                at = "" if target.startswith("/") else at
                parts.extend(target.split("/")[::-1])
                continue
            self._found(here, info)
            at = here
        return at or "/"

    def _lstat(self, path: str) -> os.stat_result:
        try:
            return os.lstat(self.root + path)
        except OSError as exc:
            raise NotFound(f"cannot pack {path}: {exc.strerror}") from exc

    def _found(self, path: str, info: os.stat_result) -> None:
        if path in self._nodes:
            return
        if stat.S_ISDIR(info.st_mode):
            self._put(Node(path, "D", 0o755))
            return
        if not stat.S_ISREG(info.st_mode):
            raise InvalidArgument(f"cannot pack {path}: not a file, directory or link")
        source = self.root + path
        if not os.access(source, os.R_OK):
            raise Denied(f"cannot pack {path}: this user may not read it", hint="run as root, or leave the program out")
        # Owners become 0:0, so a set-id bit stays only where it meant root before.
        special = 0o6000 if info.st_uid or info.st_gid else 0
        node = Node(path, "F", stat.S_IMODE(info.st_mode) & ~special, mtime=int(info.st_mtime), source=source)
        node.size = info.st_size
        self._put(node)

    def add_tree(self, path: str, skip: Collection[str]) -> list[str]:
        """Add a directory with all files below it not named in `skip`; return the real paths of its regular files."""
        top = self.add(path)
        files: list[str] = []
        work = [top]
        while work:
            directory = work.pop()
            self.add(directory)
            for name in sorted(os.listdir(self.root + directory)):
                here = f"{directory}/{name}"
                if name in skip or not os.path.exists(self.root + here):
                    continue
                info = self._lstat(here)
                if stat.S_ISDIR(info.st_mode):
                    work.append(here)
                elif stat.S_ISREG(info.st_mode):
                    files.append(self.add(here))
                elif stat.S_ISLNK(info.st_mode):
                    self.add(here)
        return files

    def add_directory(self, path: str, mode: int) -> None:
        """Add a directory of our own, with the directories above it."""
        real = self._above(path)
        kept = self._nodes.get(real)
        if kept is None or kept.type == "D":
            self._nodes[real] = Node(real, "D", mode)

    def add_bytes(self, path: str, data: bytes) -> None:
        """Add a file of our own in place of what may be there."""
        real = self._above(path)
        self._nodes[real] = Node(real, "F", 0o644, data=data)

    def add_link(self, path: str, target: str) -> None:
        """Add a link of our own, unless the path is taken."""
        real = self._above(path)
        if real not in self._nodes:
            self._nodes[real] = Node(real, "L", 0o777, target=target)

    def _above(self, path: str) -> str:
        """Add the directories above `path`, the host's or new ones, and return the path by their real names."""
        parent, name = os.path.split(path)
        if parent == "/":
            return path
        if os.path.isdir(self.root + parent):
            return f"{self.add(parent)}/{name}"
        real = self._above(parent)
        self._nodes.setdefault(real, Node(real, "D", 0o755))
        return f"{real}/{name}"

    def _put(self, node: Node) -> None:
        self._nodes.setdefault(node.path, node)

    def nodes(self) -> Iterator[Node]:
        """Yield all nodes, parents before what they hold, in one order on every host."""
        for path in sorted(self._nodes, key=_order):
            yield self._nodes[path]


def _order(path: str) -> list[bytes]:
    return os.fsencode(path).split(b"/")
