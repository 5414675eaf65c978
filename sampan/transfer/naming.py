"""Names of images that arrived: who loses one to them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.store.parts import Store


def retag(store: Store, names: Sequence[str], manifest_digest: str) -> dict[str, str]:
    """Point names at a manifest; give for each that another image had that one's id."""
    before = store.images.tag_all(names, manifest_digest)
    ids = {digest: store.images.resolve(digest).id for digest in {manifest_digest, *before.values()} if digest}
    return {name: ids[old] for name, old in before.items() if old and ids[old] != ids[manifest_digest]}
