"""What others ask of a store: its parts as the engine holds them. Types only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.store.buildcache import BuildCache
    from sampan.store.content import Content
    from sampan.store.db import Database
    from sampan.store.images import Images
    from sampan.store.paths import Paths
    from sampan.store.snapshots import Snapshots

    class Store(Protocol):
        """The parts of one store that images are made of."""

        @property
        def paths(self) -> Paths: ...
        @property
        def db(self) -> Database: ...
        @property
        def content(self) -> Content: ...
        @property
        def snapshots(self) -> Snapshots: ...
        @property
        def images(self) -> Images: ...
        @property
        def buildcache(self) -> BuildCache: ...
