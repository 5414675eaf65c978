"""The mounts of a container: Docker's own, then what was asked for, then the image's volumes.

A mount is a dict of the runtime specification. Type `volume` is ours: the engine puts the volume's directory in its
place (an empty source asks for a new, anonymous one). The option `create` asks for a bind's missing source to be made.
"""

from __future__ import annotations

import posixpath

from sampan.errors import InvalidArgument, NotSupported
from sampan.oci import options as defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.oci.options import RunOptions

    Mount = dict[str, Any]

_FLAGS = frozenset(
    ("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "sync", "async", "noatime", "nodiratime")
    + ("relatime", "strictatime")
)
_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_BIND = {*_FLAGS, *_PROPAGATION, "bind", "rbind", "z", "Z", "create", "consistent", "cached", "delegated"}
_VOLUME = {*_FLAGS, "z", "Z", "nocopy"}
_TMPFS_DATA = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge")
# Files that others (lxcfs) may replace in /proc; anything else there would hide or fake what confinement relies on.
_PROC_FILES = {"/proc/" + name for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg")}
_MAX_PATH = 4096


def mounts_for(config: dict[str, Any], options: RunOptions, rootless: bool) -> list[Mount]:
    """Return all mounts in the order in which they are made; raise InvalidArgument."""
    asked = [_asked(*mount) for mount in options.mounts]
    asked += [_tmpfs(*_split_tmpfs(text)) for text in options.tmpfs]
    taken: set[str] = set()
    for mount in asked:
        if mount["destination"] in taken:
            raise InvalidArgument(f"invalid mount: two of them have the destination {mount['destination']}")
        taken.add(mount["destination"])
    for path in config.get("Volumes") or ():
        destination = _destination(path, "volume of the image")
        if destination not in taken:
            taken.add(destination)
            asked.append({"type": "volume", "source": "", "destination": destination, "options": ["rw"]})
    if options.shm_size < 0:
        raise InvalidArgument(f"invalid --shm-size {options.shm_size}: a size is 0 at least")
    own = [_adapted(mount, options, rootless) for mount in defaults.default_mounts(options.shm_size)]
    asked.sort(key=lambda mount: str(mount["destination"]).count("/"))
    # One that was asked for takes the place of ours, so that what is ours below it comes on top of it.
    mine = {mount["destination"] for mount in own if mount}
    instead = {mount["destination"]: mount for mount in asked}
    first = [instead.get(mount["destination"], mount) for mount in own if mount]
    return first + [mount for mount in asked if mount["destination"] not in mine]


def _adapted(mount: Mount, options: RunOptions, rootless: bool) -> Mount | None:
    """Return a default mount as the namespaces that stay the host's allow it, or None."""
    destination = mount["destination"]
    if destination == "/dev/shm" and options.ipc == "none":
        return None
    if destination in ("/dev/shm", "/dev/mqueue") and options.ipc == "host":
        return {**mount, "type": "bind", "source": destination, "options": ["bind", "nosuid", "noexec", "nodev"]}
    if destination == "/sys" and rootless and options.network == "host":
        # The kernel lets a user namespace mount sysfs only together with a network namespace of its own.
        return {**mount, "type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
    if destination == "/proc" and rootless and options.pid == "host":
        # Likewise procfs: only together with a pid namespace of its own. Masks come on top, as on a fresh one.
        return {**mount, "type": "bind", "source": "/proc", "options": ["rbind", "nosuid", "noexec", "nodev"]}
    if options.privileged and destination in ("/sys", "/sys/fs/cgroup"):
        return {**mount, "options": [word for word in mount["options"] if word != "ro"]}
    return mount


def _asked(kind: str, source: str, destination: str, words: list[str]) -> Mount:
    if kind == "tmpfs":
        return _tmpfs(destination, words)
    destination = _destination(destination, "mount")
    if kind == "bind":
        if not source.startswith("/") or "\0" in source:
            raise InvalidArgument(
                f"invalid mount at {destination}: its source {source[:200]!r} is not an absolute path"
            )
        _check_words(words, _BIND, destination)
        words = list(words) if "bind" in words or "rbind" in words else ["rbind", *words]
    elif kind == "volume":
        _check_words(words, _VOLUME, destination)
    else:
        raise NotSupported(f"cannot mount at {destination}: mounts of type {kind[:40]!r} are not supported")
    return {"type": kind, "source": source, "destination": destination, "options": list(words)}


def _split_tmpfs(text: str) -> tuple[str, list[str]]:
    destination, _, words = text.partition(":")
    return destination, [word for word in words.split(",") if word]


def _tmpfs(destination: str, words: list[str]) -> Mount:
    destination = _destination(destination, "tmpfs")
    for word in words:
        key, equals, value = word.partition("=")
        if key == "size" and value.endswith("%"):  # of the host's memory (tmpfs(5))
            value = value[:-1]
        if word not in _FLAGS and not (equals and key in _TMPFS_DATA and value.isalnum()):
            raise InvalidArgument(f"invalid tmpfs at {destination}: unknown option {word[:100]!r}")
    locked = [word for word in ("noexec", "nosuid", "nodev") if word[2:] not in words and word not in words]
    return {"type": "tmpfs", "source": "tmpfs", "destination": destination, "options": [*locked, *words]}


def _check_words(words: list[str], known: set[str], destination: str) -> None:
    for word in words:
        if word not in known:
            raise InvalidArgument(f"invalid mount at {destination}: unknown option {word[:100]!r}")


def is_path(path: str) -> bool:
    """Say whether a path can be one: documents may hold half a surrogate pair, which no file's name has."""
    try:
        return "\0" not in path and len(path.encode("utf-8", "surrogateescape")) < _MAX_PATH
    except UnicodeEncodeError:
        return False


def _destination(path: str, what: str) -> str:
    if not path.startswith("/") or not is_path(path):
        raise InvalidArgument(f"invalid {what}: its destination {path[:200]!r} is not an absolute path")
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if clean == "/":
        raise InvalidArgument(f"invalid {what}: its destination cannot be the root directory")
    if (clean == "/proc" or clean.startswith("/proc/")) and clean not in _PROC_FILES:
        raise InvalidArgument(f"invalid {what}: its destination {clean[:200]} is inside /proc")
    return clean
