"""The code of the modules that commands load, in one file: a start then opens one in place of sixty.

    __pycache__/sampan.<interpreter>.bundle
      magic    this format's, and the interpreter's own for byte code; then the length of the index
      index    marshal: {module: (offset, length, mtime in ns and size of its source, is it a package)}
      code     marshal of one code object for each module

Rules (docs/decisions/0007): it is a cache beside the .pyc files, trusted as they are: written by whoever may write
there, replaced in one step, bound to the interpreter; an entry counts only for a source of the same time and size.
What does not fit is imported as if there were no bundle, and the command that met it writes a new one (lean.py) at its
end. Where the package was replaced or removed while the command runs (an upgrade), it goes on with the code that it has
begun with.
"""

# This file is not in the bundle itself: its annotations are text, because `__future__` would be a module to load.

import marshal
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import CodeType
    from typing import Any

    Entry = tuple[int, int, int, int, bool]


class _Mapping:
    """What `os.environ` needs of `_collections_abc.MutableMapping`, in the process of a command."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> str: ...
        def __setitem__(self, key: str, value: str) -> None: ...
        def __delitem__(self, key: str) -> None: ...
        def __iter__(self) -> "Iterator[str]": ...

    def get(self, key: str, default: "Any" = None) -> "Any":
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: str) -> bool:
        return self.get(key, self) is not self

    def keys(self) -> list[str]:
        return list(self)

    def values(self) -> list[str]:
        return [self[key] for key in self]

    def items(self) -> list[tuple[str, str]]:
        return [(key, self[key]) for key in self]

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == (dict(other.items()) if isinstance(other, _Mapping) else other)

    __hash__ = None  # type: ignore[assignment]

    def pop(self, key: str, *default: "Any") -> "Any":
        found = self.get(key, self)
        if found is self:
            if default:
                return default[0]
            raise KeyError(key)
        del self[key]
        return found

    def popitem(self) -> tuple[str, str]:
        for key in self:
            return key, self.pop(key)
        raise KeyError("popitem(): the mapping is empty")

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    def update(self, other: "Any" = (), /, **more: str) -> None:
        for key, value in {**dict(other), **more}.items():
            self[key] = value


def _check_methods(kind: type, *names: str) -> "Any":
    found = all(any(vars(base).get(name) is not None for base in kind.__mro__) for name in names)
    return found or NotImplemented


def _lend() -> bool:
    """Spare a command the `_collections_abc` that `os` imports for its environment: 0.6 ms of a start.

    It is given back when `os` is loaded; whoever imports `collections` gets the real one.
    """
    if "os" in sys.modules or "_collections_abc" in sys.modules:
        return False
    stand_in: Any = type(sys)("_collections_abc")
    stand_in._check_methods, stand_in.MutableMapping = _check_methods, _Mapping
    stand_in.Mapping = (dict, _Mapping)  # for isinstance
    sys.modules["_collections_abc"] = stand_in
    return True


_lent = _lend()
import os  # noqa: E402

if _lent:
    del sys.modules["_collections_abc"]

_ABOVE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MAGIC = b"sampan 2" + MAGIC_NUMBER.ljust(8, b"\0")
_HEAD = len(_MAGIC) + 8


class Bundle:
    """A bundle as a finder of modules (importlib's "meta path finder"); one that cannot be read is empty."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd, self._code = -1, _HEAD
        self.index: dict[str, Entry] = {}
        self._found: set[str] = set()
        self._package = _identity()
        self._is_stale = False  # some source had changed when the command began
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        head = os.read(self._fd, _HEAD)
        length = int.from_bytes(head[len(_MAGIC) :], "little")
        data = os.read(self._fd, length) if head[: len(_MAGIC)] == _MAGIC else b""
        if data and len(data) == length:
            self._code += length
            try:
                self.index = dict(marshal.loads(data))
            except (EOFError, ValueError, TypeError):
                return

    def find_spec(self, name: str, path: "Sequence[str] | None" = None, target: object = None) -> ModuleSpec | None:
        """Find a module whose source is the one that its entry was made of."""
        entry = self.index.get(name)
        if entry is None or (entry != _entry(name, entry) and not self._outlived()):
            return None
        self._found.add(name)
        source = _source(name, entry[4])
        spec = ModuleSpec(name, _Loader(name, source, self), origin=source, is_package=entry[4])
        spec.has_location = True
        spec.cached = self.path
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(source))
        return spec

    def _outlived(self) -> bool:
        """Say whether the package that this process began with is replaced or gone, and all of this one is of it."""
        if _identity() == self._package:
            self._is_stale = True
        return not self._is_stale

    def code(self, name: str) -> bytes:
        """Give a module's code as marshal wrote it; less than all of it if the file is cut short."""
        offset, length = self.index[name][:2]
        return os.pread(self._fd, length, self._code + offset)

    def drop(self, name: str) -> None:
        """Forget an entry that is not what it should be, so that a new bundle is written."""
        del self.index[name]
        self._found.remove(name)

    def lacks(self, names: "Iterable[str]") -> bool:
        """Say whether one of these modules did not come from here."""
        return not self._found.issuperset(names)


