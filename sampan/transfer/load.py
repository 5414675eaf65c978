"""Load images from an archive or an OCI layout directory into the store: all of them, or none.

Content is verified against every digest and size that the archive or an image's config names, then all images and
their tags appear in one transaction.  A failure leaves at most whole blobs and snapshots that no image refers to, for
the collector or the next load.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, SampanError, counted
from sampan.oci import image
from sampan.store.leases import Leases
from sampan.transfer import dockerarchive, found, layout
from sampan.transfer.archive import STEP, open_archive
from sampan.transfer.copy import JOBS
from sampan.transfer.crew import Crew
from sampan.transfer.layers import Arrivals, Layer, Promise
from sampan.transfer.naming import retag
from sampan.transfer.tarindex import IMPORT_HINT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.compile import Facts
    from sampan.store.images import Image
    from sampan.store.leases import Lease
    from sampan.store.parts import Store
    from sampan.transfer.archive import Archive
    from sampan.transfer.found import Found, Wanted
    from sampan.transfer.layers import Ingested


class Loaded:
    """One image that was loaded: its `id`, its full `references`, in `replaced` the id that one named before, and the
    `image` once it is recorded."""

    __slots__ = ("id", "image", "manifest_digest", "references", "replaced")

    def __init__(self, image_id: str, manifest_digest: str, references: list[str]) -> None:
        self.id = image_id
        self.manifest_digest = manifest_digest
        self.references = references
        self.replaced: dict[str, str] = {}
        self.image: Image | None = None


class Loader:
    """Bring the images of one archive into the store."""

    def __init__(self, store: Store, facts_factory: Callable[[], Facts], lease: Lease, limit: int) -> None:
        self.store = store
        self.facts_factory = facts_factory
        self.lease = lease
        self.limit = limit

    def images(self, archive: Archive, found: list[Found]) -> list[Loaded]:
        """Ingest the layers of all images, several at once and each once however often it is named; then the images."""
        wanted = list({(layer.name, layer.diff_id): layer for one in found for layer in one.layers}.values())
        layers = self._layers(archive, wanted)
        return [self._image(archive, one, layers) for one in found]

    def _layers(self, archive: Archive, wanted: list[Wanted]) -> dict[tuple[str, str], Ingested]:
        arrivals = Arrivals()
        done: dict[tuple[str, str], Ingested] = {}

        def job(one: Wanted) -> Callable[[], None]:
            def bring() -> None:
                with archive.open(one.name) as part:
                    promise = self._promise(archive, one)
                    layer = Layer(self.store, self.facts_factory(), promise, self.lease)
                    done[one.name, one.diff_id] = arrivals.bring(layer, part)

            return bring

        Crew(JOBS, arrivals.cancel).run([job(one) for one in wanted])
        return done

    def _promise(self, archive: Archive, layer: Wanted) -> Promise:
        return Promise(
            digest=layer.digest,
            size=layer.size,
            diff_id=layer.diff_id,
            limit=self.limit,
            what=f"layer {layer.name} of {archive.what}",
        )

    def _image(self, archive: Archive, one: Found, layers: dict[tuple[str, str], Ingested]) -> Loaded:
        if one.blobs:
            for blob in one.blobs:
                self._keep(archive, blob)
            manifest_digest = self.store.content.add(one.manifest, lease=self.lease)
            return Loaded(one.blobs[0]["digest"], manifest_digest, one.names)
        descriptors = [self._descriptor(archive, layer, layers[layer.name, layer.diff_id]) for layer in one.layers]
        config_digest = self.store.content.add(one.config, lease=self.lease)
        manifest = one.manifest
        if not manifest:
            config = image.descriptor(image.OCI_CONFIG, config_digest, len(one.config))
            manifest = image.build_manifest(config, descriptors)
        return Loaded(config_digest, self.store.content.add(manifest, lease=self.lease), one.names)

    def _keep(self, archive: Archive, blob: dict[str, Any]) -> None:
        """Take a blob of an artifact as it is."""
        with archive.open(layout.blob_name(blob["digest"])) as part, self.store.content.ingest(lease=self.lease) as new:
            while data := part.read(STEP):
                new.write(data)
            new.commit(blob["digest"], blob["size"])

    def _descriptor(self, archive: Archive, wanted: Wanted, layer: Ingested) -> dict[str, Any]:
        if wanted.descriptor is None:
            return layer.descriptor()
        if wanted.size != layer.size:
            raise IntegrityError(f"cannot load {archive.what}: the size of layer {wanted.digest} is not {wanted.size}")
        return wanted.descriptor


def load(
    store: Store, source: int | str, facts_factory: Callable[[], Facts], *, limit: int = 0, name: str = ""
) -> list[Loaded]:
    """Load every image of a path or descriptor; `limit` bounds the unpacked bytes of each layer.

    With `name` there must be one image, which gets that name, whatever the archive calls it.

    `facts_factory` gives facts of the host with id maps filled in, and a directory to mount roots at.
    """
    with open_archive(source, store.paths.ingest) as archive, Leases(store.db).take("load") as lease:
        try:
            loaded = Loader(store, facts_factory, lease, limit).images(archive, _find(archive))
        except SampanError as exc:
            found.locate(exc, archive.what)
            raise
        if name:
            _rename(loaded, name, archive.what)
        _check_names(loaded, archive.what)
        _publish(store, loaded)
    return loaded


def _find(archive: Archive) -> list[Found]:
    if layout.is_layout(archive):
        return layout.find(archive)
    if archive.has(dockerarchive.MANIFEST):
        return dockerarchive.find(archive)
    raise IntegrityError(
        f"cannot load {archive.what}: it has neither {layout.INDEX} nor {dockerarchive.MANIFEST}",
        IMPORT_HINT,
    )


def _rename(loaded: list[Loaded], name: str, what: str) -> None:
    if len({one.manifest_digest for one in loaded}) != 1:
        raise IntegrityError(f"cannot load {what} as {name}: it holds {counted(len(loaded), 'image')}")
    del loaded[1:]
    loaded[0].references = [name]


def _check_names(loaded: list[Loaded], what: str) -> None:
    """Refuse an archive that gives one name to two images: which one it means would depend on their order."""
    owners: dict[str, str] = {}
    for one in loaded:
        for name in one.references:
            if owners.setdefault(name, one.manifest_digest) != one.manifest_digest:
                raise IntegrityError(
                    f"cannot load {what}: it calls two images {name}",
                    "`sampan image copy oci:DIRECTORY:TAG NAME` (or oci-archive:FILE:TAG) takes one of them",
                )


def _publish(store: Store, loaded: list[Loaded]) -> None:
    """Make the images visible, all in one transaction, and note what lost a name."""
    with store.db.transaction():
        for one in loaded:
            one.image = store.images.put(one.manifest_digest)
        for one in loaded:
            one.replaced.update(retag(store, one.references, one.manifest_digest))
