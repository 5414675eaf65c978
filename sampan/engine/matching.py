"""What `ps --filter` means: each KEY=VALUE becomes a test of a record, as Docker has them.

Values of one key are alternatives, except for `label`, where all must hold; different keys must all hold. What is not
a filter, or no value of it, is refused with what there is.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

    Test = Callable[[Record], bool]

FILTERS = (
    *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network"),
    *("publish", "since", "status", "volume"),
)
STATUSES = ("created", "dead", "exited", "paused", "removing", "restarting", "running")
HEALTHS = ("healthy", "none", "starting", "unhealthy")
_OWN = ("/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup")
_META = frozenset("^$.*+?()[]{}|\\")


def tests(engine: Engine, filters: dict[str, list[str]]) -> list[Test]:
    """Return the tests that a record must pass; raise InvalidArgument, or NotFound for a container that is named."""
    found: list[Test] = []
    for key, values in filters.items():
        if key not in FILTERS:
            raise InvalidArgument(f"cannot filter containers by {key!r}", f"one of: {', '.join(FILTERS)}")
        made = [_test(engine, key, value) for value in values]
        if key == "label":
            found += made
        elif made:
            found.append(_any(made))
    return found


def has_label(labels: Mapping[str, Any], wanted: str) -> bool:
    """Tell whether labels have the one of a filter `label=NAME` or `label=NAME=VALUE`."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def every_state(filters: dict[str, list[str]]) -> bool:
    """Tell whether the filters ask for containers that do not run too, without -a: of Docker's only `status` does."""
    return "status" in filters


def _any(made: list[Test]) -> Test:
    return made[0] if len(made) == 1 else lambda record: any(test(record) for test in made)


def _test(engine: Engine, key: str, value: str) -> Test:
    if key in ("before", "since"):
        limit = engine.store.containers.get(value)
        if key == "before":
            return lambda record: record.created < limit.created
        return lambda record: record.created > limit.created
    if key == "ancestor":
        return _ancestor(engine, value)
    if key == "health":
        _one_of(key, value, HEALTHS)
        return lambda record: health(engine, record) == value
    if key == "volume":
        return lambda record: value in _places(engine, record)
    if key in ("expose", "publish"):
        return _ports(engine, key, value)
    if key in ("name", "id"):
        found = _pattern(key, value)
        return (lambda r: found(r.name) or found("/" + r.name)) if key == "name" else (lambda r: found(r.id))
    return _exact(key, value)


def _exact(key: str, value: str) -> Test:
    if key == "label":
        return lambda record: has_label(record.labels, value)
    if key == "status":
        _one_of(key, value, STATUSES)
        return lambda record: record.status == value
    if key == "exited":
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidArgument(f"filter exited={value!r} is not an exit code")
        return lambda record: record.status == "exited" and record.exit_code == int(value)
    if key == "network":
        return lambda record: value in (network(record), record.options.get("network"))
    if key == "isolation":
        _one_of(key, value, ("default", "hyperv", "process"))
        return lambda record: value == "default"  # the others exist on Windows only
    _one_of(key, value, ("true", "false", "1", "0"))
    return lambda record: value in ("false", "0")  # is-task: there are no swarm services


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidArgument(f"filter {key}={value!r}: there is no such value", f"one of: {', '.join(known)}")


def health(engine: Engine, record: Record) -> str:
    """Return the health of a container: none where there is no check."""
    from sampan.engine import health

    return health.status(engine, record) or "none"


def network(record: Record) -> str:
    """Return the network mode: none, host or container:ID."""
    for namespace in record.spec["linux"]["namespaces"]:
        if namespace["type"] == "network":
            return str(namespace.get("path") or "none")
    return "host"


def _pattern(key: str, value: str) -> Callable[[str], bool]:
    """Return the search for a regular expression; plain text needs no `re`, whose import costs more than a listing."""
    if not _META.intersection(value):
        return lambda text: value in text
    import re

    try:
        search = re.compile(value).search
    except re.error as exc:
        raise InvalidArgument(f"filter {key}={value!r} is not a regular expression: {exc}") from None
    return lambda text: search(text) is not None


def _ancestor(engine: Engine, value: str) -> Test:
    """Return the test for containers of an image, or of one that was built on it."""
    try:
        image = engine.store.images.resolve(value)
    except NotFound:
        return lambda record: False
    layers: list[str] = image.diff_ids

    def test(record: Record) -> bool:
        own: list[Any] = record.config.get("layers") or []
        return record.image_id == image.id or (len(own) > len(layers) > 0 and own[: len(layers)] == layers)

    return test


def mounts(engine: Engine, record: Record) -> list[dict[str, Any]]:
    """Return the binds that a user or the image asked for: not those of /dev and /sys, nor the engine's own files.

    One of a directory of the store's volumes has the volume's name as `name`.
    """
    inside, home = engine.store.paths.volumes + "/", engine.store.paths.container(record.id) + "/"
    found = []
    for mount in record.spec["mounts"]:
        source = mount.get("source") or ""
        if mount["type"] != "bind" or source.startswith(home) or mount["destination"] in _OWN:
            continue
        name = source[len(inside) :].partition("/")[0] if source.startswith(inside) else ""
        found.append({**mount, "name": name})
    return found


def _places(engine: Engine, record: Record) -> set[str]:
    """Return all that `volume=` may name: volumes, host directories, and where they are mounted."""
    return {text for m in mounts(engine, record) for text in (m["name"], m["source"], m["destination"]) if text}


def ports(value: str) -> list[str]:
    """Return the ports of `80`, `80/udp` or `8000-8010/tcp`, each as `80/tcp`; ValueError for nonsense."""
    text, slash, protocol = value.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    first, dash, last = text.partition("-")
    numbers = (first, last if dash else first)
    if protocol not in ("tcp", "udp", "sctp") or not all(n.isascii() and n.isdigit() and len(n) < 6 for n in numbers):
        raise ValueError(f"{value!r} is not a port such as 80, 80/udp or 8000-8010/tcp")
    low, high = int(numbers[0]), int(numbers[1])
    if not 0 < low <= high < 65536:
        raise ValueError(f"{value!r} is not a range of ports between 1 and 65535")
    return [f"{number}/{protocol}" for number in range(low, high + 1)]


def _ports(engine: Engine, key: str, value: str) -> Test:
    try:
        wanted = set(ports(value))
    except ValueError as exc:
        raise InvalidArgument(f"filter {key}: {exc}") from None
    if key == "publish":
        return lambda record: False  # no port is published yet
    return lambda record: not wanted.isdisjoint(exposed(engine, record))


def exposed(engine: Engine, record: Record) -> list[str]:
    """Return the ports that image and options name, as `80/tcp`."""
    try:
        config = engine.store.images.resolve(record.image_id).config.get("config") or {}
    except NotFound:
        config = {}
    named = [port if "/" in port else f"{port}/tcp" for port in config.get("ExposedPorts") or ()]
    asked = record.options.get("expose") or ()
    return [*named, *(port for text in asked for port in ports(text))]
