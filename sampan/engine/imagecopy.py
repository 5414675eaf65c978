"""`image copy`: from any place to any place; what the places are called is decided here, transfer moves.

NAME                        the local store
docker://NAME               the registry that the name says
oci:DIRECTORY[:NAME]        an OCI image layout
oci-archive:FILE[:NAME]     a tar that is an OCI image layout and what `docker load` reads (also docker-archive:)
ssh://[USER@]HOST[:PORT]/NAME   sampan on another host, else docker or podman there
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from sampan.errors import InvalidArgument, NotFound, NotSupported, counted
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.transfer import events
from sampan.transfer.copy import copy, copy_referrers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.images import Image
    from sampan.transfer.copy import Destination, Picture, Source
    from sampan.transfer.events import Listen

STORE, REGISTRY, LAYOUT, ARCHIVE, SSH = "store", "registry", "layout", "archive", "ssh"
_SCHEMES = {
    "docker://": REGISTRY,
    "registry://": REGISTRY,
    "ssh://": SSH,
    "oci-archive:": ARCHIVE,
    "docker-archive:": ARCHIVE,
    "oci:": LAYOUT,
}


# What skopeo calls other places, none of which is here: as names of images they would be a surprise.
_OTHERS = ("dir:", "docker-daemon:", "containers-storage:", "ostree:", "sif:", "tarball:")


class Place:
    """Where an image is or goes: `kind`, `where` (a path or a host), `name` ("": none is known), `given` as it was."""

    __slots__ = ("given", "kind", "name", "text", "where")

    def __init__(self, text: str) -> None:
        self.text = text
        scheme = next((scheme for scheme in _SCHEMES if text.startswith(scheme)), "")
        self.kind = _SCHEMES.get(scheme, STORE)
        rest = text[len(scheme) :]
        self.where, self.name = "", rest
        if self.kind == SSH:
            self.where, _, self.name = rest.partition("/")
        elif self.kind in (LAYOUT, ARCHIVE):
            self.where, _, self.name = rest.partition(":")
        self.given = self.name
        if not (self.where or self.name):
            raise InvalidArgument(f"invalid place {text!r}: it names nothing", _PLACES)
        if self.kind == STORE and text.startswith(_OTHERS):
            raise InvalidArgument(f"invalid place {text!r}: sampan knows no {text.partition(':')[0]}", _PLACES)
        if self.name:
            try:
                reference.parse(self.name)
            except InvalidArgument as exc:
                raise InvalidArgument(f"invalid place {text!r}: {exc.message}", exc.hint or _PLACES) from exc


_PLACES = "places are NAME, docker://NAME, oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME] and ssh://HOST/NAME"


class Copied:
    """What arrived: the `digest` of its manifest, and the `name` it has there."""

    __slots__ = ("digest", "name")

    def __init__(self, digest: str, name: str) -> None:
        self.digest = digest
        self.name = name


def image_copy(
    engine: Engine,
    source: str,
    destination: str,
    *,
    platform: str = "",
    every: bool = False,
    referrers: bool = False,
    listen: Listen = events.ignore,
) -> Copied:
    """Copy an image from one place to another; only what is missing there moves.

    `every` copies an index with all that it lists, from a registry to a registry or a layout; `referrers` what has
    the image as its subject too (signatures, SBOMs), between registries and layouts.
    """
    begin, end = Place(source), Place(destination)
    if referrers and (begin.kind not in (REGISTRY, LAYOUT, ARCHIVE) or end.kind not in (REGISTRY, LAYOUT)):
        raise InvalidArgument(
            f"cannot copy what refers to {source} to {destination}: only registries and layouts keep that",
            "--referrers goes from docker://, oci: or oci-archive: to docker:// or oci:",
        )
    if every and (begin.kind != REGISTRY or end.kind not in (REGISTRY, LAYOUT)):
        raise InvalidArgument(
            f"cannot copy all platforms from {source} to {destination}: elsewhere a name has one",
            "--all goes from docker:// to docker:// or oci:",
        )
    if every and platform:
        raise InvalidArgument("cannot copy all platforms and one of them: --all and --platform exclude each other")
    if begin.kind == STORE and not begin.name:
        raise InvalidArgument(f"invalid place {source!r}")
    if not end.name:
        end.name = begin.name
    with ExitStack() as stack:
        work = _Copy(engine, begin, end, platform, every, listen, stack)
        work.referrers = referrers
        return work.run()


class _Copy:
    def __init__(
        self,
        engine: Engine,
        begin: Place,
        end: Place,
        platform: str,
        every: bool,
        listen: Listen,
        stack: ExitStack,
    ) -> None:
        self.engine = engine
        self.begin = begin
        self.end = end
        self.platform = platform
        self.every = every
        self.listen = listen
        self.stack = stack
        self.width = 3
        self.referrers = False
        self._speaker: Any = None
        self._interrupts: list[Callable[[], None]] = []

    def run(self) -> Copied:
        if SSH in (self.begin.kind, self.end.kind):
            other = self._foreign()
            if other is not None:
                return other
        source = self._source()
        if self.end.kind == STORE:
            return self._into_store(source)
        picture = copy(source, self._destination(), self._crew())
        if self.referrers:
            self._related(source, picture)
        return Copied(picture.digest, self.end.name)

    def _related(self, source: Any, picture: Picture) -> None:
        seen: set[str] = set()
        copy_referrers(source, self._destination(named=False), self._crew, picture, seen)
        self.listen(events.Event(events.TEXT, text=counted(len(seen), "referrer was", "referrers were") + " copied"))

    def _crew(self) -> Any:
        from sampan.transfer.crew import Crew

        def interrupt() -> None:
            for one in self._interrupts:
                one()

        return Crew(self.width, interrupt)

    def _registries(self) -> Any:
        if self._speaker is None:
            from sampan.engine.pulling import registries

            self._speaker = registries(self.listen)
            self.stack.callback(self._speaker.close)
            self._interrupts.append(self._speaker.interrupt)
        return self._speaker

    # ---- sources ----

    def _source(self) -> Source:
        if self.begin.kind == STORE:
            from sampan.engine.pushing import compression_for
            from sampan.transfer.push import StoreSource

            found = self._kept()
            return StoreSource(self.engine.store, found, compression_for(found) if self.end.kind == REGISTRY else "")
        if self.begin.kind == REGISTRY:
            from sampan.transfer.registries import RegistrySource

            ref = reference.parse(self.begin.name)
            wanted = platforms.parse(self.platform) if self.platform else platforms.host()
            places = self._registries().repositories(ref, verb="copy")
            if self.every:
                return RegistrySource(ref, places, None, listen=self.listen)
            return RegistrySource(ref, places, wanted, strict=bool(self.platform), listen=self.listen)
        if self.begin.kind == SSH:
            from sampan.transfer.peer import PeerSource

            return PeerSource(self._pipe(self.begin), self.begin.name)
        return self._layout_source()

    def _kept(self) -> Image:
        """Find the image of the local store that is copied, and keep it until the end."""
        lease = self.stack.enter_context(self.engine.store.leases.to_read("copy"))
        return self.engine.images.resolve(self.begin.name, lease)

    def _layout_source(self) -> Source:
        from sampan.transfer.archive import open_archive
        from sampan.transfer.layouts import LayoutSource

        archive = self.stack.enter_context(open_archive(self.begin.where, self.engine.store.paths.ingest))
        made = LayoutSource(archive, self.begin.name)
        if not self.end.name and made.names:
            self.end.name = reference.parse(made.names[0]).familiar()
        return made

    def _pipe(self, place: Place) -> Any:
        from sampan.transfer.ssh import Host, Peer

        peer = Peer(Host(place.where, os.environ))
        pipe = self.stack.enter_context(peer)
        self._interrupts.append(peer.interrupt)
        self.width = 1  # one connection, one part at a time
        return pipe

    # ---- destinations ----

    def _destination(self, *, named: bool = True) -> Destination:
        if self.end.kind == REGISTRY:
            from sampan.transfer.push import RegistryDestination

            ref = self._named()
            repository = self._registries().repositories(ref, push=True)[0]
            return RegistryDestination(repository, ref.domain, [ref.tag] if named else [], self.listen)
        if self.end.kind == SSH:
            from sampan.transfer.peer import PeerDestination

            return PeerDestination(self._pipe(self.end), [str(self._named())], self.listen)
        from sampan.transfer.layouts import ArchiveDestination, LayoutDestination

        name = str(reference.parse(self.end.name)) if self.end.name and named else ""
        if self.end.kind == LAYOUT:
            made = LayoutDestination(self.end.where, name, self.listen, self.end.given)
            self.stack.push(made.settle)
            return made
        return ArchiveDestination(self.end.where, name, self.listen)

    def _named(self) -> reference.Reference:
        if not self.end.name:
            raise InvalidArgument(f"cannot copy to {self.end.text}: it has no name there", "give the place a name")
        ref = reference.parse(self.end.name)
        if ref.digest:
            raise InvalidArgument(f"cannot copy to {self.end.name}: it has a digest", "give it a tag")
        return ref

    def _into_store(self, source: Source) -> Copied:
        from sampan.transfer import pull

        engine = self.engine
        names = [str(self._named())] if self.end.name else []
        found, replaced = pull.pull(
            engine.store,
            source,
            lambda picture: names,
            engine.host.facts,
            self._crew(),
            listen=self.listen,
        )
        for name, before in replaced.items():
            engine.warn([f"{reference.parse(name).familiar()} was {before}"])
        engine.events.emit("image", "pull", found.manifest_digest, {"name": self.end.name})
        return Copied(found.manifest_digest, self.end.name)

    # ---- engines that are not sampan ----

    def _foreign(self) -> Copied | None:
        """Copy to or from a docker or podman over ssh; None when the other host has a sampan."""
        from sampan.transfer.ssh import Host, load_into

        place, outward = (self.end, True) if self.end.kind == SSH else (self.begin, False)
        if not place.name:
            raise InvalidArgument(f"invalid place {place.text!r}: it has no name", "write ssh://HOST/NAME")
        host = Host(place.where, os.environ)
        kind = host.engine()
        if kind == "sampan":
            return None
        local = self.begin if outward else self.end
        if local.kind != STORE:
            raise NotSupported(
                f"cannot copy between {local.text} and the {kind} of {host.shown}", "copy to the local store first"
            )
        if outward:
            found = self._kept()
            sent = load_into(host, kind, self.engine.store.content, found.manifest_digest, [str(self._named())])
            layers = counted(len(found.diff_ids), "layer was", "layers were")
            self.listen(events.Event(events.TEXT, text=f"{sent} of {layers} sent"))
            return Copied(found.manifest_digest, self.end.name)
        return self._from_foreign(host, kind)

    def _from_foreign(self, host: Any, kind: str) -> Copied:
        import subprocess

        from sampan.transfer.load import load
        from sampan.transfer.ssh import Complaints

        name, engine = str(self._named()), self.engine
        wanted = reference.parse(self.begin.name).familiar()  # with its tag: without, docker sends all that there are
        with Complaints() as errors:
            words = [kind, "save", wanted]
            process = host.start(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors.take())
            try:
                # What the other host calls its images re-points no name here.
                loaded = load(engine.store, process.stdout.fileno(), engine.host.facts, name=name)
            except InvalidArgument as exc:
                code = process.wait()
                if not code:
                    raise
                why = errors.last(code)  # it sent nothing
                raise NotFound(f"cannot copy {wanted} from the {kind} of {host.shown}: {why}") from exc
            finally:
                process.stdout.close()
                process.wait()
        for before in loaded[0].replaced.values():
            engine.warn([f"{self.end.name} was {before}"])
        return Copied(loaded[0].manifest_digest, self.end.name)
