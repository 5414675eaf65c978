"""What the tests of cp share: a container with files and links of every kind, and what there is on both sides."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import tarfile

from waiting import until

import sampan
from sampan.oci.options import RunOptions

ROOT = os.geteuid() == 0
SETUP = """mkdir -p /d/sub /e /links
echo f >/f; echo x >/d/x; echo y >/d/sub/y; echo old >/e/f
ln -s /d /links/dir; ln -s /f /links/file; ln -s ../../../../f /links/up
ln -s /nowhere /links/dangling; ln -s / /links/root; chmod 4755 /f
: >/ready; exec sleep 1000"""
RUNNING, ENDED = "running", "ended"


def options(*command: str, **settings: object) -> RunOptions:
    chosen = RunOptions()
    chosen.command = list(command)
    for key, value in settings.items():
        setattr(chosen, key, value)
    return chosen


def said(engine: sampan.Engine, name: str, script: str) -> str:
    words = engine.command(["exec", name, "sh", "-c", script])
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def ready(engine: sampan.Engine, name: str) -> None:
    upper = engine.store.paths.container(engine.containers.get(name).id) + "/upper/ready"
    until(lambda: os.path.exists(upper))


def tree(top: pathlib.Path) -> dict[str, str]:
    found = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        found[name] = f"-> {os.readlink(path)}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


def inside(engine: sampan.Engine, name: str) -> dict[str, str]:
    """Give what the container's directories hold, as `tree` does, read through a tar."""
    data = io.BytesIO()
    engine.containers.read_archive(name, "/.", data.write)
    data.seek(0)
    found = {}
    with tarfile.open(fileobj=data) as tar:
        for member in tar:
            path = member.name.removeprefix("./")
            if path.split("/")[0] in ("f", "d", "e", "links", "new", "nowhere"):
                file = tar.extractfile(member) if member.isfile() else None
                found[path] = file.read().decode() if file else "/" if member.isdir() else f"-> {member.linkname}"
    return found
