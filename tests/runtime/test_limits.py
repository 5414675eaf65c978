"""What limits become on v1 and v2: numbers, file names, choice of controllers. Pure, or in simulated trees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument, NotSupported
from sampan.runtime import cgroup, cgrouphost, ioweight, limits

MIB = 1 << 20


def files(resources: dict[str, Any], v2: bool) -> list[tuple[str, str]]:
    return [setting.choices[0] for setting in limits.settings(resources, v2)]


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1, 1), (1024, 100), (262144, 10000), (1 << 30, 10000), (512, 59), (2048, 174)]
)
def test_weight_of_shares_meets_both_defaults(shares: int, weight: int) -> None:
    assert limits.weight_of_shares(shares) == weight


def test_weight_of_shares_never_falls() -> None:
    weights = [limits.weight_of_shares(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


def test_memory() -> None:
    memory = {"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB}}
    assert files(memory, True) == [
        ("memory.max", str(64 * MIB)),
        ("memory.low", str(32 * MIB)),
        ("memory.swap.max", str(32 * MIB)),
    ]
    assert files(memory, False) == [
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.soft_limit_in_bytes", str(32 * MIB)),
        ("memory.memsw.limit_in_bytes", str(96 * MIB)),
    ]
    assert files({"memory": {"limit": MIB, "swap": -1}}, True)[1] == ("memory.swap.max", "max")
    assert files({"memory": {"limit": MIB, "swap": -1}}, False)[1] == ("memory.memsw.limit_in_bytes", "-1")


@pytest.mark.parametrize("memory", [{"limit": 64 * MIB, "swap": 32 * MIB}, {"swap": 32 * MIB}, {"limit": "64m"}])
def test_wrong_memory_is_refused(memory: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        limits.settings({"memory": memory}, True)


def test_cpu() -> None:
    assert files({"cpu": {"quota": 50000}}, True) == [("cpu.max", "50000 100000")]
    assert files({"cpu": {"period": 20000}}, True) == [("cpu.max", "max 20000")]
    assert files({"cpu": {"quota": 50000}}, False) == [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")]
    assert files({"cpu": {"shares": 1}}, False) == [("cpu.shares", "2")]
    assert files({"cpu": {"cpus": "0-1", "mems": "0"}}, True) == [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]


def test_no_limit_writes_nothing() -> None:
    nothing = {
        "memory": {"limit": -1, "reservation": 0, "swappiness": None, "disableOOMKiller": False},
        "cpu": {"quota": -1, "shares": 0, "cpus": ""},
        "pids": {"limit": -1},
        "blockIO": {"weight": 0},
    }
    assert limits.settings(nothing, True) == limits.settings(nothing, False) == limits.settings({}, True) == []


def test_block_io() -> None:
    block = {"blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": MIB}]}}
    weight, throttle = limits.settings(block, True)
    assert weight.choices == [("io.bfq.weight", "500"), ("io.weight", "4950")]
    assert throttle.choices == [("io.max", f"8:0 rbps={MIB}")]
    assert files(block, False)[1] == ("blkio.throttle.read_bps_device", f"8:0 {MIB}")
    with pytest.raises(InvalidArgument, match="between 10 and 1000"):
        limits.settings({"blockIO": {"weight": 5}}, True)


def test_unified_names_a_file_and_nothing_else() -> None:
    assert files({"unified": {"memory.high": "1G"}}, True) == [("memory.high", str(1 << 30))]
    for name in ("../../x", "memory/x.y", "plain"):
        with pytest.raises(InvalidArgument):
            limits.settings({"unified": {name: "1"}}, True)


def test_what_a_version_lacks_has_no_file() -> None:
    lacking = {"memory": {"swappiness": 10, "disableOOMKiller": True}, "cpu": {"realtimeRuntime": 950000}}
    assert all(not setting.choices and setting.lack for setting in limits.settings(lacking, True))
    assert all(setting.choices for setting in limits.settings(lacking, False))


@pytest.mark.parametrize(
    ("shows", "value", "text", "want"),
    [
        (limits.NUMBER, "67108864", "67108864\n", True),
        (limits.NUMBER, "5000", "4096\n", True),
        (limits.NUMBER, "5000", "0\n", False),
        (limits.NUMBER, "max", "max\n", True),
        (limits.NUMBER, "-1", "9223372036854771712\n", True),
        (limits.NUMBER, "5000", "max\n", False),
        (limits.WORDS, "max 100000", "max 100000\n", True),
        (limits.WORDS, "5 100000", "max 100000\n", False),
        (limits.SET, "0,1,2", "0-2\n", True),
        (limits.SET, "0-3", "0-1\n", False),
        (limits.TOKENS, "8:0 rbps=5", "8:0 rbps=5 wbps=max riops=max wiops=max\n", True),
        (limits.TOKENS, "8:0 rbps=5", "", False),
    ],
)
def test_what_was_written_is_seen(shows: str, value: str, text: str, want: bool) -> None:
    assert limits.holds(limits.Setting("x", "--x", [], shows), value, text) is want


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1,,2", "0-99999999", "1;2"])
def test_wrong_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        limits.parse_set(text)


# Simulated hosts: plain directories stand for the cgroup file systems, so only the choosing is tested here.


def host(root: Path, mounts: list[str], own: str = "0::/\n") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("22 1 0:1 / / rw - ext4 /dev/vda rw\n" + "".join(mounts))
    (root / "proc/self/cgroup").write_text(own)
    return root


def v2_mount(where: str = "/sys/fs/cgroup", root: str = "/") -> str:
    return f"30 22 0:26 {root} {where} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def v1_mount(name: str, options: str) -> str:
    return f"31 22 0:27 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{options}\n"


def group(root: Path, path: str, controllers: str = "") -> Path:
    directory = root / "sys/fs/cgroup" / path
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("cgroup.controllers", controllers), ("cgroup.subtree_control", ""), ("cgroup.procs", "")):
        (directory / name).write_text(text)
    return directory


def test_simulated_v2(tmp_path: Path) -> None:
    top = group(host(tmp_path, [v2_mount()]), "", "cpu io memory pids")
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    assert (layout.version, layout.v2_base, layout.v1) == ("v2", str(top), {})
    assert layout.v2_controllers() == {"cpu", "io", "memory", "pids"}
    placement = cgroup.create("c", {}, layout=layout)
    assert placement.v2_dir == f"{top}/sampan/sampan-c" and placement.v1_dirs == []


def test_simulated_v2_enables_and_writes(tmp_path: Path) -> None:
    from sampan.runtime import cgroupapply

    top = group(host(tmp_path, [v2_mount()]), "", "memory pids")
    group(tmp_path, "sampan")
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    made = group(tmp_path, "sampan/sampan-c")
    (made / "memory.max").write_text("max\n")
    chosen = cgroupapply.choose({"memory": {"limit": 64 * MIB}}, layout)
    cgroupapply.enable(layout, chosen)
    cgroupapply.apply(cgroup.Placement(str(made)), chosen)
    assert (made / "memory.max").read_text() == str(64 * MIB)
    assert (top / "cgroup.subtree_control").read_text() == "+memory"
    assert (top / "sampan/cgroup.subtree_control").read_text() == "+memory"
    with pytest.raises(NotSupported, match="--cpuset-cpus.*cpuset controller is not available"):
        cgroupapply.choose({"cpu": {"cpus": "0"}}, layout)
    with pytest.raises(NotSupported, match="swapaccount"):
        cgroupapply.apply(
            cgroup.Placement(str(made)), cgroupapply.choose({"memory": {"limit": 64 * MIB, "swap": 65 * MIB}}, layout)
        )


def test_limits_of_disks_turn_memory_on_too_for_what_the_page_cache_writes(tmp_path: Path) -> None:
    from sampan.runtime import cgroupapply

    limits = {"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": MIB}]}}
    top = group(host(tmp_path, [v2_mount()]), "", "io memory")
    group(tmp_path, "sampan")
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroupapply, "write", lambda path, value: told.append(f"{path} {value}"))
        cgroupapply.enable(layout, cgroupapply.choose(limits, layout))
    files = [f"{top}/cgroup.subtree_control", f"{top}/sampan/cgroup.subtree_control"]
    assert told == [f"{file} {word}" for file in files for word in ("+io", "+memory")]


def test_simulated_kernel_that_does_not_keep_a_value_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sampan.runtime import cgroupapply

    group(host(tmp_path, [v2_mount()]), "", "pids")
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    made = group(tmp_path, "sampan/sampan-c")
    (made / "pids.max").write_text("max\n")
    monkeypatch.setattr(cgroupapply, "write", lambda path, value: None)
    with pytest.raises(NotSupported, match=r"--pids-limit: pids.max shows 'max' after writing '7'"):
        cgroupapply.apply(cgroup.Placement(str(made)), cgroupapply.choose({"pids": {"limit": 7}}, layout))


def test_simulated_v1(tmp_path: Path) -> None:
    mounts = [v1_mount("cpu,cpuacct", "cpu,cpuacct"), v1_mount("memory", "memory"), v1_mount("freezer", "freezer")]
    mounts += [v1_mount("systemd", "xattr,name=systemd"), v1_mount("devices", "devices")]
    host(tmp_path, mounts)
    for name in ("cpu,cpuacct", "memory", "freezer", "devices"):
        group(tmp_path, name)
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    assert layout.version == "v1" and layout.v2_base == ""
    assert set(layout.v1) == {"cpu", "cpuacct", "memory", "freezer", "devices"}
    assert layout.v1["cpu"] == layout.v1["cpuacct"] == f"{tmp_path}/sys/fs/cgroup/cpu,cpuacct"
    placement = cgroup.create("c", {}, layout=layout)
    assert placement.v1_dirs == [f"{tmp_path}/sys/fs/cgroup/freezer/sampan/sampan-c"]
    with pytest.raises(NotSupported, match="pids"):
        cgroup.create("d", {"pids": {"limit": 5}}, layout=layout)


def test_simulated_v1_is_not_for_ordinary_users(tmp_path: Path) -> None:
    layout = cgrouphost.detect(str(host(tmp_path, [v1_mount("memory", "memory")])), rootless=True)
    assert layout.v1 == {} and layout.v2_base == ""
    assert cgroup.create("c", {}, True, layout).directories() == []
    with pytest.raises(NotSupported, match="--memory"):
        cgroup.create("c", {"memory": {"limit": MIB}}, True, layout)


def test_simulated_hybrid(tmp_path: Path) -> None:
    host(tmp_path, [v1_mount("memory", "memory"), v2_mount("/sys/fs/cgroup/unified")])
    top = group(tmp_path, "unified", "hugetlb")
    group(tmp_path, "memory")
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    assert layout.version == "hybrid" and layout.v2_base == str(top) and set(layout.v1) == {"memory"}


def test_controllers_that_are_read_only_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container on a v1 host."""
    host(tmp_path, [v1_mount("memory", "memory"), v1_mount("cpu", "cpu")])
    group(tmp_path, "memory"), group(tmp_path, "cpu")
    assert set(cgrouphost.detect(str(tmp_path), rootless=False).v1) == {"memory", "cpu"}
    monkeypatch.setattr(os, "access", lambda path, mode: "sys/fs/cgroup" not in path)
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    assert layout.v1 == {} and layout.version == "v1" and "read-only" in layout.why


