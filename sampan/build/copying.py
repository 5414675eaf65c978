"""COPY and ADD: which files they name, where these go, and what identifies them.

Pure but for reading the context's directories. Docker's rules: a destination that ends in a slash, or is an existing
directory, or has several sources, takes files by their last name; a source directory gives its contents, not itself;
missing parents are made 0755 root; files of the context belong to 0:0 unless --chown says otherwise.
"""

from __future__ import annotations

import os

from sampan.build import keys
from sampan.build.context import Context, File
from sampan.build.metadata import clean
from sampan.dockerfile.ignore import Patterns
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.dockerfile.commands import Copy

_ENDS = ("/", "/.", "/..")
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@")


class Source:
    """Hold one source: its name at the destination, and its files; `data` is a here-document's text instead of files.

    With --parents the name has directories in it, and `parents` are those.
    """

    __slots__ = ("data", "files", "name", "parents")

    def __init__(self, name: str, files: list[File], data: bytes | None = None) -> None:
        self.name = name
        self.files = files
        self.data = data
        self.parents: list[File] = []

    @property
    def is_directory(self) -> bool:
        """Say whether the contents of a directory are copied."""
        return self.data is None and self.files[0].kind == "D"


class Words:
    """Hold an instruction's words, expanded."""

    __slots__ = ("chmod", "chown", "dest", "directory", "excludes", "given", "sources")

    def __init__(self, step: Copy, expand: Callable[[str], str], workdir: str) -> None:
        self.sources = [expand(word) for word in step.sources]
        dest = self.given = expand(step.dest)
        self.dest = clean(dest if dest.startswith("/") else f"{workdir}/{dest}")
        self.directory = dest.endswith(_ENDS) or dest in (".", "..") or self.dest == "/" or step.parents
        self.chown = expand(step.chown)
        self.chmod = _mode(step, expand(step.chmod))
        self.excludes = [expand(word) for word in step.excludes]


def _mode(step: Copy, text: str) -> int:
    if not text:
        return -1
    if text.strip("01234567") or len(text) > 5 or int(text, 8) > 0o7777:
        hint = (
            "write it in octal, such as 755 or 0644" if text[:1].isdigit() else "symbolic modes are not supported yet"
        )
        raise step.error(f"cannot use --chmod={text}: it is not an octal mode", hint)
    return int(text, 8)


def is_remote(source: str) -> bool:
    """Say whether ADD would have to fetch a source."""
    return source.lower().startswith(_REMOTE)


def gather(step: Copy, words: Words, context: Context, documents: list[bytes]) -> list[Source]:
    """Find the files that an instruction names in the context; a located BuildError when there are none."""
    sources = []
    for pattern in words.sources:
        found = context.sources(pattern)
        if not found:
            raise _missing(step, pattern, context)
        for name, path in found:
            sources.append(_source(step, name, path, context, words.excludes))
    for document, data in zip(step.heredocs, documents, strict=True):
        sources.append(Source(document.name, [], data))
    several(step, words, len(sources))
    return sources


def several(step: Copy, words: Words, count: int) -> None:
    """Check that several sources have a directory as destination."""
    if count > 1 and not words.directory:
        hint = "end the destination with a slash"
        raise step.error(f"{step.keyword} has {count} sources, so its destination must be a directory", hint)


def _source(step: Copy, name: str, path: str, context: Context, excludes: list[str]) -> Source:
    files = context.walk(path)
    if len(files) == 1 and context.ignored(path, files[0].kind == "D"):
        hint = f"take it back in with a line !{path} in .dockerignore"
        raise step.error(f"cannot copy {name}: it is excluded by .dockerignore", hint)
    source = Source(clean("/" + name).rpartition("/")[2], files)
    if excludes:
        patterns = Patterns(excludes, "--exclude")
        source.files = [file for file in files if not _left_out(patterns, file, source.name)]
    if step.parents:
        if "/./" in name:
            raise step.error(f"cannot copy {name}: a /./ in a source of --parents is not supported yet")
        source.name = path
        source.parents = [context.file("/".join(path.split("/")[:count])) for count in range(1, path.count("/") + 1)]
    return source


def _left_out(patterns: Patterns, file: File, name: str) -> bool:
    is_root = file.name == "" and file.kind == "D"
    return not is_root and patterns.matches(file.name or name, file.kind == "D")


def _missing(step: Copy, pattern: str, context: Context) -> SampanError:
    from sampan.dockerfile.located import did_you_mean, shown

    parent, _, last = clean("/" + pattern).lstrip("/").rpartition("/")
    try:
        known = context.names(parent)
        led_out = f"{shown(last)} is a symbolic link to nothing in the context"
        hint = led_out if last in known else did_you_mean(last, known)
    except SampanError:
        hint = f"the build context has no directory {shown(parent)}"
    if os.path.normpath(pattern).startswith("../"):
        hint = "nothing above the context can be copied: build with a directory that holds it"
    hint = hint or "sources are paths below the build context, the last argument of build"
    return step.error(f"cannot copy {shown(pattern)}: the build context has no such file", hint)


def described(source: Source, digest_of: Callable[[File], str]) -> list[keys.Field]:
    """Give what identifies a source: its name, and the digest of the files that come from it."""
    if source.data is not None:
        return ["data", source.name, source.data]
    content = keys.content((file.name, file.kind, file.mode, _text(file, digest_of)) for file in source.files)
    return ["files", source.name, content, [keys.encode([file.path, file.mode]) for file in source.parents]]


def _text(file: File, digest_of: Callable[[File], str]) -> str:
    return file.link if file.kind == "L" else digest_of(file) if file.kind == "F" else ""


class Placement:
    """Hold where sources go: the directory to start in, and the new name of a single source there ("" for none)."""

    __slots__ = ("base", "rename")

    def __init__(self, base: str, rename: str) -> None:
        self.base = base
        self.rename = rename

    def prefix(self, name: str, is_directory: bool, parents: bool = False) -> str:
        """Give the path below the base that a source's own name becomes; a directory's contents have none."""
        if parents:
            return name
        return self.rename or ("" if is_directory else name)


def place(step: Copy, words: Words, sources: list[tuple[str, bool]], kind: str) -> Placement:
    """Decide by what is at the destination ("" nothing, "D" a directory); sources are (name, is_directory)."""
    alone = len(sources) == 1 and not step.parents and not step.heredocs
    new_directory = alone and sources[0][1]
    if kind == "D" or (kind == "" and words.directory and not new_directory):
        return Placement(words.dest, "")
    if kind and (words.directory or new_directory):
        raise step.error(f"cannot copy to {words.dest}: it exists and is not a directory")
    parent, _, last = words.dest.rpartition("/")
    return Placement(parent or "/", last)


def names(source: Source, placement: Placement, parents: bool) -> list[tuple[str, File]]:
    """Give each file of a source with its path below the placement's base."""
    prefix = placement.prefix(source.name, source.is_directory, parents)
    found = [(file.path, file) for file in source.parents]
    for file in source.files:
        path = f"{prefix}/{file.name}" if prefix and file.name else prefix or file.name
        if path:
            found.append((path, file))
    return found
