"""`cp`: files between a container and the host, by Docker's rules (docs.docker.com, "docker container cp").

A source directory gives itself, or with a final `/.` what is in it.  A destination that is a directory takes things
by their name; one that does not exist becomes the copy, if its parent is there.  A symbolic link as source is copied
as a link, unless a final slash or `follow_link` asks for what it leads to; as destination it is followed.  All paths of
a container are resolved by the helper below the container's root, whatever its links say (engine/access.py).
"""

from __future__ import annotations

import os
import stat

from sampan.engine import hosttree
from sampan.engine.access import Files
from sampan.errors import Conflict, InvalidArgument, NotFound, counted
from sampan.oci import entry as kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.engine.engine import Engine
    from sampan.oci.entry import Content, Entry, Source
    from sampan.runtime import tree

    Write = Callable[[bytes], object]

_LINKS = 10  # as Docker's client


class Target:
    """Hold a destination: its path with links followed, and whether a directory or something else is there."""

    __slots__ = ("is_directory", "exists", "path")

    def __init__(self, path: str, exists: bool = False, is_directory: bool = False) -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory


def contents_only(path: str) -> bool:
    """Say whether a path ends in `/.`: what is inside is meant."""
    return path.rstrip("/").rpartition("/")[2] == "."


def asks_directory(path: str) -> bool:
    """Say whether a path as written can only mean a directory."""
    return path.endswith("/") or contents_only(path)


def clean(path: str, base: str = "/") -> str:
    """Give an absolute path without `.` and `..`; what its end says about directories is kept."""
    from sampan.build import metadata

    full = metadata.clean(path if path.startswith("/") else f"{base}/{path}")
    if contents_only(path):
        return full.rstrip("/") + "/."
    return full + "/" if path.endswith("/") and full != "/" else full


def place(name: str, is_directory: bool, target: Target, shown: str) -> tuple[str, str]:
    """Decide where a source goes: the directory to write in, and the name that it gets there ("" for its contents)."""
    if target.is_directory:
        return target.path, name
    if target.exists and (is_directory or asks_directory(target.path)):
        what = "a directory" if is_directory else "a file"
        raise Conflict(f"cannot copy {what} to {shown}: it exists and is not a directory")
    if not is_directory and asks_directory(target.path):
        raise NotFound(f"cannot copy to {shown}: there is no such directory", "make it first, or leave the slash out")
    parent, _, last = target.path.removesuffix("/.").rstrip("/").rpartition("/")
    return parent or "/", last


def _base_name(path: str) -> str:
    """Give the name that a source has in its copy: "" for the root, and where only the contents are meant."""
    return "" if contents_only(path) else path.rstrip("/").rpartition("/")[2]


def _named(entry: Entry, prefix: bytes) -> bool:
    """Name an entry below the destination; False for a directory that is there already and stays as it is."""
    entry.path = _below(prefix, entry.path)
    if entry.type == kinds.HARD_LINK:
        entry.link = _below(prefix, entry.link)
    return bool(entry.path)


def _below(prefix: bytes, path: bytes) -> bytes:
    return prefix + b"/" + path if prefix and path else prefix or path


# ---- out of a container ----


def _source(files: Files, path: str, follow: bool) -> tuple[str, bool, Entry]:
    """Look a source up: its clean path, whether to follow its last component, and what is there."""
    path = clean(path)
    follow = follow or asks_directory(path)
    found = files.look(path, follow)
    if found is None:
        why = "too many levels of symbolic links" if files.circles(path) else "there is no such file in the container"
        raise NotFound(f"cannot copy {files.record.name}:{path}: {why}")
    if asks_directory(path) and found.type != kinds.DIRECTORY:
        raise Conflict(f"cannot copy {files.record.name}:{path}: it is not a directory")
    return path, follow, found


def copy_out(
    engine: Engine, name: str, path: str, destination: str, *, follow_link: bool = False, archive: bool = False
) -> int:
    """Copy a file or directory of a container to the host and give the bytes written.

    Files belong to the caller; with `archive` owners (and what goes with them: set-user-ID bits, capabilities) are kept
    where the caller may.  Devices are never made.
    """
    with Files(engine, name) as files:
        source, follow, found = _source(files, path, follow_link)
        target = _host_target(destination)
        is_directory = found.type == kinds.DIRECTORY
        base, last = place(_base_name(source), is_directory, target, destination)
        prefix = os.fsencode(last)
        with hosttree.Writer(base, archive) as writer:
            for entry, content in files.entries(source, follow=follow):
                if _named(entry, prefix):
                    writer.add(entry, content)
                elif entry.type != kinds.DIRECTORY:
                    raise Conflict(f"cannot copy {name}:{path}: it became something else meanwhile")
    engine.events.container("archive-path", files.record)
    _tell(engine, writer)
    return writer.size


def _tell(engine: Engine, writer: hosttree.Writer) -> None:
    if writer.devices:
        left = counted(writer.devices, "device file was", "device files were")
        engine.warn([f"{left} left out: a copy on the host never makes devices"])
    if writer.unowned:
        kept = counted(writer.unowned, "file")
        engine.warn([f"the owners of {kept} could not be kept: this user may not give files away"])


def _host_target(path: str) -> Target:
    """Look at a destination on the host."""
    full = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    for _ in range(_LINKS):
        try:
            found = os.lstat(full)
        except FileNotFoundError:
            break
        except OSError as exc:
            raise hosttree.failure("copy to", path, exc) from exc
        if not stat.S_ISLNK(found.st_mode):
            if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
                raise InvalidArgument(f"cannot copy to {path}: it is neither a directory nor a regular file")
            return Target(full, True, stat.S_ISDIR(found.st_mode))
        full = os.path.join(os.path.dirname(full), os.readlink(full))
    else:
        raise InvalidArgument(f"cannot copy to {path}: too many symbolic links")
    parent = os.path.dirname(full.removesuffix("/.").rstrip("/")) or "/"
    if not os.path.isdir(parent):
        raise NotFound(f"cannot copy to {path}: there is no directory {parent}", "make it first")
    return Target(full)


