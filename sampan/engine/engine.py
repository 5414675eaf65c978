"""The engine: one store, its parts made on first use, and the few verbs that a program needs most.

    engine = sampan.Engine()
    result = engine.run("image", ["prog", "arg"], memory="64m", timeout=5)

Safe from several threads: parts hold no state of a call, the database serialises its own use.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from sampan.engine.containers import Containers
    from sampan.engine.events import Events
    from sampan.engine.host import Host
    from sampan.engine.images import Images
    from sampan.engine.library import Result
    from sampan.engine.volumes import Volumes
    from sampan.store.containers import Containers as ContainerRecords
    from sampan.store.content import Content
    from sampan.store.images import Images as ImageRecords
    from sampan.store.leases import Leases
    from sampan.store.snapshots import Snapshots


class Store:
    """Hold the parts of floor 2's store for one root, each made on first use."""

    def __init__(self, root: str | None, remove_tree: Callable[[str], None]) -> None:
        from sampan.store.db import Database
        from sampan.store.paths import locate

        self.paths = locate(root)
        self.held = self.paths.hold()
        self.paths.make()
        self.paths.make_run()
        if not os.path.isdir(self.paths.empty):
            os.makedirs(self.paths.empty, mode=0o755, exist_ok=True)
        self.db = Database(self.paths)
        self.remove_tree = remove_tree
        self._parts: dict[str, Any] = {}

    def _part(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._parts:
            self._parts[name] = make()
        return self._parts[name]

    @property
    def leases(self) -> Leases:
        """What operations under way need."""
        from sampan.store.leases import Leases

        part: Leases = self._part("leases", lambda: Leases(self.db))
        return part

    @property
    def content(self) -> Content:
        """Blobs."""
        from sampan.store.content import Content

        part: Content = self._part("content", lambda: Content(self.paths))
        return part

    @property
    def snapshots(self) -> Snapshots:
        """Unpacked layers."""
        from sampan.store.snapshots import Snapshots

        part: Snapshots = self._part("snapshots", lambda: Snapshots(self.db, self.paths, remove_tree=self.remove_tree))
        return part

    @property
    def images(self) -> ImageRecords:
        """Image records and tags."""
        from sampan.store.images import Images

        part: ImageRecords = self._part("images", lambda: Images(self.db, self.paths))
        return part

    @property
    def containers(self) -> ContainerRecords:
        """Container records."""
        from sampan.store.containers import Containers

        part: ContainerRecords = self._part("containers", lambda: Containers(self.db, self.paths))
        return part

    @property
    def volumes(self) -> Any:
        """Named volumes."""
        from sampan.store.volumes import Volumes

        return self._part("volumes", lambda: Volumes(self.db, self.paths, remove_tree=self.remove_tree))

    @property
    def buildcache(self) -> Any:
        """Results of build steps, and file digests by stat."""
        from sampan.store.buildcache import BuildCache

        return self._part("buildcache", lambda: BuildCache(self.db, self.paths))


class Engine:
    """Build, run and look after containers in one store; `root` chooses it (else SAMPAN_ROOT, else the user's own)."""

    def __init__(
        self, root: str | os.PathLike[str] | None = None, *, warn: Callable[[str], None] | None = None
    ) -> None:
        self._root = None if root is None else os.fspath(root)
        self._warn = warn
        self._store: Store | None = None
        self._host: Host | None = None
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"Engine(root={self._root!r})"

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> Store:
        """The store's parts."""
        if self._store is None:
            self._store = Store(self._root, self.remove_tree)
        return self._store

    @property
    def host(self) -> Host:
        """What this process knows of the host."""
        if self._host is None:
            from sampan.engine.host import Host

            self._host = Host(self.store.paths)
        return self._host

    @property
    def containers(self) -> Containers:
        """Operations on containers."""
        from sampan.engine.containers import Containers

        return Containers(self)

    @property
    def images(self) -> Images:
        """Operations on images."""
        from sampan.engine.images import Images

        return Images(self)

    @property
    def volumes(self) -> Volumes:
        """Operations on volumes."""
        from sampan.engine.volumes import Volumes

        return Volumes(self)

    @property
    def events(self) -> Events:
        """What happened in this store: `emit` records, and a call of it gives the events (engine/events.py)."""
        from sampan.engine.events import Events

        return Events(self)

    def warn(self, notes: Iterable[str]) -> None:
        """Say each note once: to the function given at construction, else on standard error."""
        for note in notes:
            if note in self._said:
                continue
            self._said.add(note)
            if self._warn is not None:
                self._warn(note)
            else:  # an image or another host may have chosen words in it: they do not steer the terminal
                shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in note)
                sys.stderr.write(f"sampan: warning: {shown}\n")

    def command(self, words: list[str]) -> list[str]:
        """Give the argument vector that runs a sampan command on this store from a clean environment."""
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = "import sys;sys.path.append(sys.argv[1]);from sampan import bundle;bundle.install();import os;"
        code += 'os.environ["SAMPAN_RUN"]=sys.argv[2];del sys.argv[1:3];from sampan.cli.main import entry;entry()'
        paths = self.store.paths
        return [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, package, paths.run, "--root", paths.root, *words]

    def run(
        self,
        image: str,
        command: Sequence[str | bytes | os.PathLike[str]] | None = None,
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, object] | None = None,
        **settings: Any,
    ) -> Result:
        """Run a program in a new container and give its exit code, output and errors; the container is removed.

        `timeout` is in seconds: after it the program is killed, and the result is `timed_out`. `memory` and sizes may
        be text ("64m"); other settings are the fields of sampan.oci.spec.RunOptions (network, user, mounts …).
        A program that ends with a code other than 0 is a result; one that cannot be started raises SampanError.
        """
        from sampan.engine.library import run

        return run(self, image, command, input=input, timeout=timeout, env=env, settings=settings)

    def exec(
        self,
        container: str,
        command: Sequence[str | bytes | os.PathLike[str]],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, object] | None = None,
        workdir: str = "",
        user: str = "",
        privileged: bool = False,
    ) -> Result:
        """Run a program in a running container and give its exit code, output and errors when it ends.

        What it leaves running in the container goes on. `timeout` is in seconds: after it the program and all of its
        session are killed, and the result is `timed_out`. Raises Conflict for a container that does not run.
        """
        from sampan.engine.inside import run

        return run(
            self, container, command, input=input, timeout=timeout, env=env, workdir=workdir, user=user,
            privileged=privileged,
        )  # fmt: skip

    def build(self, context: str | os.PathLike[str] | int, **settings: Any) -> str:
        """Build an image from a context directory and give its id.

        Settings: tags, dockerfile (a path), build_args, target, no_cache, labels, platform, network ("host" or "none"),
        pull, on_event (called with each sampan.build.progress.Event: what steps print, too). Raises BuildError with the
        Dockerfile's line for what is wrong in it.
        """
        from sampan.engine.building import build

        return build(self, context, **settings)

    def bootstrap(self, spec: str, tag: str, programs: list[str] | None = None) -> str:
        """Make a base image without a registry: `host`, or `debian:SUITE`; give its id."""
        from sampan.engine.bases import bootstrap

        return bootstrap(self, spec, tag, programs or [])

    def info(self) -> dict[str, Any]:
        """Describe the host and the store, with Docker's keys where they exist."""
        from sampan.engine.system import info

        return info(self)

    def version(self) -> dict[str, Any]:
        """Give the versions of sampan, Python and the kernel."""
        from sampan.engine.system import version

        return version()

    def remove_tree(self, path: str) -> None:
        """Remove a directory of the store whose files may belong to mapped ids; a missing one is fine."""
        from sampan.engine.trees import remove_tree

        remove_tree(self, path)

    def erase_if_empty(self) -> bool:
        """Leave nothing of a store whose records name nothing any more, unless another process uses it."""
        from sampan.store.erase import erase_if_empty

        store = self.store
        erased = erase_if_empty(store.db, store.paths, store.held, remove_tree=self.remove_tree)
        if erased:
            self.close()
        return erased

    def salvage(self) -> list[str]:
        """Replace a damaged database by what can still be read of it; say what became of it.

        Raises Unavailable while another process uses the store.
        """
        from sampan.store import erase, salvage

        store = self.store
        with erase.Only(store.paths, store.held):
            return salvage.salvage(store.db, store.paths, store.images)

    def close(self) -> None:
        """Close the store; the next use opens it again."""
        if self._store is not None:
            self._store.db.close()
            os.close(self._store.held)
            self._store = self._host = None
