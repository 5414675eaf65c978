"""COPY --from: files of another stage or image, read by the helper inside that root and given on to this one.

As in BuildKit, owners, times and extended attributes are kept unless --chown or --chmod change them; a source that is
a symbolic link is followed inside its own root. The first key names the other root as a whole, the second its copied
files, so that a stage which was built again with the same outcome does not run what follows.
"""

from __future__ import annotations

import os

from sampan.build import copying, keys
from sampan.build.metadata import clean
from sampan.dockerfile.ignore import Patterns
from sampan.dockerfile.wildcard import Wildcard, has_wildcard
from sampan.errors import NotFound
from sampan.oci import digest as digests
from sampan.oci import image as images
from sampan.oci.entry import DIRECTORY, FILE, HARD_LINK, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.build.copying import Placement, Words
    from sampan.build.execute import Executor, Root
    from sampan.build.graph import Stage
    from sampan.build.metadata import State
    from sampan.build.solve import Solver
    from sampan.dockerfile.commands import Copy
    from sampan.oci.entry import Content, Entry


class Found:
    """Hold one source: its path in the other root, the name that it was asked for by, and whether it is a directory."""

    __slots__ = ("is_directory", "name", "path")

    def __init__(self, path: str, is_directory: bool) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.is_directory = is_directory


def perform(
    solver: Solver, stage: Stage, state: State, step: Copy, words: Words, text: str, options: list[keys.Field]
) -> None:
    """Add the result of a COPY --from to the state."""
    if step.parents:
        raise step.error(
            "COPY --from with --parents is not supported yet", "name the destination's directories instead"
        )
    if step.heredocs:
        raise step.error("a here-document cannot be copied from another stage", "write it with a COPY of its own")
    other = source_state(solver, stage, step).diff_ids
    found: list[Found] = []

    def sources() -> list[Found]:
        if not found:
            found.extend(_sources(solver.executor, other, step, words))
        return found

    def by_content() -> str:
        rows: list[keys.Field] = [
            [one.name, one.is_directory, _digest(solver.executor, other, one, words)] for one in sources()
        ]
        return keys.key("copy-files", images.chain_id(state.diff_ids), options, rows)

    def work(root: Root) -> None:
        _copy(solver, step, words, other, sources(), root)

    fields: list[keys.Field] = ["copy-from", options, images.chain_id(other), words.sources]
    solver.layer(stage, state, step, text, fields, work, by_content)


def source_state(solver: Solver, stage: Stage, step: Copy) -> State:
    """Give the state of the stage or image that --from names."""
    index = solver.graph.find(step.from_, stage.index)
    return solver.solve(index) if index >= 0 else solver.image(step.from_, step)


def _sources(executor: Executor, other: list[str], step: Copy, words: Words) -> list[Found]:
    found = [one for pattern in words.sources for one in _matches(executor, other, step, pattern)]
    copying.several(step, words, len(found))
    return found


def _matches(executor: Executor, other: list[str], step: Copy, pattern: str) -> list[Found]:
    paths = [""]
    for part in clean("/" + pattern).strip("/").split("/"):
        if not has_wildcard(part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        wanted = Wildcard(part)
        paths = [f"{path}/{name}" for path in paths for name in _names(executor, other, path) if wanted.matches(name)]
    kinds = [(path, executor.kind(other, path)) for path in paths]
    found = [Found(path, kind == DIRECTORY) for path, kind in kinds if kind]
    if not found:
        raise step.error(f"cannot copy {pattern}: {step.from_} has no such file")
    return found


def _names(executor: Executor, other: list[str], path: str) -> list[str]:
    try:
        return [os.fsdecode(entry.path) for entry in executor.names(other, path) if entry.path]
    except NotFound:
        return []


def _entries(executor: Executor, other: list[str], found: Found, words: Words) -> Iterator[tuple[Entry, Content]]:
    """Give the entries of a source, named below it, without those that --exclude leaves out."""
    if not words.excludes:
        yield from executor.pack(other, found.path)
        return
    patterns = Patterns(words.excludes, "--exclude")
    left_out: dict[bytes, Entry] = {}
    orphans: dict[bytes, list[Entry]] = {}
    for entry, content in executor.pack(other, found.path):
        name = os.fsdecode(entry.path) or ("" if entry.type == DIRECTORY else found.name)
        if name and patterns.matches(name, entry.type == DIRECTORY):
            left_out[entry.path] = entry
        elif entry.type == HARD_LINK and entry.link in left_out:
            orphans.setdefault(entry.link, []).append(entry)
        else:
            yield entry, content
    for path, (first, *others) in orphans.items():
        yield from _adopted(executor, other, found, left_out[path], first.path)
        for entry in others:
            entry.link = first.path
            yield entry, ()


def _adopted(
    executor: Executor, other: list[str], found: Found, gone: Entry, path: bytes
) -> Iterator[tuple[Entry, Content]]:
    """Give a file by another of its names: the one that it came with is left out."""
    if gone.type != FILE:
        gone.path = path
        yield gone, ()
        return
    for entry, content in executor.pack(other, f"{found.path}/{os.fsdecode(path)}"):
        entry.path = path
        yield entry, content


def _digest(executor: Executor, other: list[str], found: Found, words: Words) -> str:
    """Give the digest of what a source gives: everything but times."""
    total = digests.sha256(bulk=True)
    for entry, content in _entries(executor, other, found, words):
        xattrs: keys.Field = [[name, value] for name, value in sorted((entry.xattrs or {}).items())]
        ids: list[keys.Field] = [entry.mode, entry.uid, entry.gid, entry.major, entry.minor]
        total.update(keys.encode([entry.type, entry.path, entry.link, entry.size, ids, xattrs]))
        if entry.type == FILE:
            for offset, piece in content:
                total.update(keys.encode([offset, len(piece)]))
                total.update(piece)
    return total.hexdigest()


def _copy(solver: Solver, step: Copy, words: Words, other: list[str], found: list[Found], root: Root) -> None:
    from sampan.build.copystep import owner_of

    owner = owner_of(solver, step, words.chown, root)
    kind = solver.executor.kind(root.layers, words.dest)
    placement = copying.place(step, words, [(one.name, one.is_directory) for one in found], kind)
    for one in found:
        entries = _renamed(_entries(solver.executor, other, one, words), one, placement, words.chmod, owner)
        solver.executor.apply(root, placement.base, entries)


def _renamed(
    entries: Iterator[tuple[Entry, Content]],
    found: Found,
    placement: Placement,
    chmod: int,
    owner: tuple[int, int] | None,
) -> Iterator[tuple[Entry, Content]]:
    prefix = os.fsencode(placement.prefix(found.name, found.is_directory))
    for entry, content in entries:
        entry.path = _below(prefix, entry.path)
        if not entry.path:
            continue  # the directory itself: its contents are copied
        if entry.type == HARD_LINK:
            entry.link = _below(prefix, entry.link)
        if owner is not None:
            entry.uid, entry.gid = owner
        if chmod >= 0 and entry.type != SYMLINK:
            entry.mode = chmod
        yield entry, content


def _below(prefix: bytes, path: bytes) -> bytes:
    return prefix + b"/" + path if prefix and path else prefix or path
