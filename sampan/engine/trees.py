"""Removes directories, also those whose files belong to an ordinary user's mapped ids or are 0000."""

from __future__ import annotations

import os

from sampan.errors import SampanError
from sampan.store import files

_DEPTH = 100

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine


def remove_tree(engine: Engine, path: str) -> None:
    """Remove `path` and everything below; what only the user namespace's root may remove is removed there."""
    try:
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, os.path.basename(path))
    except PermissionError:
        if not engine.host.rootless:
            raise
        try:
            _remove_mapped(engine, path)
        except (SampanError, FileNotFoundError):
            if os.path.lexists(path):
                raise
        _remove(parent, os.path.basename(path))
    finally:
        os.close(parent)


def remove_own(path: str) -> None:
    """Remove `path` and everything below where all of it is this user's own, also directories of mode 0000."""
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove(parent, os.path.basename(path))
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Remove one entry below a held directory, never following a link; somebody else may be doing the same.

    A directory below _DEPTH levels is first moved to the top: descriptors and levels stay few however deep the tree is.
    """
    if _unlinked(parent, name) or (fd := _enter(parent, name)) < 0:
        return
    stack = [(name, fd, _listed(fd))]
    try:
        while stack:
            name, fd, names = stack[-1]
            if not names:
                _remove_empty(stack[-2][1] if len(stack) > 1 else parent, name)
                os.close(stack.pop()[1])
                continue
            entry = names.pop()
            if _unlinked(fd, entry):
                continue
            if len(stack) > _DEPTH:
                stack[0][2].extend(_move_up(fd, entry, stack[0][1]))
            elif (below := _enter(fd, entry)) >= 0:
                stack.append((entry, below, _listed(below)))
    finally:
        for _, fd, _ in stack:
            os.close(fd)


def _unlinked(parent: int, name: str) -> bool:
    """Remove what is no directory, and say whether nothing is there any more."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _enter(parent: int, name: str) -> int:
    try:
        return _open(parent, name)
    except FileNotFoundError:
        return -1


def _listed(fd: int) -> list[str]:
    try:
        return os.listdir(fd)
    except FileNotFoundError:  # somebody else has removed the held directory: getdents64(2)
        return []


def _remove_empty(parent: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return  # the other one was faster


def _move_up(fd: int, entry: str, top: int) -> list[str]:
    name = f".sampan-{os.urandom(8).hex()}"
    try:
        os.rename(entry, name, src_dir_fd=fd, dst_dir_fd=top)
    except FileNotFoundError:
        return []
    return [name]


def _open(parent: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        # overlayfs's work directory is 0000; an image's directories may be anything.
        files.open_up(name, parent)
        return os.open(name, flags, dir_fd=parent)


def _remove_mapped(engine: Engine, path: str) -> None:
    """Empty the directory as root of the user namespace: an apply of whiteouts below it."""
    from sampan.oci.entry import Entry
    from sampan.runtime import rootfs
    from sampan.runtime.tree import MERGE, Applier

    names = os.listdir(path)
    write, child = rootfs.open_apply(engine.host.facts(), rootfs.Rootfs(directory=path), flags=MERGE)
    applier = Applier(write)
    for name in names:
        applier.entry(Entry("W", os.fsencode(name)))
    applier.end()
    os.close(write)
    child.wait()
