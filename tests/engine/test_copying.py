"""cp: Docker's rules for names, links and owners; and whatever a container does, nothing outside it is touched."""

from __future__ import annotations

import io
import os
import pathlib
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest

import sampan
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError
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
    for _ in range(3000):
        if os.path.exists(upper):
            return
        time.sleep(0.02)
    raise AssertionError(f"container {name} did not begin")


@pytest.fixture(params=[RUNNING, ENDED])
def box(engine: sampan.Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    made = engine.containers.run(options("sh", "-c", SETUP), image="base", detach=True)
    name = str(made)
    ready(engine, name)
    if request.param == ENDED:
        engine.containers.kill(name)
        engine.containers.wait(name)
    yield name
    engine.containers.remove(name, force=True)


@pytest.fixture
def running(engine: sampan.Engine) -> Iterator[str]:
    name = str(engine.containers.run(options("sh", "-c", SETUP), image="base", detach=True))
    ready(engine, name)
    yield name
    engine.containers.remove(name, force=True)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> pathlib.Path:
    top = tmp_path / "host"
    for name, text in (("f", "hf"), ("d/x", "hx"), ("d/sub/y", "hy"), ("e/f", "old")):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "dir").symlink_to("d")
    (top / "file").symlink_to("f")
    (top / "dangling").symlink_to("nowhere")
    return top


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


def test_files_of_the_kernel_are_refused(engine: sampan.Engine, running: str, tmp_path: pathlib.Path) -> None:
    """Their sizes are 0: a copy would be empty."""
    for path in ("/proc/cpuinfo", "/proc", "/sys/kernel"):
        with pytest.raises(SampanError, match="not supported"):
            engine.containers.copy_out(running, path, str(tmp_path / "out"))
    assert not (tmp_path / "out").is_file()


def test_mounts_of_a_running_container_are_seen(engine: sampan.Engine, host: pathlib.Path) -> None:
    mounts = [("volume", "copied", "/v", ["rw"]), ("bind", str(host), "/h", ["ro"])]
    chosen = options("sh", "-c", "echo t >/t/x; : >/ready; exec sleep 1000", mounts=mounts, tmpfs=["/t"])
    name = str(engine.containers.run(chosen, image="base", detach=True))
    try:
        ready(engine, name)
        engine.containers.copy_in(name, str(host / "f"), "/v/f")
        engine.containers.copy_in(name, str(host / "f"), "/t/f")
        assert said(engine, name, "cat /v/f /t/f /t/x") == "hfhft\n"
        engine.containers.copy_out(name, "/t/x", str(host / "out"))
        assert (host / "out").read_text() == "t\n"
        with pytest.raises(SampanError, match="Read-only"):
            engine.containers.copy_in(name, str(host / "f"), "/h/g")
        engine.containers.kill(name)
        engine.containers.wait(name)
        engine.containers.copy_in(name, str(host / "d"), "/v/")
        with pytest.raises(SampanError, match="Read-only"):
            engine.containers.copy_in(name, str(host / "f"), "/h/g")
        engine.containers.copy_out(name, "/v", str(host / "volume"))
        assert tree(host / "volume") == {"f": "hf", "d": "/", "d/sub": "/", "d/sub/y": "hy", "d/x": "hx"}
    finally:
        engine.containers.remove(name, force=True)
        engine.store.volumes.remove("copied")


def test_the_kernels_files_are_not_copied_with_the_root(
    engine: sampan.Engine, running: str, tmp_path: pathlib.Path
) -> None:
    names: list[str] = []
    data = io.BytesIO()
    engine.containers.read_archive(running, "/", data.write)
    data.seek(0)
    with tarfile.open(fileobj=data) as tar:
        names = tar.getnames()
    assert "proc" in names and "sys" in names and "f" in names and "dev/zero" in names
    assert not [name for name in names if name.startswith(("proc/", "sys/"))]


def test_no_device_is_ever_opened(engine: sampan.Engine, running: str, tmp_path: pathlib.Path) -> None:
    """The helper's view of a running container, with a program in the place of the packer."""
    from sampan.engine.access import Files
    from sampan.runtime import launch
    from sampan.runtime import plan as p

    def code(plan: p.Plan) -> int:
        plan.add(p.EXEC, "/usr/bin/head", "head", "-c1", "/dev/zero", flags=1)
        record = engine.containers.get(running)
        target, null = os.pidfd_open(record.pid), os.open("/dev/null", os.O_RDWR)
        try:
            return launch.start(plan, null, null, null, target=target).await_start().wait().code
        finally:
            os.close(target)
            os.close(null)

    with Files(engine, running) as files:
        plan = files._joined()
        assert plan.operations[-1].code == p.NO_DEVICES
        assert code(plan) == 1
        naive = files._joined()
        naive.operations = [operation for operation in naive.operations if operation.code != p.NO_DEVICES]
        assert code(naive) == 0, "without it the device is read"


