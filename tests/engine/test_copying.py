"""cp: Docker's rules for names, links and owners."""

from __future__ import annotations

import fcntl
import io
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import termios
from typing import IO

import pytest
from copysupport import ENDED, ROOT, RUNNING, SETUP, inside, options, ready, said, tree
from waiting import until

import sampan
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError

# What docker 20.10 did with the same files: what appears or changes, or None for a failure.
OUT = [
    ("/f", "e", {"e/f": "f\n"}),
    ("/f", "e/", {"e/f": "f\n"}),
    ("/f", "new", {"new": "f\n"}),
    ("/f", "new/", None),
    ("/f", "f", {"f": "f\n"}),
    ("/f", "nodir/x", None),
    ("/f/", "e", None),
    ("/f/.", "e", None),
    ("/d", "e", {"e/d": "/", "e/d/sub": "/", "e/d/sub/y": "y\n", "e/d/x": "x\n"}),
    ("/d/.", "e", {"e/sub": "/", "e/sub/y": "y\n", "e/x": "x\n"}),
    ("/d/", "new/", {"new": "/", "new/sub": "/", "new/sub/y": "y\n", "new/x": "x\n"}),
    ("/d/.", "new", {"new": "/", "new/sub": "/", "new/sub/y": "y\n", "new/x": "x\n"}),
    ("/d", "f", None),
    ("/d", "e/f/", None),
    ("/links/dir", "e", {"e/dir": "-> /d"}),
    ("/links/dir/", "e", {"e/dir": "/", "e/dir/sub": "/", "e/dir/sub/y": "y\n", "e/dir/x": "x\n"}),
    ("-L/links/file", "e", {"e/file": "f\n"}),
    ("-L/links/dangling", "e", None),
    ("/links/dangling", "e", {"e/dangling": "-> /nowhere"}),
    ("d/../f", "dir", {"d/f": "f\n"}),
    ("/f", "file", {"f": "f\n"}),
    ("/f", "dangling", {"nowhere": "f\n"}),
    ("/e", "e", {"e/e": "/", "e/e/f": "old\n"}),
    ("/none", "e", None),
]
IN = [
    ("f", "/e", {"e/f": "hf"}),
    ("f", "e/", {"e/f": "hf"}),
    ("f", "/new", {"new": "hf"}),
    ("f", "/new/", None),
    ("f", "/nodir/x", None),
    ("f/", "/e", None),
    ("d", "/e", {"e/d": "/", "e/d/sub": "/", "e/d/sub/y": "hy", "e/d/x": "hx"}),
    ("d/.", "/e", {"e/sub": "/", "e/sub/y": "hy", "e/x": "hx"}),
    ("d/", "/new/", {"new": "/", "new/sub": "/", "new/sub/y": "hy", "new/x": "hx"}),
    ("d", "/f", None),
    ("d", "/", {"d/sub/y": "hy", "d/x": "hx"}),
    ("dir", "/e", {"e/dir": "-> d"}),
    ("dir/.", "/e", {"e/sub": "/", "e/sub/y": "hy", "e/x": "hx"}),
    ("-Lfile", "/new", {"new": "hf"}),
    ("-Ldangling", "/e", None),
    ("none", "/e", None),
    ("f", "/links/dir", {"d/f": "hf"}),
    ("f", "/links/up", {"f": "hf"}),
    ("f", "/links/dangling", {"nowhere": "hf"}),
    ("f", "/e/f/", None),
]


def test_out_follows_dockers_rules(engine: sampan.Engine, box: str, host: pathlib.Path) -> None:
    before = tree(host)
    for source, destination, expected in OUT:
        follow, path = source.startswith("-L"), source.removeprefix("-L")
        try:
            engine.containers.copy_out(box, path, f"{host}/{destination}", follow_link=follow)
        except (NotFound, Conflict, InvalidArgument):
            assert expected is None, (source, destination)
        else:
            assert expected is not None, (source, destination)
        now = tree(host)
        assert {key: now[key] for key in now if now[key] != before.get(key)} == (expected or {}), (source, destination)
        for key in sorted(now, reverse=True):  # back to the beginning
            if key not in before:
                (host / key).rmdir() if now[key] == "/" else (host / key).unlink()
            elif now[key] != before[key]:
                (host / key).write_text(before[key])


@pytest.mark.parametrize("state", [RUNNING, ENDED])
def test_in_follows_dockers_rules(engine: sampan.Engine, host: pathlib.Path, state: str) -> None:
    for source, destination, expected in IN:
        name = engine.containers.create("base", options("sh", "-c", SETUP))
        try:
            engine.containers.start(name)
            ready(engine, name)
            if state != RUNNING:
                engine.containers.kill(name)
                engine.containers.wait(name)
            before = inside(engine, name)
            follow, path = source.startswith("-L"), source.removeprefix("-L")
            try:
                engine.containers.copy_in(name, f"{host}/{path}", destination, follow_link=follow)
            except (NotFound, Conflict, InvalidArgument):
                assert expected is None, (source, destination)
            else:
                assert expected is not None, (source, destination)
            now = inside(engine, name)
            assert {key: now[key] for key in now if now[key] != before.get(key)} == (expected or {}), source
        finally:
            engine.containers.remove(name, force=True)


