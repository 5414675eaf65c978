"""`-v` and `--mount` words, as (type, source, destination, options) of the runtime configuration.

A source that starts with `/` or `.` is a path of the host, made absolute here; anything else names a volume. With
`-v` a missing host directory is made (option `create`); with `--mount` it is an error when the container starts.
Options and destinations are checked where the configuration is made (sampan.oci.mounts).
"""

from __future__ import annotations

import os

from sampan.cli import quantities
from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    Mount = tuple[str, str, str, list[str]]

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_ALIASES = {"src": "source", "destination": "target", "dst": "target", "ro": "readonly"}
_BOOLEAN = ("readonly", "bind-nonrecursive", "volume-nocopy")
_KEYS = {
    "": ("type", "source", "target", "readonly", "consistency"),
    "bind": ("bind-propagation", "bind-nonrecursive", "bind-recursive"),
    "volume": ("volume-nocopy",),
    "tmpfs": ("tmpfs-size", "tmpfs-mode"),
}
_LATER = ("volume-driver", "volume-label", "volume-opt", "volume-subpath", "image-subpath", "bind-create-src")


def volume(word: str) -> Mount:
    """Parse `[SOURCE:]DESTINATION[:OPTIONS]`."""
    parts = word.split(":")
    if len(parts) > 3 or not all(parts):
        hint = "it is [SOURCE:]DESTINATION[:ro,…]; a path with a colon needs --mount"
        raise InvalidArgument(f"cannot read volume {word!r}", hint)
    if len(parts) == 1:
        return "volume", "", parts[0], ["rw"]
    source, destination = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) == 3 else ["rw"]
    if source.startswith(("/", ".")):
        return "bind", os.path.abspath(source), destination, [*options, "create"]
    return "volume", _volume_name(source, word), destination, options


def mount(word: str) -> Mount:
    """Parse `type=bind,source=…,target=…,…` (comma-separated values, quoted where they hold a comma)."""
    values = _pairs(word)
    kind = values.pop("type", "volume")
    if kind not in ("bind", "volume", "tmpfs"):
        raise NotSupported(f"mount {word!r} has type {kind}", "types are bind, volume and tmpfs")
    for key in values:
        _check_key(key, kind, word)
    destination = values.pop("target", "")
    if not destination:
        raise InvalidArgument(f"mount {word!r} needs a target")
    source = values.pop("source", "")
    options = ["ro" if _flag(values, "readonly", word) else "rw"]
    if kind == "tmpfs":
        if source:
            raise InvalidArgument(f"mount {word!r}: a tmpfs has no source")
        return "tmpfs", "tmpfs", destination, _tmpfs_options(values, options, word)
    if kind == "volume":
        options += ["nocopy"] if _flag(values, "volume-nocopy", word) else []
        return "volume", _volume_name(source, word) if source else "", destination, options
    if not source:
        raise InvalidArgument(f"mount {word!r}: a bind mount needs a source")
    return "bind", os.path.abspath(source), destination, _bind_options(values, options, word)


def _pairs(word: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for field in _fields(word):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        if not equals and key not in _BOOLEAN:
            raise InvalidArgument(f"mount {word!r}: {field!r} is not KEY=VALUE")
        if key in values:
            raise InvalidArgument(f"mount {word!r} says {key} twice")
        values[key] = value if equals else "true"
    return values


def _fields(word: str) -> list[str]:
    """Split at commas outside of double quotes."""
    fields, current, quoted = [], "", False
    for part in word.split('"'):
        if quoted:
            current += part
        else:
            head, *rest = part.split(",")
            current += head
            for text in rest:
                fields.append(current)
                current = text
        quoted = not quoted
    if not quoted:
        raise InvalidArgument(f"mount {word!r}: a quote is never closed")
    return [*fields, current]


def _check_key(key: str, kind: str, word: str) -> None:
    if key in _LATER:
        raise NotSupported(f"mount {word!r}: {key} is not there yet")
    known = (*_KEYS[""], *_KEYS[kind])
    if key not in known:
        from sampan.nearest import nearest

        guess = nearest(key, known)
        hint = f"did you mean {guess}?" if guess else "known: " + ", ".join(known)
        raise InvalidArgument(f"mount {word!r}: a {kind} mount has no {key!r}", hint)


def _flag(values: dict[str, str], key: str, word: str) -> bool:
    try:
        return quantities.parse_bool(values.get(key, "false"))
    except ValueError as exc:
        raise InvalidArgument(f"mount {word!r}: {key}: {exc}") from None


def _bind_options(values: dict[str, str], options: list[str], word: str) -> list[str]:
    recursive = values.get("bind-recursive", "enabled")
    if recursive not in ("enabled", "disabled"):
        raise NotSupported(f"mount {word!r}: bind-recursive={recursive}", "enabled and disabled are there")
    flat = recursive == "disabled" or _flag(values, "bind-nonrecursive", word)
    propagation = values.get("bind-propagation", "rprivate")
    if propagation not in _PROPAGATION:
        raise InvalidArgument(
            f"mount {word!r}: unknown propagation {propagation!r}", "one of: " + ", ".join(_PROPAGATION)
        )
    return ["bind" if flat else "rbind", propagation, *options]


def _tmpfs_options(values: dict[str, str], options: list[str], word: str) -> list[str]:
    found = ["nosuid", "nodev", "noexec", *options]
    try:
        if "tmpfs-size" in values:
            found.append(f"size={quantities.parse_bytes(values['tmpfs-size'])}")
        if "tmpfs-mode" in values:
            found.append(f"mode={int(values['tmpfs-mode'], 8) & 0o7777:o}")
    except ValueError as exc:
        raise InvalidArgument(f"mount {word!r}: {exc}") from None
    return found


def _volume_name(name: str, word: str) -> str:
    good = name.replace("_", "a").replace("-", "a").replace(".", "a")
    if len(name) < 2 or len(name) > 255 or not good.isascii() or not good.isalnum() or not name[0].isalnum():
        hint = "a path of the host starts with / or ./; names have letters, digits, and _ . - after the first"
        raise InvalidArgument(f"volume {word!r}: {name!r} is neither a path nor a volume's name", hint)
    return name
