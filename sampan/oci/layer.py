"""Layers: whiteouts between the names of an archive and the marks of overlayfs (image-spec layer.md, "Whiteouts").

In an archive `.wh.name` hides name of lower layers, and `.wh..wh..opq` all that they have in its directory.  On disk
that is a character device 0/0 (entry `C`), and the opaque attribute on the directory.  On a merged tree it is a removal
(entry `W`).
"""

from __future__ import annotations

from sampan.errors import NotSupported
from sampan.oci import entry as kinds
from sampan.oci.entry import Entry
from sampan.oci.tarheader import broken
from sampan.oci.tarreader import TarReader
from sampan.oci.tarwriter import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.oci.entry import Content, Source

__all__ = ["TarReader", "TarWriter", "from_overlay", "to_overlay", "to_removals"]

_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"


def _is_plain(entry: Entry) -> bool:
    return not entry.path.startswith(_PREFIX) and b"/" + _PREFIX not in entry.path


def _hidden(entry: Entry) -> tuple[bytes, bytes] | None:
    """Say what a whiteout hides: (directory, name), name b"" for all inside; None for what is to be skipped."""
    directory, _, name = entry.path.rpartition(b"/")
    parts = directory.split(b"/")
    if name != _OPAQUE and any(part.startswith(b".wh..wh.") for part in (*parts, name)):
        return None  # where AUFS kept its own files: never part of a tree
    if any(part.startswith(_PREFIX) for part in parts):
        raise broken("a whiteout is used as a directory", entry.path)
    if name == _OPAQUE:
        return directory, b""
    hidden = name[len(_PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise broken("a whiteout hides no name", entry.path)
    return directory, hidden


def to_overlay(source: Source, opaque_name: str) -> Iterator[tuple[Entry, Content]]:
    """Turn whiteout names into overlayfs marks, for a layer's own directory."""
    opaque = opaque_name.encode()
    for entry, content in source:
        if _is_plain(entry):
            yield entry, content
            continue
        found = _hidden(entry)
        if not found:
            continue
        directory, name = found
        if name:
            yield Entry(kinds.CHAR_DEVICE, directory + b"/" + name if directory else name), ()
        else:
            yield Entry(kinds.DIRECTORY, directory, 0o755, xattrs={opaque: b"y"}, flags=kinds.KEEP), ()


def to_removals(source: Source) -> Iterator[tuple[Entry, Content]]:
    """Turn whiteout names into removals, for a merged tree; a directory's opaque mark must come before its files."""
    for entry, content in source:
        if _is_plain(entry):
            yield entry, content
            continue
        found = _hidden(entry)
        if not found:
            continue
        directory, name = found
        if name:
            yield Entry(kinds.WHITEOUT, directory + b"/" + name if directory else name), ()
        else:
            yield Entry(kinds.WHITEOUT, directory, flags=kinds.CHILDREN), ()


def from_overlay(source: Source, opaque_name: str) -> Iterator[tuple[Entry, Content]]:
    """Turn overlayfs marks into whiteout names; NotSupported when a file itself has such a name."""
    opaque = opaque_name.encode()
    for entry, content in source:
        directory, slash, name = entry.path.rpartition(b"/")
        if name.startswith(_PREFIX):
            shown = entry.path.decode("utf-8", "backslashreplace")
            raise NotSupported(
                f"cannot make a layer with {shown!r}: names that begin with .wh. mean removals in layers",
                "remove or rename it in the step that made it",
            )
        if entry.type == kinds.CHAR_DEVICE and not entry.major and not entry.minor:
            # Overlayfs shares one inode among whiteouts: its times mean nothing.
            yield Entry(kinds.FILE, directory + slash + _PREFIX + name, 0o600), ()
            continue
        mark = entry.xattrs.pop(opaque, b"") if entry.xattrs else b""
        yield entry, content
        if mark == b"y":
            yield Entry(kinds.FILE, entry.path + b"/" + _OPAQUE if entry.path else _OPAQUE, 0o600), ()
