"""What others of the same machine prepare for us, and what keeps its devices where no control group can."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attackkit import ROOT, Image, command, table

import sampan
from sampan.errors import Denied

ANOTHER = 12345
CLOSED = (errno.EPERM, errno.EACCES)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_store_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "store"
    root.mkdir()
    (root / "something").touch()
    root.chmod(mode)
    with pytest.raises(Denied, match="other users may write to it") as caught:
        sampan.Engine(str(root)).images.ls()
    assert os.listdir(root) == ["something"] and f"{root}/sampan" in caught.value.hint
    assert root.stat().st_mode & 0o7777 == mode
    assert ("chmod" in caught.value.hint) == (mode != 0o1777)  # nobody is told to close /tmp


def test_an_empty_directory_that_is_open_to_all_is_closed_unless_it_is_everybodys(tmp_path: Path) -> None:
    """A pod's emptyDir has mode 0777."""
    for mode, expected in [(0o777, 0o755), (0o2775, 0o2755)]:
        root = tmp_path / f"store{mode:o}"
        root.mkdir()
        root.chmod(mode)
        assert sampan.Engine(str(root)).images.ls() == [] and root.stat().st_mode & 0o7777 == expected
    root = tmp_path / "everybodys"
    root.mkdir()
    root.chmod(0o1777)
    with pytest.raises(Denied):
        sampan.Engine(str(root)).images.ls()
    assert root.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775])