class _Loader(SourceFileLoader):
    """Takes the code from the bundle, all else (source lines for tracebacks, resources) from the source's place."""

    def __init__(self, name: str, path: str, bundle: Bundle) -> None:
        super().__init__(name, path)
        self._bundle = bundle

    def get_code(self, fullname: str) -> "CodeType | None":
        try:
            code: CodeType = marshal.loads(self._bundle.code(fullname))
        except (EOFError, ValueError, TypeError):
            self._bundle.drop(fullname)
            return super().get_code(fullname)
        return code


def _source(name: str, is_package: bool) -> str:
    path = f"{_ABOVE}/{name.replace('.', '/')}"
    return f"{path}/__init__.py" if is_package else f"{path}.py"


def _entry(name: str, known: "Entry | None" = None) -> "Entry | None":
    """Give what the entry of a source would be now, or None; `known` has what the source does not tell."""
    offset, length, is_package = (known[0], known[1], known[4]) if known else (0, 0, False)
    try:
        if known is None:
            is_package = os.path.exists(_source(name, True))
        state = os.stat(_source(name, is_package))
    except OSError:
        return None
    return offset, length, state.st_mtime_ns, state.st_size, is_package


def _identity() -> "tuple[int, int] | None":
    """Tell one installed package from the next: each writes this file anew."""
    try:
        state = os.stat(f"{_ABOVE}/sampan/__init__.py")
    except OSError:
        return None
    return state.st_ino, state.st_ctime_ns


_used: Bundle | None = None


def open_streams() -> None:
    """Put /dev/null where a standard stream was closed: else the next file that is opened, a bundle or one of the
    store, would get its number, and a container would be given that file.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # the lowest free number


def install() -> None:
    """Let this process import from the bundle of this interpreter."""
    global _used
    open_streams()
    if _used is None and sys.implementation.cache_tag and not sys.flags.optimize:
        _used = Bundle(f"{_ABOVE}/sampan/__pycache__/sampan.{sys.implementation.cache_tag}.bundle")
        sys.meta_path.insert(0, _used)


def refresh() -> None:
    """Write a new bundle if this process imported what the present one has not, and may write there."""
    if _used is None or sys.dont_write_bytecode:
        return
    names = [name for name in sys.modules if name.startswith("sampan.") and name not in (__name__, "sampan.__main__")]
    if not _used.lacks(names) or not os.access(os.path.dirname(_used.path), os.W_OK):
        return
    try:
        from sampan import lean
    except ImportError:
        return  # the package was removed meanwhile

    parts = list["tuple[str, Entry, bytes]"]()
    try:
        for name in sorted({*_used.index, *names}):
            known = _used.index.get(name)
            if known is not None and known == _entry(name, known):
                parts.append((name, known, _used.code(name)))
            elif name in names and (entry := _entry(name)) is not None:
                parts.append((name, entry, lean.code(_source(name, entry[4]))))
        lean.write(_used.path, _MAGIC, parts)
    except (OSError, KeyboardInterrupt):
        return  # full, read-only, in a hurry: the next command tries again