def test_simulated_delegation_finds_the_topmost_writable_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "/user.slice/user-7.slice/user@7.service/app.slice/run.scope"
    host(tmp_path, [v2_mount()], f"0::{own}\n")
    for path in ("", *[own[1 : len(own) - cut] for cut in range(len(own)) if own[len(own) - cut :][:1] in ("", "/")]):
        group(tmp_path, path, "memory pids")
    real, closed = (
        os.access,
        {f"{tmp_path}/sys/fs/cgroup{path}" for path in ("", "/user.slice", "/user.slice/user-7.slice")},
    )
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and real(path, mode))
    layout = cgrouphost.detect(str(tmp_path), rootless=True)
    assert layout.v2_base == f"{tmp_path}/sys/fs/cgroup/user.slice/user-7.slice/user@7.service"
    closed.add(f"{tmp_path}/sys/fs/cgroup{own}")
    none = cgrouphost.detect(str(tmp_path), rootless=True)
    assert none.v2_base == "" and "not delegated" in none.why


def test_simulated_read_only_cgroups_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(host(tmp_path, [v2_mount()]), "", "memory")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    layout = cgrouphost.detect(str(tmp_path), rootless=False)
    assert layout.v2_base == "" and "read-only" in layout.why
    with pytest.raises(NotSupported, match="read-only"):
        cgroup.create("c", {"memory": {"limit": MIB}}, layout=layout)


