"""An image of one layer from a bare tar of a file system: what `import` and bases made on this host become."""

from __future__ import annotations

import time

from sampan.errors import InvalidArgument
from sampan.oci import image, platform, reference, timestamp
from sampan.oci.tarheader import BLOCK
from sampan.store.leases import Leases
from sampan.transfer import codec
from sampan.transfer.layers import Arrivals, Layer, Promise
from sampan.transfer.naming import retag
from sampan.transfer.tarindex import check_first

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.runtime.compile import Facts
    from sampan.store.parts import Store
    from sampan.transfer.layers import Stream


_TRAILING = 1 << 20  # bytes: tar pads to whole records; more is no padding, and what a device gives has no end


class Pieces:
    """Read from an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, count: int) -> bytes:
        """Give up to `count` bytes; none means the end."""
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._held = bytes(piece)
        out, self._held = self._held[:count], self._held[count:]
        return out


def make_image(
    store: Store,
    stream: Stream,
    facts_factory: Callable[[], Facts],
    *,
    config: dict[str, Any],
    name: str = "",
    created_by: str = "",
    comment: str = "",
    what: str = "the archive",
) -> tuple[str, str]:
    """Make and tag an image of the tar in `stream`; give its id and that of the image `name` named before, or "".

    `config` is the image's run configuration (image-spec config.md, "config").  The archive may be compressed.
    """
    full = reference.new_name(name) if name else ""
    image.check_run_config(config)
    with Leases(store.db).take("import") as lease:
        promise = Promise(what=what, trailing=_TRAILING, padding=_TRAILING)
        source = _layer_stream(stream, what)
        layer = Arrivals().bring(Layer(store, facts_factory(), promise, lease), source)
        now = timestamp.format(time.time_ns())
        document: dict[str, Any] = {
            "created": now,
            **platform.host().descriptor(),
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [image.history(now, created_by, comment=comment)],
        }
        data = image.build_config(document)
        config_digest = store.content.add(data, lease=lease)
        described = image.descriptor(image.OCI_CONFIG, config_digest, len(data))
        manifest = store.content.add(image.build_manifest(described, [layer.descriptor()]), lease=lease)
        with store.db.transaction():
            store.images.put(manifest)
            before = retag(store, [full], manifest).get(full, "") if full else ""
    return config_digest, before


def _layer_stream(stream: Stream, what: str) -> Stream:
    """Decode here what an image's layer cannot be compressed with."""
    source = codec.Peek(stream.read)
    head = source.peek(6)
    if not head:
        raise InvalidArgument(f"cannot read {what}: it is empty")
    kind = codec.detect(head)
    if not kind:
        check_first(source.peek(BLOCK))
    return codec.Members(kind, source.read, what) if kind in ("bzip2", "xz") else source
