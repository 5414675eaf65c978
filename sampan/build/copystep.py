"""COPY and ADD performed: streams of entries from the context, an archive or another stage into a step's root.

Paths are never joined with a host directory: sources are read through descriptors of the context or through the
helper in the other stage's root, and the destination is resolved by the kernel inside the step's own root.
"""

from __future__ import annotations

import os

from sampan.build import copying, keys
from sampan.build.graph import expanded
from sampan.dockerfile import commands as ins
from sampan.oci.entry import DIRECTORY, FIFO, FILE, SYMLINK, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.build.context import Context, File
    from sampan.build.copying import Placement, Source, Words
    from sampan.build.execute import Root
    from sampan.build.graph import Stage
    from sampan.build.metadata import State
    from sampan.build.solve import Solver
    from sampan.dockerfile.commands import Copy
    from sampan.oci.entry import Content


def perform(solver: Solver, stage: Stage, state: State, step: Copy) -> None:
    """Add the result of a COPY or ADD to the state."""
    scope = state.scope()
    words = copying.Words(step, lambda word: expanded(step, word, scope), state.workdir())
    text = _history(step, words)
    options: list[keys.Field] = [words.dest, words.directory, words.chown, words.chmod, words.excludes, step.parents]
    if step.from_:
        from sampan.build import stagecopy

        stagecopy.perform(solver, stage, state, step, words, text, options)
        return
    for source in words.sources:
        if isinstance(step, ins.Add) and copying.is_remote(source):
            raise step.error(f"ADD of {source} is not supported yet", "fetch the file beforehand, and use COPY")
    if isinstance(step, ins.Add) and step.checksum:  # BuildKit's rule, and never an unchecked file
        raise step.error("ADD --checksum is for HTTP(S) sources", "leave it out: the context's files are not fetched")
    sources = copying.gather(step, words, solver.context, _documents(step, scope))
    described: list[keys.Field] = [
        copying.described(source, lambda file: solver.digests.of(solver.context, file)) for source in sources
    ]
    kind = "add" if isinstance(step, ins.Add) and step.unpack is not False else "copy"

    def work(root: Root) -> None:
        _copy(solver, step, words, sources, root)

    solver.layer(stage, state, step, text, [kind, options, described], work)


def _documents(step: Copy, scope: dict[str, str]) -> list[bytes]:
    """Give the text of the here-documents."""
    if not step.heredocs:
        return []
    from sampan.dockerfile.expand import expand_text

    found = []
    for one in step.heredocs:
        text = written = one.text()
        if one.expand:
            text = expand_text(written, scope)
        if text != written:
            step.node.charge(len(text))
        found.append(text.encode("utf-8", "surrogateescape"))
    return found


def _history(step: Copy, words: Words) -> str:
    flags = [f"--from={step.from_}"] if step.from_ else []
    flags += [f"--chown={words.chown}"] if words.chown else []
    flags += [f"--chmod={words.chmod:o}"] if words.chmod >= 0 else []
    flags += ["--parents"] if step.parents else []
    flags += [f"--exclude={word}" for word in words.excludes]
    return " ".join([step.keyword, *flags, *words.sources, *(f"<<{one.name}" for one in step.heredocs), words.given])


def _copy(solver: Solver, step: Copy, words: Words, sources: list[Source], root: Root) -> None:
    from sampan.build import archives

    executor = solver.executor
    owner = owner_of(solver, step, words.chown, root)
    packed = [source for source in sources if _is_archive(step, source, solver.context)]
    plain = [source for source in sources if source not in packed]
    if packed and words.chmod >= 0:
        raise step.error("--chmod cannot be used when ADD unpacks an archive")
    for source in packed:
        file = source.files[0]
        with solver.context.opened(file) as reader:
            checked = solver.digests.checked(reader)
            executor.apply(root, words.dest, archives.entries(checked.read, source.name, owner))
            checked.end()
    if not plain:
        return
    kind = "D" if packed else executor.kind(root.layers, words.dest)
    placement = copying.place(step, words, [(source.name, source.is_directory) for source in plain], kind)
    uid, gid = owner or (0, 0)
    executor.apply(root, placement.base, _entries(solver, plain, placement, step, words, uid, gid))


def _is_archive(step: Copy, source: Source, context: Context) -> bool:
    if not isinstance(step, ins.Add) or step.unpack is False or len(source.files) != 1 or source.files[0].kind != "F":
        return False
    from sampan.build import archives

    return archives.is_archive(context, source.files[0])


def owner_of(solver: Solver, step: Copy, chown: str, root: Root) -> tuple[int, int] | None:
    """Look the owner that --chown names up in the image; None when there is no --chown."""
    if not chown:
        return None
    from sampan.runtime import accounts

    name, _, group = chown.partition(":")
    numeric = name.isdecimal() and (group.isdecimal() or not group)
    passwd, groups = (b"", b"") if numeric else solver.executor.accounts(root)
    uid, gid, _, _ = accounts.resolve(chown, [], passwd, groups)
    if group or not numeric:
        return uid, gid
    return uid, uid  # Dockerfile reference, "COPY --chown": a number alone is both user and group


def _entries(
    solver: Solver, sources: list[Source], placement: Placement, step: Copy, words: Words, uid: int, gid: int
) -> Iterator[tuple[Entry, Content]]:
    for source in sources:
        if source.data is not None:
            path = os.fsencode(placement.rename or source.name)
            mode = words.chmod if words.chmod >= 0 else 0o644
            yield Entry(FILE, path, mode, uid, gid, size=len(source.data)), _text(source.data)
            continue
        for path_text, file in copying.names(source, placement, step.parents):
            entry = entry_of(path_text, file, words.chmod, uid, gid)
            yield entry, _content(solver, file) if file.kind == "F" else ()


def entry_of(path: str, file: File, chmod: int, uid: int, gid: int) -> Entry:
    """Describe a file of the context as it will be in the image: its modes and times, the step's owner."""
    seconds, nanoseconds = divmod(file.stat.st_mtime_ns, 1_000_000_000)
    mode = chmod if chmod >= 0 and file.kind != "L" else file.mode
    kind = {"D": DIRECTORY, "F": FILE, "L": SYMLINK, "P": FIFO}[file.kind]
    entry = Entry(kind, os.fsencode(path), mode, uid, gid, seconds, nanoseconds)
    if file.kind == "F":
        entry.size = file.stat.st_size
    if file.kind == "L":
        entry.link = os.fsencode(file.link)
    return entry


def _text(data: bytes) -> Content:
    return [(0, data)] if data else []


def _content(solver: Solver, file: File) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with solver.context.opened(file) as reader:
        checked = solver.digests.checked(reader)
        while piece := checked.read():
            yield offset, piece
            offset += len(piece)
        checked.end()