def test_a_read_only_container_is_refused(engine: sampan.Engine, host: pathlib.Path) -> None:
    name = engine.containers.create("base", options("sleep", "1000", read_only=True))
    for _ in range(2):
        with pytest.raises(SampanError, match="Read-only"):
            engine.containers.copy_in(name, str(host / "f"), "/x")
        engine.containers.start(name)
    engine.containers.remove(name, force=True)


def test_links_resolve_in_the_container(engine: sampan.Engine, box: str, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    link = tmp_path / "link"
    link.symlink_to(canary)
    engine.containers.copy_in(box, str(link), "/links/evil")
    upper = engine.store.paths.container(engine.containers.get(box).id) + "/upper/links/evil"
    if ROOT:
        with open(upper, encoding="ascii") as naive:
            assert naive.read() == "secret", "who opens the path on the host is led out"
    for path in ("/links/evil", f"/links/root{canary}", f"/links/root/../../..{canary}"):
        with pytest.raises(NotFound):
            engine.containers.copy_out(box, path, str(tmp_path / "out"), follow_link=True)
    other = tmp_path / "new"
    other.write_text("overwritten")
    with pytest.raises(NotFound):  # its directory is not there, in the container
        engine.containers.copy_in(box, str(other), "/links/evil")
    assert canary.read_text() == "secret"


def test_a_copied_link_is_not_followed_on_the_host(engine: sampan.Engine, box: str, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    top = tmp_path / "out"
    (top / "d").mkdir(parents=True)
    (top / "d/sub").symlink_to(canary)
    with pytest.raises(Conflict):
        engine.containers.copy_out(box, "/d", str(top))
    (top / "d/sub").unlink()
    (top / "d/x").symlink_to(canary / "written")
    engine.containers.copy_out(box, "/d", str(top))
    assert os.listdir(canary) == [] and (top / "d/x").read_text() == "x\n"


def test_a_container_that_swaps_directories_stays_alone(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    script = f"""mkdir -p /real /w; ln -s {canary} /trap; : >/ready
while :; do rm -rf /w/d; ln -s {canary} /w/d; rm /w/d; mkdir -p /w/d; done"""
    name = str(engine.containers.run(options("sh", "-c", script), image="base", detach=True))
    source = tmp_path / "d"
    source.mkdir()
    (source / "file").write_text("x")
    try:
        ready(engine, name)
        for number in range(20):
            try:
                engine.containers.copy_in(name, str(source), "/w")
                engine.containers.copy_out(name, "/w", str(tmp_path / f"out{number}"))
            except SampanError:
                continue  # it was in the way: what counts is where nothing was written
        assert os.listdir(canary) == []
    finally:
        engine.containers.remove(name, force=True)


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


def test_a_full_disk_inside_and_a_full_one_outside(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (3 << 20))
    name = str(engine.containers.run(options("sleep", "1000", tmpfs=["/t:size=1m"]), image="base", detach=True))
    try:
        with pytest.raises(SampanError, match="No space"):
            engine.containers.copy_in(name, str(tmp_path / "big"), "/t/big")
        engine.containers.copy_in(name, str(tmp_path / "big"), "/big")
        words = " ".join(f"'{word}'" for word in engine.command(["cp", f"{name}:/big", str(tmp_path / "out")]))
        done = subprocess.run(
            ["sh", "-c", f"ulimit -f 4096; exec {words}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "File too large" in done.stderr
        assert os.listdir(tmp_path) == ["big"], "no half of a file is left"
    finally:
        engine.containers.remove(name, force=True)


def test_an_interrupt_ends_a_copy(engine: sampan.Engine, running: str) -> None:
    child = subprocess.Popen(engine.command(["cp", "-", f"{running}:/d"]), stdin=subprocess.PIPE)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert said(engine, running, "cat /d/x") == "x\n"
    assert child.stdin is not None
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


def test_links_in_a_circle_are_called_that(engine: sampan.Engine, box: str, tmp_path: pathlib.Path) -> None:
    circle = tmp_path / "circle"
    circle.mkdir()
    (circle / "a").symlink_to("b")
    (circle / "b").symlink_to("a")
    engine.containers.copy_in(box, str(circle), "/circle")
    for inner in ("/circle/a", "/circle/a/below", "/circle/a/"):
        with pytest.raises(NotFound, match="too many levels of symbolic links"):
            engine.containers.copy_out(box, inner, str(tmp_path / "out"), follow_link=True)
        with pytest.raises(SampanError, match="(?i)too many levels of symbolic links"):
            engine.containers.copy_in(box, str(tmp_path) + inner, "/in", follow_link=True)
    with pytest.raises(NotFound, match="there is no such file in the container"):
        engine.containers.copy_out(box, "/links/dangling", str(tmp_path / "out"), follow_link=True)
    assert not (tmp_path / "out").exists()


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
    other.close()
    assert [text for text in told if text.startswith(words)]
