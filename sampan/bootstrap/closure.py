"""Find every file that a program of this host needs to start: its interpreter, its shared libraries, theirs, and so
on.

The search is the dynamic linker's (ld.so(8)): for a name without a slash the RPATH of the object and of those that
loaded it (unless it has a RUNPATH), its RUNPATH, /etc/ld.so.cache, then the default directories; musl has its own
path file and takes both kinds of paths alike. LD_LIBRARY_PATH is ignored: the image must work without it. A candidate
of another machine or word size is passed over, as ld.so does. Nothing found is executed.
"""

from __future__ import annotations

import os
from struct import Struct, error

from sampan.bootstrap import elf
from sampan.errors import InvalidArgument, NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CACHE = "/etc/ld.so.cache"
CACHE_MAGIC = b"glibc-ld.so.cache1.1"
MAX_CACHE_BYTES = 1 << 26
# nlibs, len_strings, flags and padding, extension offset, three unused words (glibc dl-cache.h).
_CACHE_HEADER = Struct("=20sII16x4x")
# flags, key, value, osversion, hwcap: key and value are offsets from the header.
_CACHE_ENTRY = Struct("=iIIIQ")
MULTIARCH = {
    (62, 64): "x86_64-linux-gnu",
    (3, 32): "i386-linux-gnu",
    (183, 64): "aarch64-linux-gnu",
    (40, 32): "arm-linux-gnueabihf",
    (243, 64): "riscv64-linux-gnu",
    (21, 64): "powerpc64le-linux-gnu",
    (22, 64): "s390x-linux-gnu",
}
# What musl's loader answers for itself (musl ldso/dynlink.c, load_library).
MUSL_RESERVED = ("c", "pthread", "rt", "m", "dl", "util", "xnet")
MAX_SHEBANG = 256  # BINPRM_BUF_SIZE, kernel >= 5.1
MAX_FILES = 20000


