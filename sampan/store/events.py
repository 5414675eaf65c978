"""The record of what happened, for a day: `emit` appends one line to a file of the present ten minutes.

    events/<unix time // 600>    lines of {"Type", "Action", "Actor": {"ID", "Attributes"}, "timeNano"}, Docker's words

Rules: one write(2) with O_APPEND for each event, by whoever did it (the supervisor too, helper/events.c), so lines
never mix. A line begins with a newline, so that one that a full disk or a kill cut short spoils no other. Nothing is
synced, and no event is worth a command's failure: what cannot be written is left out. Whoever begins a file removes old
ones.
"""

from __future__ import annotations

import os
import time

from sampan.oci import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.store.containers import Record

SPAN = 600
KEPT = 86_400 + SPAN
"""Seconds for which events are kept at least, unless they are too many."""
MOST = 64 << 20
"""Bytes of all files but the present one, which may have as many again (helper/events.c has this number too)."""
_LONGEST_LABELS = 16 << 10
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def line(type: str, action: str, id: str, attributes: Mapping[str, Any], now: int) -> bytes:
    """Give the bytes of one event; attributes become text, as Docker's are."""
    texts = {key: str(value) for key, value in attributes.items()}
    event = {"Type": type, "Action": action, "Actor": {"ID": id, "Attributes": texts}, "timeNano": now}
    return b"\n" + jsontext.dumps(event) + b"\n"


def container_attributes(record: Record) -> dict[str, str]:
    """Give what Docker tells of a container with each of its events: image, name and labels, unless they are huge."""
    labels = record.labels
    if labels and sum(len(key) + len(value) for key, value in labels.items()) > _LONGEST_LABELS:
        labels = {}
    return {**labels, "image": record.image_reference or record.image_id, "name": record.name}


def emit_container(directory: str, action: str, record: Record, /, **more: Any) -> None:
    """Append an event of a container, with its image, name and labels."""
    emit(directory, "container", action, record.id, {**container_attributes(record), **more})


def for_supervisor(
    directory: str, record: Record, home: str, start: str, end: str, **more: str
) -> tuple[str | bytes, ...]:
    """Give what helper/events.c needs: the directory, the beginning of each event, the actions at start and end, and
    the container's directory `home`, where `sampan rename` leaves a newer name, with its name now.
    """
    attributes = {**container_attributes(record), **more}
    del attributes["name"]
    actor = {"ID": record.id, "Attributes": attributes}
    return directory, jsontext.dumps({"Type": "container", "Actor": actor})[:-3], start, end, home, record.name


def for_volume(directory: str, container_id: str, mount: Mapping[str, Any], volumes: str) -> tuple[str | bytes, ...]:
    """Give the same for a volume that a container mounts while it runs."""
    words, name = mount.get("options", ()), str(mount["source"])[len(volumes) + 1 :].partition("/")[0]
    attributes = {"container": container_id, "destination": mount["destination"], "driver": "local"}
    attributes["read/write"] = "false" if "ro" in words else "true"
    actor = {"ID": name, "Attributes": {**attributes, "propagation": ""}}
    return directory, jsontext.dumps({"Type": "volume", "Actor": actor})[:-3], "mount", "unmount"


def emit(directory: str, type: str, action: str, id: str, attributes: Mapping[str, Any]) -> bool:
    """Append an event; say whether it could be written."""
    now = time.time_ns()
    path = f"{directory}/{now // (SPAN * 1_000_000_000)}"
    try:
        try:
            fd = os.open(path, _APPEND)
        except FileNotFoundError:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            collect(directory, now // 1_000_000_000)
            fd = os.open(path, _APPEND | os.O_CREAT, 0o600)
        try:
            if os.lseek(fd, 0, os.SEEK_END) > MOST:
                return False
            os.write(fd, line(type, action, id, attributes, now))
        finally:
            os.close(fd)
    except OSError:
        return False  # full, read-only: whatever else the command does is more important, and meets the same
    return True


def files(directory: str) -> list[int]:
    """List the numbers of the files, the oldest first; none when nothing was ever recorded."""
    try:
        return sorted(int(name) for name in os.listdir(directory) if name.isascii() and name.isdigit())
    except FileNotFoundError:
        return []


def collect(directory: str, now: int) -> int:
    """Remove files whose day is over, and the oldest ones of too many bytes; give how many bytes went.

    A file of the future, from before the clock was set back, goes as one of the past does.
    """
    freed = total = 0
    for number in reversed(files(directory)):
        path = f"{directory}/{number}"
        try:
            size = os.stat(path).st_size
            total += size
            if abs(now - number * SPAN) > KEPT or total > MOST:
                os.unlink(path)
                freed += size
        except FileNotFoundError:
            continue  # somebody else is collecting
    return freed
