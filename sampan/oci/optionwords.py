"""Whether a setting of `Engine.run` has a name and a type that there is; read only where one is given."""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.oci.options import DEFAULTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOUNTS = 'a mount is (type, source, destination, options): mounts=[("bind", "/host/dir", "/dir", ["ro"])]'
_HINTS = {  # names that other libraries have for it
    **dict.fromkeys(("volumes", "volume", "binds", "v"), _MOUNTS),
    **dict.fromkeys(("environment", "envs"), "it is env={...}"),
    **dict.fromkeys(("cwd", "working_dir", "work_dir"), "it is workdir"),
    **dict.fromkeys(("net", "network_mode"), "it is network"),
    **dict.fromkeys(("mem_limit", "mem"), "it is memory"),
    **dict.fromkeys(("stdin", "stdin_data"), "it is input=b'...'"),
    **dict.fromkeys(("name", "detach", "remove", "auto_remove"), "a container that stays: engine.containers.run"),
}


def check(name: str, value: Any) -> None:
    """Raise InvalidArgument, with a hint, for a setting that is not there or has the wrong type."""
    if name not in DEFAULTS:
        from sampan.nearest import did_you_mean

        hint = _HINTS.get(name) or did_you_mean(name, DEFAULTS) or "they are the fields of sampan.oci.spec.RunOptions"
        raise InvalidArgument(f"Engine.run has no setting {name!r}", hint)
    default = DEFAULTS[name]() if callable(DEFAULTS[name]) else DEFAULTS[name]
    if name == "mounts":
        if not isinstance(value, (list, tuple)) or not all(_is_mount(mount) for mount in value):
            raise InvalidArgument(f"cannot read mounts {value!r:.100}", _MOUNTS)
    elif not _fits(value, default):
        raise InvalidArgument(f"cannot use {value!r:.60} as {name}", f"it is {_WANTED[type(default)]}")


_WANTED = {
    list: "a list of texts",
    dict: "a dictionary",
    bool: "True or False",
    str: "a text",
    int: "a number",
    float: "a number",
    type(None): "a number, or a list of texts",
}


def _is_mount(mount: Any) -> bool:
    return isinstance(mount, (list, tuple)) and len(mount) == 4 and _texts(mount[3]) and _texts(mount[:3])


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return _texts(value)
    if isinstance(default, (dict, bool, str)):
        return isinstance(value, type(default))
    if default is None and (value is None or _texts(value)):
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)
