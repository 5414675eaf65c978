"""Owners and devices that an ordinary user cannot make: images keep them through load, save, COPY and export."""

from __future__ import annotations

import io
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from transfersupport import config, docker_files, member, tar, tar_of

NOBODYS = 54321  # in no /etc/passwd, so without a range in /etc/subuid
ROOT = Path(__file__).parents[2]
DOCKERFILE = "FROM dev:1\nCOPY x /srv/x\nCOPY --chown=40:41 x /srv/y\nCOPY --from=dev:1 /srv /copied\n"


def owned(
    name: str, type: bytes = tarfile.REGTYPE, data: bytes = b"", mode: int = 0o755, uid: int = 0, gid: int = 0
) -> tuple[tarfile.TarInfo, bytes]:
    info, data = member(name, data, type, mode=mode)
    info.uid, info.gid = uid, gid
    return info, data


def layer() -> bytes:
    device = owned("node/sda", tarfile.BLKTYPE, mode=0o660, gid=6)
    device[0].devmajor, device[0].devminor = 8, 1
    files = [owned("srv", tarfile.DIRTYPE, uid=33, gid=33), owned("srv/www", data=b"hello", mode=0o640, uid=33, gid=34)]
    return tar([owned("node", tarfile.DIRTYPE), device, *files, owned("srv/dir", tarfile.DIRTYPE, uid=1, gid=2)])


@pytest.fixture
def sampan_as_nobody(tmp_path: Path) -> list[str]:
    """The command as an ordinary user; as root, one that has no subordinate ids."""
    words = [sys.executable, "-m", "sampan"]
    if os.geteuid():
        return words
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/tmp") and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    prefix = ["setpriv", "--reuid", str(NOBODYS), "--regid", str(NOBODYS), "--clear-groups"]
    words = [*prefix, *words]
    if subprocess.run([*prefix, "unshare", "-r", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces for ordinary users here")
    probe = [*words[:-2], "-c", "import sampan.runtime.launch as launch; launch.helper_path()"]
    if subprocess.run(probe, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("another user may not read this checkout")
    return words


def test_nothing_is_lost_on_the_way_through(sampan_as_nobody: list[str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "context").mkdir(parents=True)
    (work / "context" / "Dockerfile").write_text(DOCKERFILE)
    (work / "context" / "x").write_text("x")
    (work / "a.tar").write_bytes(tar_of(docker_files([layer()], ["dev:1"], config([layer()]))))
    if not os.geteuid():
        for path in (work, *work.rglob("*")):
            os.chown(path, NOBODYS, NOBODYS)
    env = {**os.environ, "SAMPAN_ROOT": f"{work}/store", "HOME": str(work), "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> bytes:
        done = subprocess.run([*sampan_as_nobody, *arguments], cwd=work, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    run("load", "-i", "a.tar")
    with tarfile.open(fileobj=io.BytesIO(run("save", "dev:1"))) as saved:
        blobs = [file.read() for info in saved if (file := saved.extractfile(info))]
    assert layer() in blobs
    run("build", "-q", "-t", "built", "context")
    run("create", "--name", "one", "built", "none")
    with tarfile.open(fileobj=io.BytesIO(run("export", "one"))) as exported:
        found = {info.name: (info.type, info.mode, info.uid, info.gid, info.devmajor) for info in exported}
    directory, file = tarfile.DIRTYPE, tarfile.REGTYPE
    assert found["node/sda"] == (tarfile.BLKTYPE, 0o660, 0, 6, 8)
    assert found["srv"] == found["copied"] == (directory, 0o755, 33, 33, 0)
    assert found["srv/www"] == found["copied/www"] == (file, 0o640, 33, 34, 0)
    assert found["srv/dir"] == found["copied/dir"] == (directory, 0o755, 1, 2, 0)
    assert found["srv/x"][2:4] == (0, 0) and found["srv/y"][2:4] == (40, 41)


def user_with_a_range() -> str:
    """Find a user whom /etc/subuid gives ids; skip without one."""
    known = {user.pw_name for user in pwd.getpwall() if user.pw_uid}
    text = Path("/etc/subuid").read_text() if os.path.exists("/etc/subuid") else ""
    names = [line.partition(":")[0] for line in text.splitlines()]
    if os.geteuid() or not shutil.which("newuidmap") or not known.intersection(names):
        pytest.skip("needs root, newuidmap and a user with a range in /etc/subuid")
    return next(name for name in names if name in known)


def test_owners_beyond_the_range_are_recorded_but_not_of_set_id_programs(
    sampan_as_nobody: list[str], tmp_path: Path
) -> None:
    name, beyond = user_with_a_range(), 4_000_000_000
    user = pwd.getpwnam(name)
    plain = tar([owned("dir", tarfile.DIRTYPE, uid=beyond), owned("dir/file", data=b"x", uid=beyond, gid=7)])
    program = tar([owned("program", data=b"x", uid=beyond, mode=0o4755)])
    for layer, tag in ((plain, "plain:1"), (program, "program:1")):
        (tmp_path / f"{tag}.tar").write_bytes(tar_of(docker_files([layer], [tag], config([layer]))))
    (tmp_path / "work").mkdir()
    os.chown(tmp_path / "work", user.pw_uid, user.pw_gid)
    words = ["setpriv", "--reuid", name, "--regid", str(user.pw_gid), "--init-groups", *sampan_as_nobody[-3:]]
    env = {"PATH": os.environ["PATH"], "SAMPAN_ROOT": f"{tmp_path}/work/store", "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        environ = env | {"HOME": str(tmp_path / "work")}
        return subprocess.run([*words, *arguments], cwd=tmp_path, env=environ, capture_output=True, check=False)

    loaded = run("load", "-i", "plain:1.tar")
    assert loaded.returncode == 0, loaded.stderr
    run("create", "--name", "one", "plain:1", "none")
    with tarfile.open(fileobj=io.BytesIO(run("export", "one").stdout)) as exported:
        found = {info.name: (info.uid, info.gid) for info in exported}
    assert found["dir"] == (beyond, 0) and found["dir/file"] == (beyond, 7)
    assert run("system", "check").returncode == 0
    refused = run("load", "-i", "program:1.tar")
    assert refused.returncode == 1 and b"cannot set the owner of program" in refused.stderr
