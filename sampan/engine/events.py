"""What happened: recorded by whoever did it, read by whoever asks (store/events.py tells how it lies on the disk).

    engine.events.emit("image", "tag", image_id, {"name": "app:1"})      one line, for every verb of the engine
    engine.events.container("rename", record, oldName="/web")            with a container's image, name and labels
    for event in engine.events(since=time.time() - 3600): …              Docker's EventMessage as dictionaries

Types, actions and attributes are Docker's (Engine API, /events).
"""

from __future__ import annotations

from sampan.store import events as record_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record


class Events:
    """The events of one engine's store."""

    def __init__(self, engine: Engine) -> None:
        self.paths = engine.store.paths
        self.directory = self.paths.events

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Record an event; it is lost, and nothing else, when it cannot be written."""
        record_of.emit(self.directory, type, action, id, attributes or {})

    def container(self, action: str, record: Record, /, **attributes: Any) -> None:
        """Record an event of a container, with its image, name and labels."""
        record_of.emit_container(self.directory, action, record, **attributes)

    def for_supervisor(self, record: Record) -> list[tuple[str | bytes, ...]]:
        """Give what a supervisor needs to record itself, in their true order, `start`, `oom` and `die` of the container
        and `mount` and `unmount` of its volumes.
        """
        volumes, home = self.paths.volumes, self.paths.container(record.id)
        found = [record_of.for_supervisor(self.directory, record, home, "start", "die")]
        for mount in record.spec["mounts"]:
            if str(mount.get("source") or "").startswith(volumes + "/"):
                found.append(record_of.for_volume(self.directory, record.id, mount, volumes))
        return found

    def for_exec(self, record: Record, args: list[str]) -> list[tuple[str | bytes, ...]]:
        """Record that an exec is made and started, and give what its supervisor needs to record its end."""
        import os

        exec_id, words = os.urandom(32).hex(), " ".join(args)
        for action in ("exec_create", "exec_start"):
            self.container(f"{action}: {words}", record, execID=exec_id)
        home = self.paths.container(record.id)
        return [record_of.for_supervisor(self.directory, record, home, "", "exec_die", execID=exec_id)]

    def __call__(
        self,
        since: float | str | None = None,
        until: float | str | None = None,
        filters: Mapping[str, list[str]] | None = None,
        follow: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Give events between two times (unix, or RFC 3339 with nanoseconds), the oldest first; InvalidArgument for an
        unknown filter.

        Without `since` there are none of the past; with `follow` new ones are waited for, until `until` if given.
        """
        from sampan.engine import eventlog

        return eventlog.events(self.directory, since, until, filters or {}, follow)
