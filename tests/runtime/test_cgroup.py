"""Control groups on this host: made cheaply, limits that bite, nothing left behind. Needs root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from sampan.errors import Conflict, InvalidArgument, NotSupported
from sampan.runtime import cgroup, cgroupcontrol, cgrouphost, compile, mounts
from sampan.runtime.cgroup import Placement
from sampan.runtime.cgrouphost import Layout
from sampan.runtime.plan import SYMLINK, Plan

LAYOUT = cgroup.detect()
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not (LAYOUT.v2_base or LAYOUT.v1), reason="needs root and cgroups")
ID = f"test-{os.getpid()}"


@pytest.fixture
def made() -> Iterator[list[Placement]]:
    placements: list[Placement] = []
    yield placements
    for placement in placements:
        cgroup.kill(placement)
        cgroup.remove(placement)


def inside(placement: Placement, code: str, *, wait: bool = True) -> subprocess.Popen[str]:
    """Start Python code in every group of a placement, as the helper would."""
    head = "import os, sys, time; sys.stdin.readline()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", head + code], text=True, **pipes)  # type: ignore[call-overload]
    for directory in placement.directories():
        Path(directory, "cgroup.procs").write_text(str(child.pid))
    child.stdin.write("go\n")
    child.stdin.flush()
    if wait:
        child.wait(60)
    return child  # type: ignore[no-any-return]


def test_group_without_limits_is_one_directory(made: list[Placement]) -> None:
    made.append(cgroup.create(ID, {}))
    assert len(made[0].directories()) == 1
    if LAYOUT.v2_base:
        assert made[0].v2_dir.endswith(f"/sampan/sampan-{ID}") and made[0].v1_dirs == []
    assert all(os.path.isdir(directory) for directory in made[0].directories())


def test_removed_groups_are_gone(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"pids": {"limit": 9}})
    assert placement.directories()
    cgroup.remove(placement)
    assert not [directory for directory in placement.directories() if os.path.exists(directory)]
    cgroup.remove(placement)  # again is no error


def test_a_group_that_is_gone_holds_nobody(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"pids": {"limit": 9}})
    if not placement.v2_dir and "freezer" not in placement.v1:
        pytest.skip("needs cgroup2 or a freezer")
    cgroup.remove(placement)
    assert cgroup.thaw(placement) is False
    cgroup.kill(placement)
    cgroupcontrol.release(placement, "", [])


def test_placement_is_found_by_name(made: list[Placement]) -> None:
    made.append(cgroup.create(ID, {"pids": {"limit": 9}}))
    assert set(cgroup.named(ID).directories()) == set(made[0].directories())
    assert cgroup.named(f"{ID}-absent").directories() == []


def test_memory_limit_bites_and_is_counted(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    made.append(placement)
    assert cgroup.oom_kills(placement) == 0
    child = inside(placement, "block = bytearray(256 << 20); print(len(block))")
    assert child.returncode == -signal.SIGKILL
    assert cgroup.oom_kills(placement) == 1
    assert inside(placement, "block = bytearray(4 << 20)").returncode == 0  # the control: less is allowed


def test_oom_in_a_nested_group_is_counted(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    made.append(placement)
    top = placement.v1.get("memory") or placement.v2_dir
    os.mkdir(f"{top}/below")
    code = f"open({top + '/below/cgroup.procs'!r}, 'w').write('0'); bytearray(256 << 20)"
    assert inside(placement, code).returncode == -signal.SIGKILL
    assert cgroup.oom_kills(placement) == 1


def test_pids_limit_bites(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"pids": {"limit": 4}})
    made.append(placement)
    code = """
made = 0
try:
    for _ in range(10):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except BlockingIOError:
    print(made)
