"""Works on files below a root through the helper: apply entries, pack entries, in the same namespaces as a container.

A root is an overlay of layers (with or without an upper directory) or one plain directory.  Facts with id maps, and
with the directory to mount roots at, come from the caller (engine.host.Host.facts).
"""

from __future__ import annotations

import os

from sampan.errors import SampanError, Unavailable
from sampan.runtime import compile, launch, mounts
from sampan.runtime import plan as p
from sampan.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sampan.oci.entry import Content, Entry
    from sampan.runtime.compile import Facts
    from sampan.runtime.launch import Child
    from sampan.runtime.tree import Applier


class Rootfs:
    """Name a root: `lowers` top first and relative to `snapshots`, `upper` and `work`; or a plain `directory`."""

    __slots__ = ("directory", "lowers", "snapshots", "upper", "work")

    def __init__(
        self, snapshots: str = "", lowers: list[str] | None = None, upper: str = "", work: str = "", directory: str = ""
    ) -> None:
        self.snapshots = snapshots
        self.lowers = lowers or []
        self.upper = upper
        self.work = work
        self.directory = directory


def opaque_name(rootless: bool) -> str:
    """Give the xattr that marks an opaque directory in a layer directory on this host."""
    return "user.overlay.opaque" if rootless else "trusted.overlay.opaque"


def set_root(facts: Facts, root: Rootfs) -> None:
    """Put the root into the facts; what it is mounted at, in the private namespace, is made if it is missing."""
    facts.snapshots, facts.lowers, facts.upper, facts.work = root.snapshots, root.lowers, root.upper, root.work
    facts.rootdir = root.directory
    facts.transient = True
    os.makedirs(facts.target, mode=0o700, exist_ok=True)


def _tree_plan(facts: Facts, code: int, base: str, flags: int, verb: str) -> Plan:
    plan = Plan()
    facts.stdio = p.NULL_OUT
    compile.supervisor(plan, facts)
    plan.add(
        p.CLONE, flags=p.CLONE_NEWNS | (p.CLONE_NEWUSER if facts.rootless else 0), label="create namespaces: mount"
    )
    if facts.rootless:
        compile.become_root(plan, facts)
    mounts.root(plan, facts)
    plan.add(p.PIVOT, facts.target, label="enter it (chroot)")
    plan.add(p.DETACH, label="make it the root, and take the host's file systems away (pivot_root)")
    plan.add(p.NO_DEVICES, label="let no device be opened")
    plan.add(code, base, opaque_name(facts.rootless), flags=flags, label=verb)
    return plan


def start(plan: Plan, tree_in: int, tree_out: int, target: int = -1) -> Child:
    """Start a plan that ends in APPLY or PACK; `target` is a pidfd of the container that an ENTER joins."""
    child = launch.start(plan, -1, -1, -1, tree_in=tree_in, tree_out=tree_out, target=target)
    try:
        return child.await_start()
    except launch.StartFailure as failure:
        raise launch.translate(failure) from failure
    except BaseException:
        child.close()
        raise


def open_apply(facts: Facts, root: Rootfs, base: str = "", *, flags: int) -> tuple[int, Child]:
    """Start an apply below `base`; write entries to the descriptor, close it, then wait for the child.

    Devices and owners that this user may not make are recorded, for whoever packs the tree again.
    """
    set_root(facts, root)
    plan = _tree_plan(facts, p.APPLY, base, flags | best_effort(facts), "write files")
    return fed(lambda source, sink: start(plan, source, sink))


def best_effort(facts: Facts) -> int:
    """Give the flags of an apply by which what this user may not make is recorded."""
    from sampan.runtime import tree

    nodes = tree.BEST_EFFORT_NODES if facts.rootless else 0
    return nodes | (tree.BEST_EFFORT_IDS if facts.single_id else 0)


def fed(begin: Callable[[int, int], Child]) -> tuple[int, Child]:
    """Start a child that reads from a pipe and writes nothing; give the end to write to, and the child."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        child = begin(read, null)
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
        os.close(null)
    return write, child


def send(write: int, child: Child, give: Callable[[Applier], object]) -> None:
    """Send entries to a running apply and wait until they are written; what failed first is raised."""
    from sampan.runtime import tree

    try:
        applier = tree.Applier(write, child.wait)
        give(applier)
        applier.end()
    except BaseException:
        os.close(write)
        settle(child)
        raise
    os.close(write)
    ended = child.wait()
    if ended.code:
        raise Unavailable(f"cannot write files: the helper ended with {ended.code}")


def settle(child: Child) -> None:
    """Wait until the helper has left the tree; why it failed is being raised already."""
    try:
        child.wait()
    except SampanError:
        return


def open_pack(facts: Facts, root: Rootfs, flags: int = 0) -> tuple[int, int, Child]:
    """Start a pack of the whole tree; give the descriptor to read entries from, the one for requests, and the child.

    What an ordinary user could not make shows as it was recorded.
    """
    from sampan.runtime import tree

    flags |= tree.RECORDED if facts.rootless else 0
    set_root(facts, root)
    return piped(lambda source, sink: start(_tree_plan(facts, p.PACK, "", flags, "read files"), source, sink))


def packed(facts: Facts, root: Rootfs, flags: int = 0) -> Generator[tuple[Entry, Content], None, None]:
    """Give the entries of a whole tree in order, the root's first; closed before the end it ends the helper."""
    from sampan.runtime import tree

    read, request, child = open_pack(facts, root, flags)
    os.close(request)
    try:
        yield from tree.Packer(read, reason=child.wait)
    except BaseException:
        os.close(read)
        settle(child)
        raise
    os.close(read)
    child.wait()


def piped(begin: Callable[[int, int], Child]) -> tuple[int, int, Child]:
    """Start a child between two pipes; give the end to read from, the one to write to, and the child."""
    out_read, out_write = os.pipe()
    in_read, in_write = os.pipe()
    try:
        child = begin(in_read, out_write)
    except BaseException:
        os.close(out_read)
        os.close(in_write)
        raise
    finally:
        os.close(in_read)
        os.close(out_write)
    return out_read, in_write, child
