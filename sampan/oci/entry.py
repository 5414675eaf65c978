"""One file of a tree: what archives hold, what the helper packs and applies (docs/internals/architecture.md, "Trees").

Paths are raw bytes relative to the root, without "." or "..", "" is the root itself.  A source of entries is any
iterable of (Entry, content), where content gives (offset, bytes) pieces in order and leaves holes out; it must be used
before the next entry is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Piece = tuple[int, bytes | memoryview]
    Content = Iterable[Piece]
    Source = Iterable[tuple["Entry", Content]]

DIRECTORY, FILE, SYMLINK, HARD_LINK = "D", "F", "L", "H"
BLOCK_DEVICE, CHAR_DEVICE, FIFO = "B", "C", "P"
WHITEOUT, REQUEST, END = "W", "R", "E"

# helper/stream.h, enum entry_flags
KEEP = 1  # D: an existing directory, also behind a symbolic link, keeps its metadata
CHILDREN = 2  # W: remove what is inside only
NO_DATA = 4  # F: listed, without its contents
FOLLOW = 8  # R: a symbolic link as last component is followed
LIST = 16  # R: entries without contents

MAX_PATH = 4096  # PATH_MAX of Linux: what no program could open is not a file
MAX_XATTR_NAME = 255
MAX_XATTR_VALUE = 65536  # limits of Linux, linux/limits.h


class Entry:
    """Describe one file; `xattrs` is None or a dict of raw names and values."""

    __slots__ = (
        "flags",
        "gid",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_nsec",
        "mtime_sec",
        "path",
        "size",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        type: str,
        path: bytes,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        mtime_sec: int = 0,
        mtime_nsec: int = 0,
        size: int = 0,
        link: bytes = b"",
        xattrs: dict[bytes, bytes] | None = None,
        major: int = 0,
        minor: int = 0,
        flags: int = 0,
    ) -> None:
        self.type = type
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_sec = mtime_sec
        self.mtime_nsec = mtime_nsec
        self.size = size
        self.link = link
        self.xattrs = xattrs
        self.major = major
        self.minor = minor
        self.flags = flags

    def __repr__(self) -> str:
        return f"Entry({self.type} {self.path!r} {self.mode:o} {self.uid}:{self.gid} {self.size})"


def xattr_accepted(name: bytes) -> bool:
    """Tell whether a tree may carry this attribute: not what steers overlayfs or sampan, or is the host's security."""
    if name.startswith(b"user."):
        return not name.startswith((b"user.overlay.", b"user.sampan."))
    return name in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