def test_simulated_host_without_cgroups(tmp_path: Path) -> None:
    layout = cgrouphost.detect(str(host(tmp_path, [])), rootless=False)
    assert layout.version == "none" and cgroup.create("c", {}, layout=layout).directories() == []


def test_mount_points_with_odd_characters() -> None:
    (_, where), _ = cgrouphost.parse_mounts("30 22 0:26 / /a\\040b\\134c rw - cgroup2 cgroup2 rw\n")
    assert where == "/a b\\c"


def test_own_group_outside_of_the_mount_is_never_used() -> None:
    assert cgrouphost.delegated("/tmp", "/", "/../../etc") == ""


def test_weights_of_block_io_are_kept_where_they_bite(tmp_path: Path) -> None:
    choices = [("io.bfq.weight", "500"), ("io.weight", "4950")]
    for_one = [("io.bfq.weight", "8:0 500"), ("io.weight", "8:0 4950")]
    old = [("blkio.bfq.weight", "500"), ("blkio.weight", "500")]
    sys, mount = str(tmp_path / "sys"), str(tmp_path / "cgroup")

    def kept(asked: list[tuple[str, str]]) -> list[str]:
        return [name for name, _ in ioweight.biting(asked, mount, sys)]

    assert (kept(choices), kept(for_one), kept(old)) == ([], [], ["blkio.weight"])
    for directory in ("sys/block/sda/queue", "sys/dev/block/8:0/queue", "cgroup"):
        (tmp_path / directory).mkdir(parents=True)
    one, all_of_it = tmp_path / "sys/dev/block/8:0/queue/scheduler", tmp_path / "sys/block/sda/queue/scheduler"
    for text, found in (("[none] mq-deadline bfq\n", []), ("none mq-deadline [bfq]\n", ["io.bfq.weight"])):
        one.write_text(text)
        all_of_it.write_text(text)
        assert kept(choices) == kept(for_one) == found
    (tmp_path / "cgroup/io.cost.qos").write_text("8:16 enable=1 ctrl=auto rpct=0.00\n8:0 enable=0\n")
    assert (kept(choices), kept(for_one)) == (["io.bfq.weight", "io.weight"], ["io.bfq.weight"])