class Libraries:
    """The search of this host; `root` puts another tree in its place (for tests)."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.from_cache = False
        self._cache: dict[str, list[str]] | None = None
        self._parsed: dict[str, elf.Elf | None] = {}

    def closure(self, path: str, *, lenient: bool = False) -> list[str]:
        """Return the absolute paths that the program or library at `path` needs, `path` first; links are not resolved.

        A library that is not found raises NotFound naming both; with `lenient` it is passed over.
        """
        found: dict[str, None] = {}
        self._visit(path, found, lenient)
        return list(found)

    def _visit(self, path: str, found: dict[str, None], lenient: bool) -> None:
        work: list[tuple[str, tuple[str, ...], bool]] = [(path, (), False)]
        while work:
            current, inherited, musl = work.pop()
            if current in found:
                continue
            if len(found) > MAX_FILES:
                raise InvalidArgument(f"cannot follow what {path} needs: more than {MAX_FILES} files")
            found[current] = None
            parsed = self.parsed(current)
            if parsed is None:
                work.extend((program, (), False) for program in self._shebang(current))
                continue
            if parsed.interpreter:
                work.append((parsed.interpreter, (), False))
                musl = "/ld-musl-" in parsed.interpreter
            rpath, runpath = self._search_paths(current, parsed, inherited, musl)
            for name in reversed(parsed.needed):
                target = self.find(name, parsed.kind, [*rpath, *runpath], musl)
                if target:
                    work.append((target, tuple(rpath), musl))
                elif not lenient and not (musl and _musl_reserved(name)):
                    raise NotFound(f"cannot find library {name} that {current} needs")

    def _search_paths(
        self, path: str, parsed: elf.Elf, inherited: tuple[str, ...], musl: bool
    ) -> tuple[list[str], list[str]]:
        """Return the directories that this object hands down, and those that count for itself alone."""
        rpath = [place for entry in parsed.rpath for place in expand(entry, path, parsed.kind)]
        runpath = [place for entry in parsed.runpath for place in expand(entry, path, parsed.kind)]
        if musl:
            return [*(runpath or rpath), *inherited], []
        # gABI: DT_RUNPATH replaces DT_RPATH of the same object; only DT_RPATH is inherited.
        return ([*inherited], runpath) if runpath else ([*rpath, *inherited], [])

    def find(self, name: str, kind: tuple[int, int], search: Iterable[str] = (), musl: bool = False) -> str:
        """Return the path of library `name` for machine and word size `kind`, or ""."""
        if "/" in name:
            return name if self._fits(name, kind) else ""
        for directory in search:
            if self._fits(f"{directory}/{name}", kind):
                return f"{directory}/{name}"
        defaults = self.musl_path() if musl else default_directories(kind)
        if not musl:
            for path in self.cache().get(name, ()):
                if self._fits(path, kind):
                    self.from_cache = self.from_cache or os.path.dirname(path) not in defaults
                    return path
        return next((f"{place}/{name}" for place in defaults if self._fits(f"{place}/{name}", kind)), "")

    def _fits(self, path: str, kind: tuple[int, int]) -> bool:
        if not path.startswith("/"):
            return False
        try:
            parsed = self.parsed(path)
        except SampanError:
            return False
        return parsed is not None and parsed.kind == kind

    def parsed(self, path: str) -> elf.Elf | None:
        """Return the parsed ELF file at `path`, or None if it is of another kind; NotFound if it is missing."""
        if path not in self._parsed:
            try:
                handle = os.open(self.root + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as exc:
                raise NotFound(f"cannot open {path}: {exc.strerror}") from exc
            try:
                self._parsed[path] = parse_file(handle, path)
            finally:
                os.close(handle)
        return self._parsed[path]

    def _shebang(self, path: str) -> Iterator[str]:
        """Yield the interpreter of a script, and the program that `env` would look up for it."""
        with open(self.root + path, "rb") as file:
            words = shebang(file.read(MAX_SHEBANG))
        if not words:
            return
        yield words[0]
        if os.path.basename(words[0]) == "env":
            program = next(
                (word for word in " ".join(words[1:]).split() if not word.startswith("-") and "=" not in word), ""
            )
            if program:
                yield self.which(program)

    def which(self, program: str, path: str = "") -> str:
        """Return the absolute path of a program: the standard directories first, then those of `path`; or NotFound."""
        if "/" in program:
            if program.startswith("/") and self._executable(program):
                return program
            raise NotFound(f"cannot find program {program} on this host")
        for directory in [*STANDARD_PATH, *path.split(":")]:
            if directory.startswith("/") and self._executable(f"{directory}/{program}"):
                return f"{directory.rstrip('/')}/{program}"
        raise NotFound(f"cannot find program {program} on this host", hint=f"install {program}, or name other programs")

    def _executable(self, path: str) -> bool:
        return os.path.isfile(self.root + path) and os.access(self.root + path, os.X_OK)

    def cache(self) -> dict[str, list[str]]:
        """Return the linker's cache: library name to paths, best first."""
        if self._cache is None:
            try:
                with open(self.root + CACHE, "rb") as file:
                    self._cache = parse_cache(file.read(MAX_CACHE_BYTES))
            except OSError:
                self._cache = {}  # musl hosts have none, and the default directories are searched anyway
        return self._cache

    def musl_path(self) -> list[str]:
        """Return the directories of /etc/ld-musl-*.path, or musl's defaults."""
        try:
            names = sorted(name for name in os.listdir(self.root + "/etc") if _is_musl_path(name))
        except OSError:
            names = []
        for name in names:
            with open(f"{self.root}/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
                return [place for place in file.read().replace("\n", ":").split(":") if place.startswith("/")]
        return ["/lib", "/usr/local/lib", "/usr/lib"]


STANDARD_PATH = ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")


def default_directories(kind: tuple[int, int]) -> list[str]:
    """Return where glibc looks last: the multiarch directories of Debian, lib64 of others, then lib."""
    triple = MULTIARCH.get(kind)
    multiarch = [f"/lib/{triple}", f"/usr/lib/{triple}"] if triple else []
    wide = ["/lib64", "/usr/lib64"] if kind[1] == 64 else []
    return [*multiarch, *wide, "/lib", "/usr/lib"]


def expand(entry: str, path: str, kind: tuple[int, int]) -> list[str]:
    """Return the directories that one RPATH entry means for the object at `path`: $ORIGIN and $LIB (ld.so(8)); relative
    ones mean none.
    """
    origin = os.path.dirname(path)
    for token in ("${ORIGIN}", "$ORIGIN"):
        entry = entry.replace(token, origin)
    entry = entry.replace("${LIB}", "$LIB")
    names = [f"lib/{MULTIARCH.get(kind, '')}", "lib64", "lib"] if "$LIB" in entry else [""]
    places = [entry.replace("$LIB", name) for name in names]
    return [os.path.normpath(place) for place in places if place.startswith("/") and "$" not in place]


def parse_file(handle: int, name: str) -> elf.Elf | None:
    """Return what the open file asks for if it is an ELF file."""
    if not elf.is_elf(os.pread(handle, 4, 0)):
        return None

    def read(offset: int, size: int) -> bytes:
        return os.pread(handle, size, offset)

    return elf.parse(read, name)


def parse_cache(data: bytes) -> dict[str, list[str]]:
    """Read the new format of ld.so.cache, alone or behind the old one; entries for special processors are left out."""
    start = data.find(CACHE_MAGIC)
    result: dict[str, list[str]] = {}
    if start < 0:
        return result
    try:
        _, count, _ = _CACHE_HEADER.unpack_from(data, start)
        first = start + _CACHE_HEADER.size
        if first + count * _CACHE_ENTRY.size > len(data):
            return result
        for index in range(count):
            _, key, value, _, hwcap = _CACHE_ENTRY.unpack_from(data, first + index * _CACHE_ENTRY.size)
            if not hwcap:
                result.setdefault(_string(data, start + key), []).append(_string(data, start + value))
    except (error, ValueError) as exc:
        raise InvalidArgument(f"cannot read {CACHE}: {exc}") from exc
    return result


def shebang(head: bytes) -> list[str]:
    """Return the interpreter and its one argument from the first bytes of a script, or nothing."""
    if not head.startswith(b"#!"):
        return []
    line = head[2:].split(b"\n", 1)[0].strip()
    return [word.decode("utf-8", "surrogateescape") for word in line.split(None, 1)]


def _string(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + elf.MAX_NAME)
    if end < 0:
        raise ValueError("name without an end")
    return data[offset:end].decode("utf-8", "surrogateescape")


def _is_musl_path(name: str) -> bool:
    return name.startswith("ld-musl-") and name.endswith(".path")


def _musl_reserved(name: str) -> bool:
    return name.startswith("lib") and name[3:].split(".", 1)[0] in MUSL_RESERVED
