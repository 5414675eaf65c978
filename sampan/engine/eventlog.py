"""Reads the record of events: those of the past in order, then new ones as they come, if filters let them by."""

from __future__ import annotations

import os
import select
import time

from sampan.engine.matching import has_label
from sampan.errors import InvalidArgument
from sampan.oci import jsontext, reference, timestamp
from sampan.store import events as record_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_NAMED = ("container", "image", "volume", "network", "daemon", "plugin", "node", "service", "secret", "config")
FILTERS = ("event", "label", "scope", "type", *_NAMED)
_WHOLE_SECOND = 1_000_000_000
_IN_MODIFY, _IN_CREATE = 0x2, 0x100  # inotify(7)


class _Reader:
    """Read what was appended since the last time, of every file of the record."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.seen: dict[int, int] = {}

    def skip(self) -> None:
        """Take all that is there now as read."""
        for number in record_of.files(self.directory):
            try:
                self.seen[number] = os.stat(f"{self.directory}/{number}").st_size
            except FileNotFoundError:
                continue

    def new(self, oldest: int = 0) -> Iterator[dict[str, Any]]:
        """Give the whole lines that are new, of files that may have events from `oldest` (unix seconds) on."""
        numbers = record_of.files(self.directory)
        for gone in self.seen.keys() - set(numbers):
            del self.seen[gone]
        for number in numbers:
            if (number + 1) * record_of.SPAN >= oldest:
                yield from self._lines(number)

    def _lines(self, number: int) -> Iterator[dict[str, Any]]:
        try:
            with open(f"{self.directory}/{number}", "rb") as file:
                file.seek(self.seen.get(number, 0))
                while True:
                    place = file.tell()
                    line = file.readline(record_of.MOST)
                    if not line.endswith(b"\n"):
                        break  # the rest of it is being written, or never will be
                    self.seen[number] = place + len(line)
                    event = _parsed(line)
                    if event is not None:
                        yield event
        except FileNotFoundError:
            return


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Read a line in Docker's form; None for an empty one, or what a kill or a full disk left of one."""
    if line == b"\n":
        return None
    try:
        found = jsontext.loads(line)
        now, kind, action, actor = found["timeNano"], found["Type"], found["Action"], found["Actor"]
        event: dict[str, Any] = {}
        if kind in ("container", "image"):
            event = {"status": action, "id": actor["ID"]}
            if "image" in actor["Attributes"]:
                event["from"] = actor["Attributes"]["image"]
        event.update(Type=kind, Action=action, Actor=actor, scope="local", time=now // _WHOLE_SECOND, timeNano=now)
        return event
    except (InvalidArgument, KeyError, TypeError):
        return None


def events(
    directory: str,
    since: float | str | None,
    until: float | str | None,
    filters: Mapping[str, list[str]],
    follow: bool,
) -> Iterator[dict[str, Any]]:
    """Give events (see Events.__call__); arguments are checked at once, not when the first event is asked for."""
    for key in filters:
        if key not in FILTERS:
            raise InvalidArgument(f"cannot filter events by {key!r}", f"one of: {', '.join(FILTERS)}")
    return _events(directory, _nanoseconds(since), _nanoseconds(until), filters, follow)


def _nanoseconds(moment: float | str | None) -> int | None:
    if isinstance(moment, str):
        return timestamp.parse(moment)
    return None if moment is None else int(moment * _WHOLE_SECOND)


def _events(
    directory: str, since: int | None, last: int | None, filters: Mapping[str, list[str]], follow: bool
) -> Iterator[dict[str, Any]]:
    first = since or 0
    until = None if last is None else last / _WHOLE_SECOND

    def chosen(event: dict[str, Any]) -> bool:
        return event["timeNano"] >= first and (last is None or event["timeNano"] <= last) and _matches(event, filters)

    reader = _Reader(directory)
    changes = _Changes(directory) if follow else None  # before reading, so that nothing falls between the two
    try:
        if since is None:
            reader.skip()
        past = [event for event in reader.new(first // _WHOLE_SECOND) if chosen(event)]
        yield from sorted(past, key=lambda event: int(event["timeNano"]))
        while changes is not None and (until is None or time.time() < until):
            changes.wait(None if until is None else until - time.time())
            yield from (event for event in reader.new(first // _WHOLE_SECOND) if chosen(event))
    finally:
        if changes is not None:
            changes.close()


class _Changes:
    """Wait for new lines (inotify(7)); where the host has no watch to give, look ten times a second."""

    def __init__(self, directory: str) -> None:
        import ctypes

        os.makedirs(directory, mode=0o700, exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self.poller = select.poll()
        if self.fd >= 0 and libc.inotify_add_watch(self.fd, os.fsencode(directory), _IN_MODIFY | _IN_CREATE) < 0:
            self.close()
        if self.fd >= 0:
            self.poller.register(self.fd, select.POLLIN)

    def wait(self, seconds: float | None) -> None:
        """Return when something may be new, or after `seconds`."""
        if self.fd < 0:
            time.sleep(0.1 if seconds is None else max(0.0, min(0.1, seconds)))
        elif self.poller.poll(None if seconds is None else max(0, int(seconds * 1000) + 1)):
            os.read(self.fd, 1 << 16)

    def close(self) -> None:
        """Give the watch back."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def _matches(event: dict[str, Any], filters: Mapping[str, list[str]]) -> bool:
    return all(_match(event, key, values) for key, values in filters.items())


def _match(event: dict[str, Any], key: str, values: list[str]) -> bool:
    """Say whether an event passes one filter, as Docker decides it: values of one key are alternatives."""
    actor, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
    if key == "event":
        # `health_status` means every one, `health_status: healthy` that one; so for exec_create and exec_start.
        action = event["Action"]
        return action in values or action.partition(":")[0] in values
    if key in ("type", "scope"):
        return event["Type" if key == "type" else "scope"] in values
    if key == "label":
        return all(has_label(attributes, value) for value in values)
    if key == "image":
        name = attributes.get("name" if event["Type"] == "image" else "image", "")
        return any(value in (actor, name, _bare(actor), _bare(name)) for value in values)
    if event["Type"] != key:
        return False
    name = attributes.get("name", "")
    return any(actor.startswith(value) or name.startswith(value) for value in values if value)


def _bare(name: str) -> str:
    """Give an image's name without its tag."""
    try:
        return reference.parse(name).familiar_name()
    except InvalidArgument:
        return name
