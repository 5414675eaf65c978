"""NAME=VALUE words: -e and --env-file, --label and --label-file, --build-arg.

A name alone means the caller's own variable, and nothing when the caller has none.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 1 << 20
_FORMS = "NAME=VALUE, or NAME alone for the caller's own, or comments after #"


def environment(files: Iterable[str], words: Iterable[str]) -> list[str]:
    """Return the variables of files, then of words, as NAME=VALUE."""
    read = [line for path in files for line in _lines(path)]
    return [pair for word in [*read, *words] if (pair := _variable(word))]


def labels(files: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """Return the labels of files, then of words; a name alone is an empty label."""
    pairs = {}
    for word in [*(line for path in files for line in _lines(path)), *words]:
        key, _, value = word.partition("=")
        if not key:
            raise InvalidArgument(f"label {word!r} has no name", "labels are NAME=VALUE")
        pairs[key] = value
    return pairs


def build_arguments(words: Iterable[str]) -> dict[str, str]:
    """Return build arguments; a name alone is the caller's variable, and nothing when there is none."""
    return dict(pair.split("=", 1) for word in words if (pair := _variable(word)))


def _variable(word: str) -> str:
    name, equals, _ = word.partition("=")
    if not name or "\0" in word:
        raise InvalidArgument(f"variable {word!r} has no name" if not name else f"variable {name} contains a NUL")
    if equals:
        return word
    value = os.environ.get(name)
    return "" if value is None else f"{name}={value}"


def _lines(path: str) -> list[str]:
    """Read NAME=VALUE lines; empty ones and comments are left out, values are taken as they are."""
    found = []
    for number, raw in enumerate(_read(path).split("\n"), 1):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or name != name.strip() or any(c in name for c in " \t"):
            raise InvalidArgument(
                f"cannot read {path} line {number}: {name[:100]!r} is not a variable's name", "its lines are " + _FORMS
            )
        found.append(line)
    return found


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as exc:
        hint = f"give a file with lines {_FORMS}" if isinstance(exc, (FileNotFoundError, IsADirectoryError)) else ""
        raise InvalidArgument(f"cannot read {path}: {exc.strerror}", hint) from exc
    if len(data) > _LONGEST:
        raise InvalidArgument(f"cannot read {path}: it is larger than {_LONGEST} bytes")
    text = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"cannot read {path}: byte {exc.start} is not UTF-8") from None
