"""What is detached goes on when the group of whoever started it ends, as a unit of systemd does. Needs root."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

import sampan
from sampan.engine import goingdown
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup, cgroupaway
from sampan.runtime.cgrouphost import Layout

ROOT = Path(__file__).parents[2]
LAYOUT = cgroup.detect()
JOIN = 'for g in $1; do echo 0 >"$g" || exit 99; done; shift; exec "$@"'
grouped = pytest.mark.skipif(os.geteuid() != 0 or not LAYOUT.v2_base, reason="needs root and a writable cgroup2")


@pytest.fixture
def unit() -> Iterator[Path]:
    """A group with a service's name, as systemd makes one."""
    path = Path(LAYOUT.v2_base, f"sampan-test-{os.getpid()}.service")
    path.mkdir()
    yield path
    until(lambda: not (path / "cgroup.procs").read_text())
    path.rmdir()


def inside(engine: sampan.Engine, groups: list[Path], *words: str) -> str:
    """Run sampan in groups; it must say nothing on standard error. Give its output."""
    command = [sys.executable, "-m", "sampan", "--root", engine.store.paths.root, *words]
    joined = ["sh", "-c", JOIN, "sh", " ".join(map(str, groups)), *command]
    done = subprocess.run(joined, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def tree(pid: int, name: str = "") -> str:
    """Give a process's group, of cgroup2 or of a tree of version 1."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return next(path for _, names, path in lines if name in names.split(","))


@grouped
def test_what_is_detached_outlives_the_unit(engine: sampan.Engine, unit: Path) -> None:
    procs = [unit / "cgroup.procs"]
    name = inside(engine, procs, "run", "-d", "--restart", "always", "base", "sleep", "1000")
    record = engine.containers.get(name)
    assert tree(parent(record.pid)) == "/sampan/supervisors"
    inside(engine, procs, "exec", "-d", name, "sh", "-c", "sleep 1000; :")
    assert not (unit / "cgroup.procs").read_text()
    until(lambda: len(engine.containers.top(name)["Processes"]) == 3)
    inside(engine, procs, "restart", "-t", "0", name)
    assert tree(parent(engine.containers.get(name).pid)) == "/sampan/supervisors"
    record = engine.containers.get(name)
    os.kill(engine.containers.get(name).pid, 9)  # the waiter starts it again, from where the supervisor was
    until(lambda: (now := engine.containers.get(name)).status == "running" and now.pid != record.pid)
    assert tree(parent(engine.containers.get(name).pid)) == "/sampan/supervisors"
    engine.containers.remove(name, force=True)


@grouped
def test_what_is_watched_stays_with_its_caller(engine: sampan.Engine, unit: Path) -> None:
    """It costs them no process, and who stops the unit stops them."""
    command = [sys.executable, "-m", "sampan", "--root", engine.store.paths.root]
    joined = [
        "sh",
        "-c",
        JOIN,
        "sh",
        str(unit / "cgroup.procs"),
        *command,
        "run",
        "--name",
        "seen",
        "base",
        "sleep",
        "1000",
    ]
    with subprocess.Popen(joined, cwd=ROOT, stdin=subprocess.DEVNULL) as caller:
        rows = until(lambda: [row for row in engine.containers.ls() if row["Names"] == "seen"])
        assert tree(parent(engine.containers.get(rows[0]["ID"]).pid)) == f"/{unit.name}"
        engine.containers.remove("seen", force=True)
        caller.wait(60)


def press(terminal: int, keys: bytes, caller: subprocess.Popen[bytes]) -> bytes:
    """Press keys, again and again because a terminal that is not raw yet takes some for itself, until he goes."""
    seen = b""
    while caller.poll() is None:
        ready = select.select([terminal], [], [], 0.3)[0]
        seen += os.read(terminal, 1000) if ready else b""
        if not ready and b"up" in seen:
            os.write(terminal, keys)
    return seen


@grouped
def test_what_its_caller_leaves_by_the_keys_outlives_the_unit(engine: sampan.Engine, unit: Path) -> None:
    command = [sys.executable, "-m", "sampan", "--root", engine.store.paths.root]
    words = ["run", "-it", "--name", "left", "base", "sh", "-c", "echo up; sleep 1000; :"]
    joined = ["sh", "-c", JOIN, "sh", str(unit / "cgroup.procs"), *command, *words]
    ours, terminal = pty.openpty()
    with subprocess.Popen(joined, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal) as caller:
        rows = until(lambda: [row for row in engine.containers.ls() if row["Names"] == "left"])
        pid = engine.containers.get(rows[0]["ID"]).pid
        assert tree(parent(pid)) == f"/{unit.name}"
        press(ours, b"\x10\x11", caller)
        assert caller.wait(60) == 0
    assert tree(parent(pid)) == "/sampan/supervisors"
    assert not (unit / "cgroup.procs").read_text()
    assert engine.containers.get("left").status == "running"
    engine.containers.remove("left", force=True)
    os.close(ours)
    os.close(terminal)


@grouped
def test_no_group_is_left_when_the_last_one_goes(engine: sampan.Engine, unit: Path) -> None:
    leaf = Path(LAYOUT.v2_base, "sampan", "supervisors")
    name = inside(engine, [unit / "cgroup.procs"], "run", "-d", "base", "true")
    until(lambda: engine.containers.get(name).status == "exited" and not (leaf / "cgroup.procs").read_text())
    engine.containers.remove(name)
    assert not leaf.exists()


@grouped
def test_the_trees_of_version_1_are_left_too(engine: sampan.Engine, unit: Path) -> None:
    mounts = {"": LAYOUT.v2_base, **LAYOUT.v1}
    if named := cgroupaway._mount_of("name=systemd"):
        mounts["name=systemd"] = named
    names = [name for name in ("name=systemd", "pids", "freezer") if name in mounts]
    if not names:
        pytest.skip("needs trees of cgroup v1")
    made = [Path(mounts[name], unit.name) for name in names]
    for path in made:
        path.mkdir()
    try:
        procs = [unit / "cgroup.procs", *(path / "cgroup.procs" for path in made)]
        pid = engine.containers.get(inside(engine, procs, "run", "-d", "--name", "one", "base", "sleep", "1000")).pid
        found = {name: tree(parent(pid), name) for name in names}
        assert found == {name: "/sampan/supervisors" if "=" in name else "/" for name in names}
        engine.containers.remove("one", force=True)
    finally:
        for path in made:
            until(lambda path=path: not (path / "cgroup.procs").read_text())  # type: ignore[misc]
            path.rmdir()


def test_which_groups_end_before_what_is_started_in_them() -> None:
    manager = "/user.slice/user-1000.slice/user@1000.service"
    for path, named in (
        ("/system.slice/run-u5.service", "run-u5.service"),
        ("/user.slice/user-0.slice/session-3.scope", "session-3.scope"),
        (f"{manager}/app.slice/run-r1.scope", ""),
        (f"{manager}/app.slice/ci.service/job", "ci.service"),
        (f"{manager}/sampan/supervisors", "user@1000.service"),
        ("/", ""),
    ):
        assert cgroupaway.unit(path) == named
    passing = [
        "/system.slice/a.service",
        "/user.slice/user-0.slice/session-c1.scope",
        f"{manager}/app.slice/ci.service",
    ]
    assert all(map(cgroupaway.is_passing, [*passing, "/ci/job-7"]))
    staying = ["", "/", f"{manager}/app.slice/run-r1.scope", f"{manager}/sampan/supervisors", "/sampan/supervisors"]
    assert not any(map(cgroupaway.is_passing, staying))


def test_without_a_group_of_ours_nothing_is_left() -> None:
    assert cgroupaway.groups(Layout("v2", "/sys/fs/cgroup", "", {}, "not delegated")) == []


def test_a_host_that_goes_down_tells_every_container(engine: sampan.Engine) -> None:
    """TERM, in each one's own time, and no mark: what ran is what the next boot wants."""

    def run(name: str, script: str, **settings: Any) -> str:
        options = RunOptions(command=["sh", "-c", script], **settings)
        return str(engine.containers.run(options, image="base", name=name, detach=True))

    run("told", "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.1; done", restart="always")
    run("deaf", "trap '' TERM; echo ready; while :; do sleep 0.1; done", stop_timeout=1)
    run("again", "exit 1", restart="always")
    until(lambda: engine.containers.get("again").status == "restarting")
    for name in ("told", "deaf"):
        until(
            lambda name=name: b"ready" in Path(engine.store.paths.container(identity(engine, name)), "log").read_bytes()
        )  # type: ignore[misc]
    ended, failed = goingdown.down(engine)
    assert set(ended) >= {"told", "deaf"} and not failed
    states = {name: engine.containers.get(name) for name in ("told", "deaf", "again")}
    assert {name: (found.status, found.exit_code) for name, found in states.items()} == {
        "told": ("exited", 5),
        "deaf": ("exited", 137),
        "again": ("exited", 1),
    }
    for found in states.values():
        assert not os.path.exists(f"{engine.store.paths.container(found.id)}/stopped")
        engine.containers.remove(found.id)


def identity(engine: sampan.Engine, name: str) -> str:
    return engine.containers.get(name).id