"""
    child = inside(placement, code)
    assert child.stdout is not None and child.stdout.readline() == "3\n"


def test_cpu_quota_bites(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"cpu": {"quota": 10000, "period": 100000}})
    made.append(placement)
    began = time.monotonic()
    child = inside(placement, "print(time.process_time(), flush=True)\nwhile True: pass", wait=False)
    assert child.stdout is not None
    before = float(child.stdout.readline())  # what its start took, in part before it was moved here
    until(lambda: cgroup.stats(placement)["throttled_periods"] >= 5)
    child.kill()
    usage = os.wait4(child.pid, 0)[2]
    child.returncode = -signal.SIGKILL  # collected above
    assert usage.ru_utime + usage.ru_stime - before < 0.1 * (time.monotonic() - began) + 0.1  # load makes it less


def test_cpuset_bites(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"cpu": {"cpus": "0", "mems": "0"}})
    made.append(placement)
    child = inside(placement, "print(os.sched_getaffinity(0))")
    assert child.stdout is not None and child.stdout.read() == "{0}\n"


def test_shares_weight_and_reservation_are_accepted(made: list[Placement]) -> None:
    made.append(cgroup.create(ID, {"cpu": {"shares": 512}, "memory": {"reservation": 16 << 20}}))
    placement = made[0]
    if "cpu" in placement.v1:
        assert Path(placement.v1["cpu"], "cpu.shares").read_text() == "512\n"
        assert Path(placement.v1["memory"], "memory.soft_limit_in_bytes").read_text() == f"{16 << 20}\n"


def test_only_the_controllers_that_are_needed_get_groups(made: list[Placement]) -> None:
    made.append(cgroup.create(ID, {"pids": {"limit": 9}}))
    assert set(made[0].v1) <= {"pids"}


@pytest.mark.parametrize(
    ("limits", "flag"),
    [
        ({"hugepageLimits": [{"pageSize": "64KB", "limit": 0}]}, "hugepageLimits"),
        ({"memory": {"limit": 1 << 26, "kernel": 1 << 20}}, "--kernel-memory"),
        ({"cpu": {"cpus": "4000"}}, "--cpuset-cpus"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_limit_that_cannot_be_applied_is_refused_and_leaves_nothing(limits: dict[str, object], flag: str) -> None:
    with pytest.raises(NotSupported) as caught:
        cgroup.create(ID, limits)
    assert flag in caught.value.message and flag in caught.value.hint
    assert cgroup.named(ID).directories() == []


@pytest.mark.parametrize(("key", "what"), [("cpus", "CPU"), ("mems", "memory node")])
def test_a_processor_that_is_not_there_is_named(key: str, what: str) -> None:
    with pytest.raises(NotSupported) as caught:
        cgroup.create(ID, {"cpu": {key: "0,4000-4001"}})
    assert caught.value.message == f"cannot apply limit --cpuset-{key}: there is no {what} 4000 here"
    assert f"takes numbers of {min(os.sched_getaffinity(0)) if key == 'cpus' else 0}" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a\n", "ü", "."])
def test_id_cannot_name_another_directory(name: str) -> None:
    with pytest.raises(InvalidArgument):
        cgroup.create(name, {})


def test_group_of_an_earlier_run_is_replaced(made: list[Placement]) -> None:
    first = cgroup.create(ID, {})
    nested = f"{first.directories()[0]}/left/behind"
    os.makedirs(nested)
    made.append(cgroup.create(ID, {}))
    assert not os.path.exists(nested)


def test_nested_groups_are_removed(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"pids": {"limit": 100}})
    for directory in placement.directories():
        for number in range(100):
            os.mkdir(f"{directory}/n{number}")
        os.makedirs(f"{directory}/a/b/c/d")
    cgroup.remove(placement)
    assert cgroup.named(ID).directories() == []


def test_group_with_a_process_is_reported_and_not_removed(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {})
    made.append(placement)
    child = inside(placement, "time.sleep(60)", wait=False)
    with pytest.raises(Conflict, match=str(child.pid)):
        cgroup.remove(placement, patience=0.05)
    cgroup.kill(placement)
    assert child.wait(60) == -signal.SIGKILL


def test_kill_reaches_all_also_in_nested_groups_and_frozen(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {})
    made.append(placement)
    code = "\nfor _ in range(5): os.fork()\ntime.sleep(60)"
    child = inside(placement, code, wait=False)
    top = placement.directories()[0]
    os.mkdir(f"{top}/below")
    until(lambda: len(Path(top, "cgroup.procs").read_text().split()) == 32)
    some = Path(top, "cgroup.procs").read_text().split()[3]
    Path(top, "below", "cgroup.procs").write_text(some)
    cgroup.freeze(placement)
    cgroup.kill(placement, 10)
    assert child.wait(60) == -signal.SIGKILL
    assert not Path(top, "cgroup.procs").read_text() and not Path(top, "below", "cgroup.procs").read_text()


def test_a_container_that_ends_by_itself_meanwhile_is_killed(tmp_path: Path) -> None:
    for placement in (Placement(f"{tmp_path}/gone"), Placement("", {"freezer": f"{tmp_path}/gone"})):
        cgroupcontrol.release(placement, "", [])
        cgroupcontrol.kill(placement)
        assert not cgroupcontrol.thaw(placement)


def test_freeze_stops_and_thaw_continues(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {})
    made.append(placement)
    child = inside(placement, "\nwhile True: print(1, flush=True); time.sleep(0.001)", wait=False)
    assert child.stdout is not None
    child.stdout.readline()
    cgroup.freeze(placement)
    used = cgroup.stats(placement).get("cpu_usage", 0)
    time.sleep(0.1)
    assert cgroup.stats(placement).get("cpu_usage", 0) == used
    cgroup.thaw(placement)
    until(lambda: cgroup.stats(placement).get("cpu_usage", 1) > used)
    child.kill()
    child.wait()


def test_stats_without_limits_come_from_the_processes(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {})
    made.append(placement)
    child = inside(
        placement, "block = bytearray(os.urandom(1 << 20) * 30); print(1, flush=True); time.sleep(60)", wait=False
    )
    assert child.stdout is not None
    child.stdout.readline()
    found = cgroup.stats(placement)
    assert found["pids"] == 1 and 30 << 20 < found["memory_usage"] < 90 << 20 and found["cpu_usage"] > 0
    child.kill()
    child.wait()


def test_stats_with_limits(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}})
    made.append(placement)
    child = inside(
        placement, "block = bytearray(os.urandom(1 << 20) * 20); print(1, flush=True); time.sleep(60)", wait=False
    )
    assert child.stdout is not None
    child.stdout.readline()
    found = cgroup.stats(placement)
    assert found["pids"] == 1 and found["pids_limit"] == 50 and found["memory_limit"] == 64 << 20
    assert 15 << 20 < found["memory_usage"] < 64 << 20
    child.kill()
    child.wait()


def test_update_of_a_running_container_bites(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    made.append(placement)
    cgroup.update(placement, {"memory": {"limit": 128 << 20, "swap": 128 << 20}})  # up: memsw must go first on v1
    cgroup.update(placement, {"memory": {"limit": 24 << 20, "swap": 24 << 20}, "pids": {"limit": 3}})
    child = inside(placement, "print(1, flush=True); sys.stdin.readline(); bytearray(100 << 20)", wait=False)
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    child.stdin.write("go\n")
    child.stdin.flush()
    assert child.wait(60) == -signal.SIGKILL


def test_update_moves_processes_to_a_controller_that_had_no_group(made: list[Placement]) -> None:
    placement = cgroup.create(ID, {})
    made.append(placement)
    child = inside(
        placement, "print(1, flush=True); sys.stdin.readline()\ntry: os.fork()\nexcept OSError: print(2)", wait=False
    )
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    cgroup.update(placement, {"pids": {"limit": 1}})
    child.stdin.write("go\n")
    child.stdin.flush()
    assert child.stdout.readline() == "2\n"
    child.wait(60)


def test_an_ordinary_user_without_delegation_gets_no_group_and_no_silent_limit() -> None:
    if LAYOUT.version != "hybrid":
        pytest.skip("this host may delegate")
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(cgroup.__file__).parents[2])!r})
from sampan.errors import NotSupported
from sampan.runtime import cgroup, cgroupapply
os.setgid(65534); os.setuid(65534)
print(cgroup.create("x", {{}}, True).directories())
try:
    cgroup.create("x", {{"memory": {{"limit": 1 << 24}}}}, True)
except NotSupported as error:
    print(error.message)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    refusal = "the memory controller is on cgroup v1, which is not open to ordinary users"
    assert out == f"[]\ncannot apply limit --memory: {refusal}\n"


@pytest.mark.parametrize("systemd", [True, False])
def test_a_plain_login_is_told_how_to_get_a_group(monkeypatch: pytest.MonkeyPatch, systemd: bool) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.path.isdir", lambda path: systemd and path == "/run/systemd/system")
    layout = Layout("v2", "/sys/fs/cgroup", "", {}, "your group /user.slice is not delegated to you")
    with pytest.raises(NotSupported, match="--memory.*not delegated") as caught:
        cgroup.create(ID, {"memory": {"limit": 30 << 20}}, rootless=True, layout=layout)
    assert ("systemd-run --user --scope -p Delegate=yes" in caught.value.hint) is systemd


def test_a_users_groups_are_found_from_a_login_that_may_make_none(tmp_path: Path) -> None:
    manager = tmp_path / "user.slice/user-1000.slice/user@1000.service"
    layout = Layout("v2", str(tmp_path), "", {}, "your group /x is not delegated to you")
    assert cgrouphost.homes(layout, 1000) == []
    (manager / f"sampan/sampan-{ID}").mkdir(parents=True)
    assert cgrouphost.homes(layout, 1000) == [str(manager)] and cgrouphost.homes(layout, 0) == []
    own = Layout("v2", str(tmp_path), str(manager), {}, "")
    assert cgrouphost.homes(own, 1000) == [str(manager)]


def test_controllers_that_are_mounted_together_have_their_names_in_the_container_too() -> None:
    plan, facts = Plan(), compile.Facts()
    facts.cgroup_version, facts.cgroup_v1 = (
        "v1",
        [f"/sys/fs/cgroup/{name}/sampan/x" for name in ("cpu,cpuacct", "pids")],
    )
    mounts.cgroups(plan, facts, 0)
    links = [op.fields for op in plan.operations if op.code == SYMLINK]
    assert links == [(f"/sys/fs/cgroup/{name}", "cpu,cpuacct") for name in ("cpu", "cpuacct")]
