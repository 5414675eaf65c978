"""image: the tar that the engine imports, and the configuration beside it."""

from __future__ import annotations

import io
import tarfile

import pytest

from sampan.bootstrap.image import config_for, layers_for, tar
from sampan.bootstrap.tree import Node
from sampan.errors import InvalidArgument, NotFound


def test_the_tar_holds_what_was_listed_owned_by_root() -> None:
    long_name = "/" + "d" * 150
    nodes = [
        Node("/bin", "L", 0o777, target="usr/bin"),
        Node(long_name, "D", 0o1777),
        Node(f"{long_name}/\udcff", "F", 0o640, mtime=12, data=b"x" * 700),
    ]
    data = b"".join(tar(iter(nodes)))
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        link, directory, file = archive.getmembers()
        content = archive.extractfile(file)
        assert content is not None
        assert content.read() == b"x" * 700
    assert (link.issym(), link.linkname) == (True, "usr/bin")
    assert (directory.isdir(), directory.mode, directory.name) == (True, 0o1777, long_name[1:])
    assert (file.mode, file.mtime, file.uid, file.gid, file.name[-1]) == (0o640, 12, 0, 0, "\udcff")


def test_two_runs_give_the_same_bytes() -> None:
    assert b"".join(layers_for("host", ["true"])) == b"".join(layers_for("host", ["true"]))


def test_config() -> None:
    assert config_for("host")["Cmd"] == ["/bin/sh"]
    assert config_for("debian:bookworm")["Env"][0].startswith("PATH=/usr/local/sbin:")


@pytest.mark.parametrize("spec", ["", "host:x", "debian", "debian:", "alpine:3.20", "hosts"])
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="not a kind of base image"):
        layers_for(spec)
    with pytest.raises(InvalidArgument, match="not a kind of base image"):
        config_for(spec)


def test_errors_come_before_the_first_byte() -> None:
    with pytest.raises(NotFound, match="nonesuch"):
        layers_for("host", ["nonesuch"])
