"""Images beside each other: which stands on which, whose layers they share, and how their files differ."""

from __future__ import annotations

from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.engine import Engine
    from sampan.runtime.rootfs import Rootfs
    from sampan.store.images import Image
    from sampan.transfer.compare import Difference


class Node:
    """An image in the tree: `size` in bytes is all of it, `own` what it adds to the image it stands on."""

    __slots__ = ("children", "image", "layers", "own")

    def __init__(self, image: Image) -> None:
        self.image = image
        self.own = image.size
        self.layers = len(image.diff_ids)
        self.children: list[Node] = []

    @property
    def names(self) -> list[str]:
        """What people call it: familiar names, or its short id."""
        return [reference.parse(name).familiar() for name in self.image.references] or [self.image.short_id]


def tree(engine: Engine) -> list[Node]:
    """Give the images that stand on no other, each with those that have all its layers and more, by name."""
    nodes = sorted((Node(image) for image in engine.store.images.ls()), key=lambda node: node.layers)
    roots: list[Node] = []
    for number, node in enumerate(nodes):
        below = [other for other in nodes[:number] if 0 < other.layers < node.layers and _stands_on(node, other)]
        if below:
            base = max(below, key=lambda other: other.layers)
            node.own -= base.image.size
            base.children.append(node)
        else:
            roots.append(node)
    for node in nodes:
        node.children.sort(key=lambda child: child.names)
    return sorted(roots, key=lambda node: node.names)


def _stands_on(node: Node, base: Node) -> bool:
    return node.image.diff_ids[: base.layers] == base.image.diff_ids


def layers(engine: Engine, name: str) -> list[dict[str, object]]:
    """Give the layers of an image, lowest first: diff_id, size in bytes, what made it, and who else has it."""
    image = engine.images.resolve(name)
    sizes = {diff_id: size for diff_id, _, size in engine.store.snapshots.ls()}
    made = [row for row in image.config.get("history") or [] if not row.get("empty_layer")]
    others = [other for other in engine.store.images.ls() if other.id != image.id]
    rows: list[dict[str, object]] = []
    for number, diff_id in enumerate(image.diff_ids):
        users = [Node(other).names[0] for other in others if diff_id in other.diff_ids]
        by = str(made[number].get("created_by") or "") if number < len(made) else ""
        rows.append({"DiffID": diff_id, "Size": sizes.get(diff_id, 0), "CreatedBy": by, "SharedWith": sorted(users)})
    return rows


def diff(engine: Engine, before: str, after: str) -> Iterator[Difference]:
    """Give how the files of one image differ from those of another, by path: all of it, contents included."""
    from sampan.transfer import compare

    first, second = (_root(engine, engine.images.runnable(name)) for name in (before, after))
    return compare.differences(engine.host.facts, first, second)


def _root(engine: Engine, image: Image) -> Rootfs:
    from sampan.runtime.rootfs import Rootfs

    return Rootfs(engine.store.paths.snapshots, engine.store.snapshots.read_only(image.diff_ids))
