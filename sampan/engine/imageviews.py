"""What `images`, `inspect` and `history` show of images, in Docker's words and shapes."""

from __future__ import annotations

import time

from sampan.engine.inspect import age, timestamp
from sampan.engine.matching import has_label
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.oci import reference
from sampan.oci import timestamp as times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sampan.engine.engine import Store
    from sampan.oci.reference import Reference
    from sampan.store.images import Image

    Test = Callable[[Image, str], bool]

NONE = "<none>"
# Docker shows these fields of a configuration also where the image says nothing (moby/api/types/container/config.go).
_UNSET = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_FILTERS = ("dangling", "reference", "label", "before", "since")


def ls(images: list[Image], filters: dict[str, list[str]], resolve: Callable[[str], Image]) -> list[dict[str, Any]]:
    """List images, a row for each name and one for an image without any."""
    tests = []
    for key, values in filters.items():
        made = [_test(key, value, resolve) for value in values]
        tests += (
            made if key == "label" else [_any(made)]
        )  # values of one key are alternatives, but labels must all hold
    now = time.time_ns()
    rows = []
    for image in images:
        for name in image.references or image.digests[:1] or [""]:
            if all(test(image, name) for test in tests):
                rows.append(_row(image, name, now))
    return rows


def _any(made: list[Test]) -> Test:
    return lambda image, name: any(test(image, name) for test in made)


def _row(image: Image, name: str, now: int) -> dict[str, Any]:
    parsed = reference.parse(name) if name else None
    return {
        "ID": image.id,
        "Repository": parsed.familiar_name() if parsed else NONE,
        "Tag": parsed.tag or NONE if parsed else NONE,
        "Digest": image.manifest_digest,
        "Created": image.created,
        "CreatedAt": timestamp(image.created),
        "CreatedSince": _since(image.created, now),
        "Size": image.size,
        "Labels": _labels(image),
    }


def _since(created: int, now: int) -> str:
    return f"{age((now - created) / 1e9)} ago" if created else "N/A"


def _labels(image: Image) -> dict[str, str]:
    return dict((image.config.get("config") or {}).get("Labels") or {})


def _test(key: str, value: str, resolve: Callable[[str], Image]) -> Callable[[Image, str], bool]:
    """Make the function that tells whether an image under a name passes a filter."""
    if key == "dangling":
        if value.lower() not in ("true", "1", "false", "0"):
            raise InvalidArgument(f"filter dangling={value!r}: there is no such value", "one of: true, false")
        wanted = value.lower() in ("true", "1")
        return lambda image, name: (not image.references) == wanted
    if key == "reference":
        return _named(value)
    if key == "label":
        return lambda image, name: has_label(_labels(image), value)
    if key in ("before", "since"):
        limit = resolve(value).created
        return lambda image, name: image.created < limit if key == "before" else image.created > limit
    raise InvalidArgument(f"cannot filter images by {key!r}", f"one of: {', '.join(_FILTERS)}")


def _named(pattern: str) -> Callable[[Image, str], bool]:
    """Make the test of `reference=PATTERN`, Go's path.Match: of the name as people write it, or whole; tag or not."""
    from sampan.dockerfile.wildcard import Wildcard

    try:
        wildcard = Wildcard(pattern)
    except ValueError as exc:
        raise InvalidArgument(f"filter reference={pattern!r} is not a pattern: {exc}") from None

    def test(image: Image, name: str) -> bool:
        if not name:
            return False
        parsed = reference.parse(name)
        return any(map(wildcard.matches, (parsed.familiar(), parsed.familiar_name(), str(parsed), parsed.name)))

    return test


def inspect(store: Store, image: Image) -> dict[str, Any]:
    """Describe an image in the shape of Docker's `image inspect`."""
    config = image.config
    names = [reference.parse(name) for name in image.references]
    history = config.get("history") or [{}]
    lowers = [store.paths.snapshot(number) for number in _numbers(store, image)]
    return {
        "Id": image.id,
        "RepoTags": [name.familiar() for name in names],
        "RepoDigests": _digests(image, names),
        "Parent": "",
        "Comment": history[-1].get("comment") or "",
        "Created": config.get("created") or timestamp(0),
        "DockerVersion": "",
        "Author": config.get("author") or "",
        "Config": {**_UNSET, **(config.get("config") or {})},
        "Architecture": config.get("architecture") or "",
        "Variant": config.get("variant") or "",
        "Os": config.get("os") or "",
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay", "Data": {"LowerDir": ":".join(lowers)} if lowers else {}},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": _last_tag_time(store, image)},
        "Descriptor": {"digest": image.manifest_digest},
    }


def _digests(image: Image, names: list[Reference]) -> list[str]:
    """Give the digests that registries had it under, else the one that they would have."""
    known = [reference.parse(name) for name in image.digests]
    repositories = {name.name for name in known}
    found = {name.familiar() for name in known}
    found.update(f"{n.familiar_name()}@{image.manifest_digest}" for n in names if n.name not in repositories)
    return sorted(found)


def _numbers(store: Store, image: Image) -> list[str]:
    try:
        return store.snapshots.lowers(image.diff_ids)
    except NotFound:
        return []  # unpacked layers are a cache: an image without them is still described


def _last_tag_time(store: Store, image: Image) -> str:
    marks = ",".join("?" * len(image.references))
    row = store.db.one(f"SELECT max(tagged) FROM image_references WHERE name IN ({marks})", image.references)
    return timestamp(row[0] if row and row[0] else 0)


def history(store: Store, image: Image) -> list[dict[str, Any]]:
    """List an image's history, last step first; layers that it does not mention have rows of their own."""
    sizes = {diff_id: size for diff_id, _, size in store.snapshots.ls()}
    layers = list(image.diff_ids)
    rows = []
    for step in image.config.get("history") or []:
        empty = bool(step.get("empty_layer")) or not layers
        size = 0 if empty else sizes.get(layers.pop(0), 0)
        rows.append(_step(step, size))
    rows += [_step({}, sizes.get(diff_id, 0)) for diff_id in layers]
    rows.reverse()
    for place, row in enumerate(rows):
        row["ID"] = "<missing>" if place else image.id
        row["Tags"] = [] if place else [reference.parse(name).familiar() for name in image.references]
    return rows


def _step(step: dict[str, Any], size: int) -> dict[str, Any]:
    created = _time(step.get("created"))
    return {
        "ID": "",
        "Created": created,
        "CreatedAt": timestamp(created),
        "CreatedSince": _since(created, time.time_ns()),
        "CreatedBy": _text(step.get("created_by")),
        "Size": size,
        "Comment": _text(step.get("comment")),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _time(value: object) -> int:
    try:
        return times.parse(_text(value))
    except InvalidArgument:
        return 0


def misspelt(name: str) -> str:
    """Say why no image can have this name, or ""."""
    try:
        reference.parse(name)
    except SampanError as error:
        return error.message
    return ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Give the known name that is most like a mistyped one, or ""."""
    from difflib import get_close_matches

    from sampan import nearest as guess

    shown = sorted(reference.parse(text).familiar() for text in known)
    wanted = name if ":" in name.rpartition("/")[2] else f"{name}:{reference.DEFAULT_TAG}"
    # The tag, mostly "latest", would make any two short names alike.
    repositories = {text.rpartition(":")[0]: text for text in reversed(shown)}
    found = guess.nearest(wanted.rpartition(":")[0], repositories)
    if not found:
        return ""
    same = [text for text in shown if text.rpartition(":")[0] == found]
    return (get_close_matches(wanted, same, n=1, cutoff=0.0) or same)[0]
