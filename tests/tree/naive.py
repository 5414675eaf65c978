"""An extractor that believes everything, the control of the containment tests: real attacks harm it."""

from __future__ import annotations

import io
import os
import shutil
import tarfile


def extract(root: str, data: bytes) -> None:
    """Unpack as the simplest program would: paths joined to the root, the kernel resolves them."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        for info in tar:
            try:
                one(root, os.path.join(root, raw_name(info)), info, tar)
            except OSError:
                continue


def raw_name(info: tarfile.TarInfo) -> str:
    return str(info.pax_headers.get("path", info.name)) or "."


def one(root: str, path: str, info: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    directory, name = os.path.split(path)
    if name == ".wh..wh..opq":
        for inside in os.listdir(directory):
            remove(os.path.join(directory, inside))
        return
    if name.startswith(".wh."):
        remove(os.path.join(directory, name[4:]))
        return
    os.makedirs(directory, exist_ok=True)
    if info.isdir():
        os.makedirs(path, exist_ok=True)
    elif info.issym():
        remove(path)
        os.symlink(info.linkname, path)
        return
    elif info.islnk():
        remove(path)
        os.link(os.path.join(root, info.linkname), path)
    elif info.isfifo():
        os.mkfifo(path)
    elif info.ischr() or info.isblk():
        os.mknod(path, 0o600 | (0o020000 if info.ischr() else 0o060000), os.makedev(info.devmajor, info.devminor))
    else:
        source = tar.extractfile(info)
        assert source
        with open(path, "wb") as file:
            file.write(source.read())
    os.chown(path, info.uid, info.gid)
    os.chmod(path, info.mode)
    os.utime(path, (info.mtime, info.mtime))


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
