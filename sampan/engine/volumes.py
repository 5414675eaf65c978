"""Volumes as users handle them: create, list, inspect, remove; `volume prune` is in engine/pruning.py."""

from __future__ import annotations

from sampan.engine.matching import has_label
from sampan.errors import InvalidArgument, NotFound
from sampan.oci import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.volumes import Volume

FILTERS = ("dangling", "driver", "label", "name")


class Volumes:
    """Operate on the volumes of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store.volumes

    def create(self, name: str = "", labels: Mapping[str, str] | None = None) -> str:
        """Make a volume if it is not there, and give its name; without one it is anonymous."""
        known = bool(name) and any(volume.name == name for volume in self.store.ls())
        volume: Volume = self.store.create(name, labels=dict(labels or {}))
        if not known:
            self.engine.events.emit("volume", "create", volume.name, {"driver": "local"})
        return volume.name

    def ls(self, filters: Mapping[str, list[str]] | None = None) -> list[dict[str, Any]]:
        """List volumes by name, with the fields of `docker volume ls --format`.

        Filters: dangling (true or false), driver, label, name (a part of it).
        """
        wanted = dict(filters or {})
        for key, values in wanted.items():
            if key not in FILTERS:
                raise InvalidArgument(f"cannot filter volumes by {key!r}", f"one of: {', '.join(FILTERS)}")
            if key == "dangling" and any(value.lower() not in _TRUE + _FALSE for value in values):
                raise InvalidArgument(f"cannot filter volumes by dangling={values[0]}", "write true or false")
        return [_row(volume) for volume in self.store.ls() if self._matches(volume, wanted)]

    def _matches(self, volume: Volume, wanted: Mapping[str, list[str]]) -> bool:
        return all(any(self._match(volume, key, value) for value in values) for key, values in wanted.items())

    def _match(self, volume: Volume, key: str, value: str) -> bool:
        if key == "dangling":
            return (value.lower() in _TRUE) == (not self.store.users(volume.name))
        if key == "driver":
            return value == "local"
        if key == "name":
            return value in volume.name
        return has_label(volume.labels, value)

    def inspect(self, name: str) -> dict[str, Any]:
        """Describe a volume in the shape of Docker's API (VolumeInspect); NotFound."""
        volume: Volume = self.store.get(name)
        return {
            "CreatedAt": timestamp.format(volume.created // 1_000_000_000 * 1_000_000_000),
            "Driver": "local",
            "Labels": volume.labels,
            "Mountpoint": volume.path,
            "Name": volume.name,
            "Options": None,
            "Scope": "local",
        }

    def remove(self, name: str, *, force: bool = False) -> str:
        """Remove a volume and what is in it; Conflict while a container has it, NotFound unless `force`."""
        try:
            self.store.remove(name)
        except NotFound:
            if not force:
                raise
            return name
        self.engine.events.emit("volume", "destroy", name, {"driver": "local"})
        return name


_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")


def _row(volume: Volume) -> dict[str, Any]:
    return {
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(volume.labels.items())),
        "LabelMap": volume.labels,
        "Links": "N/A",
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    }