def test_a_store_that_its_owner_made_is_taken(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "store"
    root.mkdir()
    os.chown(root, -1, os.getegid())
    root.chmod(mode)
    assert sampan.Engine(str(root)).images.ls() == []


@pytest.mark.skipif(not ROOT, reason="needs root: directories of other users")
@pytest.mark.parametrize(("uid", "gid", "mode"), [(ANOTHER, 0, 0o755), (0, ANOTHER, 0o775)])
def test_a_store_of_somebody_else_is_refused_also_by_root(tmp_path: Path, uid: int, gid: int, mode: int) -> None:
    root = tmp_path / "store"
    root.mkdir()
    (root / "something").touch()
    os.chown(root, uid, gid)
    root.chmod(mode)
    with pytest.raises(Denied, match=str(ANOTHER) if uid else "others|other users"):
        sampan.Engine(str(root)).images.ls()
    assert os.listdir(root) == ["something"]


@pytest.mark.skipif(not ROOT, reason="needs root: links of other users")
def test_a_link_of_somebody_else_leads_to_no_store(tmp_path: Path) -> None:
    """He could lead it to elsewhere in the middle of a command, or to whatever directory of ours he likes."""
    own = tmp_path / "own"
    own.mkdir(mode=0o777)
    (tmp_path / "store").symlink_to(own)
    assert sampan.Engine(str(tmp_path / "store")).images.ls() == []
    shutil.rmtree(own)
    own.mkdir(mode=0o777)
    os.chown(tmp_path / "store", ANOTHER, -1, follow_symlinks=False)
    mode = own.stat().st_mode
    with pytest.raises(Denied, match=f"symbolic link of the user with id {ANOTHER}"):
        sampan.Engine(str(tmp_path / "store")).images.ls()
    assert not os.listdir(own) and own.stat().st_mode == mode


def test_sockets_are_not_looked_for_where_others_may_put_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who attaches hands its own standard streams to whatever listens there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    monkeypatch.setenv("SAMPAN_RUN", str(tmp_path / "run"))
    with pytest.raises(Denied, match="run-time state") as caught:
        sampan.Engine(str(tmp_path / "store")).images.ls()
    assert "SAMPAN_RUN" in caught.value.hint


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_a_run_directory_of_who_was_here_before_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `su`, or `sudo -E`."""
    (tmp_path / "theirs").mkdir(mode=0o500)
    monkeypatch.delenv("SAMPAN_ROOT", raising=False)
    monkeypatch.delenv("SAMPAN_RUN", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(Denied, match="run directory") as caught:
        sampan.Engine().images.ls()
    assert "XDG_RUNTIME_DIR" in caught.value.hint


# ---- devices without control groups ----

PLACES = ["/", "/dev", "/dev/shm", "/volume", "/memory"]
FLAGS = ["--tmpfs", "/memory:dev,exec"]
WITHOUT = {
    "none": "umount -R /sys/fs/cgroup; ! grep -q -e '- cgroup' /proc/self/mountinfo || exit 99; ",
    "read-only": "for m in $(awk '/ - cgroup/ { print $5 }' /proc/self/mountinfo); do"
    " mount -o remount,ro,bind $m; done; ",
}


@pytest.fixture(scope="module")
def noded(engine: sampan.Engine, attack: str) -> str:
    """An image that brings nodes of the first disk, one of them in a volume."""
    made = Image(attack).add("volume", kind=tarfile.DIRTYPE, mode=0o755)
    for name in ("given", "volume/given"):
        entry = tarfile.TarInfo(name)
        entry.type, entry.devmajor, entry.devminor, entry.mode = tarfile.BLKTYPE, 8, 0, 0o666
        made.tar.addfile(entry)
    return made.load(engine, "noded", ("VOLUME /volume",))


@pytest.fixture(params=WITHOUT)
def without_groups(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Words that run a command where no control group can be made."""
    script = f'mount --make-rprivate / && {{ {WITHOUT[request.param]}}}; exec "$@"'
    yield ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


needs_root = pytest.mark.skipif(
    not ROOT or not shutil.which("unshare"), reason="needs root and unshare(1); a user's containers can make no device"
)


def closed(output: bytes) -> bool:
    """Whether no node could be opened: made it may be, where a control group refuses the opening."""
    found = table(output)
    assert {f"open:{place}" for place in PLACES} <= found.keys(), output
    return all(found[f"open:{place}"] in CLOSED or found[f"mknod:{place}"] in CLOSED for place in PLACES) and all(
        found[f"given:{place}"] in (*CLOSED, errno.ENOENT) for place in PLACES
    )


@needs_root
def test_control_a_node_of_a_disk_can_be_opened_outside(attack: str, tmp_path: Path) -> None:
    done = subprocess.run([attack, "nodes", str(tmp_path)], capture_output=True, check=True)
    found = table(done.stdout)
    assert found[f"mknod:{tmp_path}"] == 0 and found[f"open:{tmp_path}"] not in CLOSED


@needs_root
def test_devices_stay_closed_where_no_group_can_be_made(
    engine: sampan.Engine, noded: str, without_groups: list[str]
) -> None:
    words = engine.command(["run", "--rm", *FLAGS, noded, "/attack", "nodes", *PLACES])
    done = subprocess.run([*without_groups, *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert closed(done.stdout), done.stdout
    assert closed(command(engine, "run", "--rm", *FLAGS, noded, "/attack", "nodes", *PLACES).stdout)  # with one


@needs_root
def test_devices_stay_closed_to_what_enters(engine: sampan.Engine, noded: str, without_groups: list[str]) -> None:
    try:
        words = engine.command(["run", "-d", "--name", "entered", *FLAGS, noded, "/attack", "sleep", "600"])
        done = subprocess.run([*without_groups, *words], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        for way in (without_groups, []):  # also from where groups can be made
            words = engine.command(["exec", "entered", "/attack", "nodes", *PLACES])
            done = subprocess.run([*way, *words], capture_output=True, check=False)
            assert done.returncode == 0 and closed(done.stdout), done
    finally:
        command(engine, "rm", "-f", "entered")


@needs_root
@pytest.mark.parametrize("flags", [["--cap-add", "SYS_ADMIN"], ["--device", "/dev/zero:/dev/z:r"]])
def test_what_could_not_be_kept_is_refused(engine: sampan.Engine, without_groups: list[str], flags: list[str]) -> None:
    words = engine.command(["run", "--rm", *flags, "base", "true"])
    done = subprocess.run([*without_groups, *words], capture_output=True, check=False)
    assert done.returncode == 125 and b"no control group can be made" in done.stderr, done
    assert command(engine, "run", "--rm", *flags, "base", "true").returncode == 0


@needs_root
def test_a_privileged_container_has_all_devices_all_the_same(engine: sampan.Engine, without_groups: list[str]) -> None:
    words = engine.command(["run", "--rm", "--privileged", "base", "head", "-c1", "/dev/zero"])
    done = subprocess.run([*without_groups, *words], capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout == b"\0", done