def read_archive(engine: Engine, name: str, path: str, write: Write, *, follow_link: bool = False) -> int:
    """Write a file or directory of a container as a tar and give its size; entries begin with the path's last name."""
    from sampan.oci.tarwriter import TarWriter

    with Files(engine, name) as files:
        source, follow, _ = _source(files, path, follow_link)
        prefix = os.fsencode("." if contents_only(source) else _base_name(source))
        tar = TarWriter(write)
        for entry, content in files.entries(source, follow=follow):
            if _named(entry, prefix):
                tar.add(entry, content)
        engine.events.container("archive-path", files.record)
        return tar.close()


# ---- into a container ----


def copy_in(
    engine: Engine, name: str, source: str, path: str, *, follow_link: bool = False, archive: bool = False
) -> int:
    """Copy a file or directory of the host into a container and give the bytes read.

    Files belong to the container's root; with `archive` their numbers are kept.
    """
    host, source_name = _host_source(source, follow_link)
    size = 0
    with Files(engine, name) as files:
        target = _inner_target(files, path)
        is_directory = os.path.isdir(host) and not os.path.islink(host)
        base, last = place(source_name, is_directory, target, f"{files.record.name}:{path}")
        _need_directory(files, base, path)
        prefix = os.fsencode(last)

        def send(applier: tree.Applier) -> None:
            nonlocal size
            for entry, fd in hosttree.Reader(host):
                if not archive:
                    entry.uid = entry.gid = 0
                if not _named(entry, prefix):
                    continue
                if entry.type == kinds.FILE:
                    applier.file(entry, fd)
                    size += entry.size
                else:
                    applier.entry(entry)

        files.apply(base, send)
    engine.events.container("extract-to-dir", files.record)
    return size


def _host_source(path: str, follow_link: bool) -> tuple[str, str]:
    """Find a source of the host: where it really is, and the name that its copy has."""
    full = clean(path, os.getcwd())
    try:
        if follow_link or asks_directory(full):
            real = os.path.realpath(full, strict=True)
            if asks_directory(full) and not os.path.isdir(real):
                raise Conflict(f"cannot copy {path}: it is not a directory")
        else:
            real = full
            os.lstat(real)
    except OSError as exc:
        raise hosttree.failure("copy", path, exc) from exc
    return real, _base_name(full)


def _inner_target(files: Files, path: str) -> Target:
    """Look at a destination in the container; where links lead is found out there, one after another."""
    full, shown = clean(path), f"{files.record.name}:{path}"
    for _ in range(_LINKS):
        found = files.look(full, asks_directory(full))
        if found is None:
            if asks_directory(full) and files.look(full.removesuffix("/.").rstrip("/")) is not None:
                raise NotFound(f"cannot copy to {shown}: there is no such directory")
            return Target(full)
        if found.type != kinds.SYMLINK:
            if found.type not in (kinds.FILE, kinds.DIRECTORY):
                raise InvalidArgument(f"cannot copy to {shown}: it is neither a directory nor a regular file")
            return Target(full, True, found.type == kinds.DIRECTORY)
        ahead = files.look(full, True)
        if ahead is not None and ahead.type == kinds.DIRECTORY:
            return Target(full, True, True)
        full = clean(os.fsdecode(found.link), full.rpartition("/")[0])  # as text, like Docker
    raise InvalidArgument(f"cannot copy to {shown}: too many symbolic links")


def _need_directory(files: Files, base: str, path: str) -> None:
    found = files.look(base, True)
    if found is None or found.type != kinds.DIRECTORY:
        raise NotFound(f"cannot copy to {files.record.name}:{path}: there is no directory {base} in the container")


def write_archive(engine: Engine, name: str, path: str, read: Callable[[int], bytes], *, archive: bool = False) -> int:
    """Unpack a tar into a directory of a container, which must be there, and give the bytes of its files.

    Owners are those of the archive; with `archive` the container's user, where it has one, as Docker does.
    """
    from sampan.oci.tarreader import TarReader

    with Files(engine, name) as files:
        target = _inner_target(files, path)
        if not target.is_directory:
            raise Conflict(f"cannot copy to {files.record.name}:{path}: an archive needs a directory as destination")
        reader = TarReader(_decoded(read))
        owner = _user(files) if archive else None

        def send(applier: tree.Applier) -> None:
            applier.feed(_owned(reader, owner))

        files.apply(target.path, send)
        engine.events.container("extract-to-dir", files.record)
        return reader.unpacked_size


def _decoded(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Give the bytes of an archive that may be compressed."""
    from sampan.transfer import codec

    source = codec.Peek(read)
    kind = codec.detect(source.peek(6))
    return codec.decoder(kind, source.read, "the archive")


def _user(files: Files) -> tuple[int, int] | None:
    """Give the ids of the user that the container was made for; None for root."""
    from sampan.runtime import accounts

    name = (files.record.spec["process"].get("user") or {}).get("username", "")
    if not name:
        return None
    texts = [files.small(path) or b"" for path in ("/etc/passwd", "/etc/group")]
    uid, gid, _, _ = accounts.resolve(name, [], *texts)
    return uid, gid


def _owned(source: Source, owner: tuple[int, int] | None) -> Iterator[tuple[Entry, Content]]:
    for entry, content in source:
        if owner is not None:
            entry.uid, entry.gid = owner
        if entry.path:
            yield entry, content
