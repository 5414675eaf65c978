"""`RUN --mount=…`: one mount as a plain dict with the keys of Docker's reference.

Every mount has `type` (str) and `readonly` (bool); the others are there only if given: `from source target id sharing
env` (str), `required` (bool), `size mode uid gid` (int). Values that hold variables stay text and are not judged.
"""

from __future__ import annotations

from sampan.dockerfile.located import Fault, did_you_mean, shown
from sampan.dockerfile.values import boolean, natural, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    *("type", "from", "source", "target", "readonly", "readwrite", "id", "sharing"),
    *("required", "size", "mode", "uid", "gid", "env"),
)
_BARE = ("readonly", "readwrite", "required")
# Keys that only some types take.
_ONLY = {
    "size": ("tmpfs",),
    "sharing": ("cache",),
    "required": ("secret", "ssh"),
    "env": ("secret",),
    "mode": ("cache", "secret", "ssh"),
    "uid": ("cache", "secret", "ssh"),
    "gid": ("cache", "secret", "ssh"),
}


def parse_mount(text: str) -> dict[str, Any]:
    """Read one value of --mount; raise Fault."""
    mount: dict[str, Any] = {"type": "bind"}
    for field in _csv(text):
        key, equals, value = field.partition("=")
        key = _known(key.lower(), field)
        if not equals:
            if key not in _BARE:
                raise Fault(f"invalid field {shown(field)} of --mount: it must be a key=value pair")
            value = "true"
        if key == "from" and "$" in value:
            hint = "give that image a name with FROM … AS, and use the name"
            raise Fault("'from' of --mount doesn't support variable expansion", hint)
        mount[key] = value if "$" in value else _value(key, value)
    _check(mount)
    is_readonly = mount["type"] not in ("cache", "tmpfs")
    readwrite = mount.pop("readwrite", None)
    if isinstance(readwrite, bool):
        is_readonly = not readwrite
    mount.setdefault("readonly", is_readonly)
    return mount


def _known(key: str, field: str) -> str:
    key = _ALIASES.get(key, key)
    if key not in _KEYS:
        raise Fault(f"unexpected key {shown(key)} in {shown(field)} of --mount", did_you_mean(key, _KEYS))
    return key


def _value(key: str, value: str) -> Any:
    """Turn the text of a value into its type, and judge it."""
    if key == "type" and value.lower() not in TYPES:
        raise Fault(f"unsupported mount type {shown(value)}", _one_of(value, TYPES))
    if key == "sharing" and value.lower() not in SHARING:
        raise Fault(f"unsupported sharing value {shown(value)} of --mount", _one_of(value, SHARING))
    try:
        if key in _BARE:
            return boolean(value)
        if key == "size":
            return size(value)
        if key in ("mode", "uid", "gid"):
            return natural(value, 8 if key == "mode" else 10)
    except ValueError as error:
        raise Fault(f"{key} of --mount: {error}") from None
    return value.lower() if key in ("type", "sharing") else value


def _one_of(value: str, values: tuple[str, ...]) -> str:
    return did_you_mean(value, values) or f"it is one of {', '.join(values)}"


def _check(mount: dict[str, Any]) -> None:
    """Refuse keys that do not go together."""
    kind = mount["type"]
    if "$" in kind:
        return
    for key, kinds in _ONLY.items():
        if key in mount and kind not in kinds:
            raise Fault(f"unexpected key '{key}' for mount type '{kind}'")
    if kind != "secret":
        return
    if mount.get("from"):
        raise Fault("secret mount should not have a from")
    if not (mount.get("source") or mount.get("target") or mount.get("id")):
        raise Fault("invalid secret mount: one of id, source and target is required")
    if mount.get("source") and mount.get("id"):
        raise Fault("invalid secret mount: both source and id can't be set")


def _csv(text: str) -> list[str]:
    """Split at commas outside double quotes; a doubled quote in quotes stands for one (RFC 4180)."""
    found: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest)
        else:
            at = rest.find(",")
            field, rest = (rest, "") if at < 0 else (rest[:at], rest[at:])
        found.append(field)
        if not rest:
            return found
        rest = rest[1:]


def _quoted(text: str) -> tuple[str, str]:
    field: list[str] = []
    at = 1
    while True:
        close = text.find('"', at)
        if close < 0:
            raise Fault("a quote in --mount is not closed")
        field.append(text[at:close])
        if text[close + 1 : close + 2] != '"':
            break
        field.append('"')
        at = close + 2
    if text[close + 1 : close + 2] not in ("", ","):
        raise Fault("a quote in --mount is followed by more than a comma")
    return "".join(field), text[close + 1 :]