def test_owners_and_rights(engine: sampan.Engine, running: str, host: pathlib.Path) -> None:
    os.chmod(host / "f", 0o640)
    os.utime(host / "f", (1_000_000_000, 1_000_000_000))
    engine.containers.copy_in(running, str(host / "f"), "/mine")
    assert said(engine, running, "stat -c '%u:%g %a %Y' /mine") == "0:0 640 1000000000\n"
    engine.containers.copy_out(running, "/f", str(host / "out"))
    found = os.stat(host / "out")
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
    assert found.st_mode & 0o7777 == 0o755, "a set-user-ID bit of a container gives nobody rights on the host"


@pytest.mark.skipif(not ROOT, reason="sets owners: needs root")
def test_archive_keeps_owners_both_ways(engine: sampan.Engine, running: str, host: pathlib.Path) -> None:
    os.chown(host / "f", 1234, 2345)
    engine.containers.copy_in(running, str(host / "f"), "/kept", archive=True)
    assert said(engine, running, "stat -c %u:%g /kept") == "1234:2345\n"
    engine.containers.copy_out(running, "/kept", str(host / "back"), archive=True)
    assert (os.stat(host / "back").st_uid, os.stat(host / "back").st_gid) == (1234, 2345)


def test_sparse_files_hard_links_and_large_ones(engine: sampan.Engine, running: str, host: pathlib.Path) -> None:
    big = host / "big"
    big.mkdir()
    with open(big / "sparse", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    (big / "random").write_bytes(os.urandom(5 << 20))
    os.link(big / "random", big / "zlink")
    engine.containers.copy_in(running, str(big), "/")
    words = said(engine, running, "stat -c '%s %b' /big/sparse; stat -c '%h' /big/random").split()
    assert words[0] == str((64 << 20) + 3) and int(words[1]) < 1000 and words[2] == "2"
    engine.containers.copy_out(running, "/big", str(host / "back"))
    assert (host / "back/random").read_bytes() == (big / "random").read_bytes()
    assert os.stat(host / "back/sparse").st_blocks < 1000
    assert os.path.samefile(host / "back/random", host / "back/zlink")


def test_deep_directories_go_both_ways(engine: sampan.Engine, running: str, tmp_path: pathlib.Path) -> None:
    deep = tmp_path / "deep"
    deep.joinpath(*["d"] * 450).mkdir(parents=True)
    engine.containers.copy_in(running, str(deep), "/")
    engine.containers.copy_out(running, "/deep", str(tmp_path / "back"))
    assert tree(tmp_path / "back") == tree(deep) != {}


def test_tars_go_in_and_out(engine: sampan.Engine, box: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in (("one", b"1"), ("/../two", b"2"), ("dir/three", b"3")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    engine.containers.write_archive(box, "/d", io.BytesIO(data.getvalue()).read)
    out = io.BytesIO()
    engine.containers.read_archive(box, "/d", out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert {"d", "d/one", "d/two", "d/dir/three", "d/x"} <= set(tar.getnames())
    with pytest.raises(Conflict):
        engine.containers.write_archive(box, "/f", io.BytesIO(data.getvalue()).read)
    with pytest.raises(SampanError):
        engine.containers.write_archive(box, "/d", io.BytesIO(b"no archive").read)


def left_in(pipe: IO[bytes] | None) -> int:
    """Count the bytes of a pipe that nobody has read (pipe(7): FIONREAD)."""
    assert pipe is not None
    count = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def test_an_interrupt_ends_a_copy(engine: sampan.Engine, running: str) -> None:
    child = subprocess.Popen(engine.command(["cp", "-", f"{running}:/d"]), stdin=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None
    half = tarfile.TarInfo("half")
    half.size = 1 << 30
    child.stdin.write(half.tobuf() + b"some of it")
    until(lambda: not left_in(child.stdin))  # it reads
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert said(engine, running, "cat /d/x") == "x\n"
    child.stdin.close()


@pytest.mark.parametrize(
    "words",
    [
        ("a", "b"),
        ("{}:/f", "{}:/g"),
        ("no-such:/f", "."),
        ("{}:", "."),
        ("{}:/f", ""),
        ("{}:/none", "."),
        ("/", "{}:/dev/null"),
    ],
)
def test_mistakes_are_told_in_a_line(engine: sampan.Engine, running: str, words: tuple[str, str]) -> None:
    done = subprocess.run(
        engine.command(["cp", *(word.format(running) for word in words)]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("sampan: ") and "Traceback" not in done.stderr


@pytest.mark.skipif(not ROOT, reason="makes devices")
@pytest.mark.parametrize(("count", "words"), [(1, "1 device file was left out"), (2, "2 device files were left out")])
def test_what_is_left_out_is_counted_in_its_number(
    engine: sampan.Engine, count: int, words: str, tmp_path: pathlib.Path
) -> None:
    told: list[str] = []
    other = sampan.Engine(engine.store.paths.root, warn=told.append)
    made = str(other.containers.create("base", options("true")))
    upper = other.store.paths.container(other.containers.get(made).id) + "/upper"
    os.makedirs(f"{upper}/devices")
    for number in range(count):
        os.mknod(f"{upper}/devices/{number}", 0o20600, os.makedev(1, 3))
    other.containers.copy_out(made, "/devices", str(tmp_path / "out"))
    other.containers.remove(made)
    other.close()
    assert [text for text in told if text.startswith(words)]
