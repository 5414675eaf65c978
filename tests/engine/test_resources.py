"""Every limit of `run`: the kernel really kills, throttles and refuses; and what cannot be meant is told.

As root on cgroup v1 and hybrid hosts here; cgroup v2 with systemd is tests/vm/guest.py's.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

import sampan
from sampan.errors import InvalidArgument, NotSupported, SampanError
from sampan.oci import capabilities
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup

LAYOUT = cgroup.detect()
CONTROLLERS = {*LAYOUT.v1, *LAYOUT.v2_controllers()} | ({"blkio"} if "io" in LAYOUT.v2_controllers() else set())


def needs(*controllers: str) -> None:
    """Skip where a controller is not this user's to use."""
    for controller in controllers:
        if controller not in CONTROLLERS:
            pytest.skip(f"the {controller} controller is not open to this user here")


def out(engine: sampan.Engine, script: str, **settings: Any) -> str:
    result = engine.run("base", ["sh", "-c", script], **settings)
    assert result.exit_code == 0, result
    return result.stdout.decode()


def shown(engine: sampan.Engine, controller: str, v1: str, v2: str, **settings: Any) -> str:
    """Return a file of the container's group, as the container sees it."""
    needs(controller)
    file = f"/sys/fs/cgroup/{controller}/{v1}" if controller in LAYOUT.v1 else f"/sys/fs/cgroup/{v2}"
    return out(engine, f"cat {file}", **settings).strip()


def test_memory_kills_and_is_told(engine: sampan.Engine) -> None:
    needs("memory")
    options = RunOptions(command=["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"], memory=20 << 20)
    assert engine.containers.run(options, image="base", name="hog") == 137
    assert engine.containers.inspect("hog")["State"]["OOMKilled"] is True
    engine.containers.remove("hog")


def test_memory_that_runs_out_in_an_exec_is_told_while_it_runs_and_after(engine: sampan.Engine) -> None:
    needs("memory")
    options = RunOptions(command=["sleep", "1000"], memory=20 << 20)
    name = str(engine.containers.run(options, image="base", detach=True))
    assert engine.containers.inspect(name)["State"]["OOMKilled"] is False
    assert engine.containers.exec(name, ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]) == 137
    state = engine.containers.inspect(name)["State"]
    assert (state["OOMKilled"], state["Running"]) == (True, True)
    engine.containers.kill(name)
    engine.containers.wait(name)
    assert engine.containers.inspect(name)["State"]["OOMKilled"] is True
    engine.containers.start(name)
    assert engine.containers.inspect(name)["State"]["OOMKilled"] is False
    engine.containers.remove(name, force=True)


def test_memory_and_swap_together(engine: sampan.Engine) -> None:
    text = shown(
        engine,
        "memory",
        "memory.memsw.limit_in_bytes",
        "memory.swap.max",
        memory=64 << 20,
        memory_swap=64 << 20,
    )
    assert text == (str(64 << 20) if "memory" in LAYOUT.v1 else "0")


def test_reservation(engine: sampan.Engine) -> None:
    text = shown(engine, "memory", "memory.soft_limit_in_bytes", "memory.low", memory_reservation=16 << 20)
    assert text == str(16 << 20)


def test_swappiness_where_the_kernel_has_it(engine: sampan.Engine) -> None:
    needs("memory")
    if "memory" in LAYOUT.v1:
        assert shown(engine, "memory", "memory.swappiness", "", memory_swappiness=7) == "7"
    else:
        with pytest.raises(NotSupported, match="--memory-swappiness"):
            engine.run("base", ["true"], memory_swappiness=7)


def test_oom_kill_disable_where_the_kernel_has_it(engine: sampan.Engine) -> None:
    needs("memory")
    settings: dict[str, Any] = {"oom_kill_disable": True, "memory": 64 << 20}
    if "memory" in LAYOUT.v1:
        assert "oom_kill_disable 1" in shown(engine, "memory", "memory.oom_control", "", **settings)
    else:
        with pytest.raises(NotSupported, match="--oom-kill-disable"):
            engine.run("base", ["true"], **settings)


@pytest.mark.parametrize("settings", [{"cpus": 0.1}, {"cpu_period": 50_000, "cpu_quota": 5_000}], ids=str)
def test_cpu_time_is_throttled(engine: sampan.Engine, settings: dict[str, Any]) -> None:
    needs("cpu")
    file = "/sys/fs/cgroup/cpu/cpu.stat" if "cpu" in LAYOUT.v1 else "/sys/fs/cgroup/cpu.stat"
    script = f"i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; cat {file}"
    counts = dict(line.split() for line in out(engine, script, **settings).splitlines())
    assert int(counts["nr_throttled"]) > 0
    free = dict(line.split() for line in out(engine, script, cpus=os.cpu_count()).splitlines())
    assert int(free["nr_throttled"]) == 0  # the control: the same work with room


def test_cpu_shares(engine: sampan.Engine) -> None:
    assert shown(engine, "cpu", "cpu.shares", "cpu.weight", cpu_shares=512) in ("512", "59")


def test_cpuset(engine: sampan.Engine) -> None:
    needs("cpuset")
    text = out(engine, "cat /proc/self/status", cpuset="0", cpuset_mems="0")
    assert "Cpus_allowed_list:\t0\n" in text and "Mems_allowed_list:\t0\n" in text
    with pytest.raises(NotSupported, match="--cpuset-cpus"):
        engine.run("base", ["true"], cpuset="0,9999")


def test_pids(engine: sampan.Engine) -> None:
    needs("pids")
    script = "i=0; while [ $i -lt 30 ]; do sleep 100 & i=$((i+1)); done"
    result = engine.run("base", ["sh", "-c", script], pids_limit=10)
    assert result.exit_code != 0 and b"ork" in result.stderr
    assert engine.run("base", ["sh", "-c", script], pids_limit=-1).exit_code == 0
    assert engine.run("base", ["true"], pids_limit=1).exit_code == 0


def test_a_limit_that_leaves_no_room_for_ours_is_named(engine: sampan.Engine) -> None:
    needs("pids")
    with pytest.raises(SampanError) as caught:
        engine.run("base", ["true"], pids_limit=1, init=True)
    assert "--pids-limit" in caught.value.hint and "--init" in caught.value.hint
    name = engine.containers.run(RunOptions(command=["sleep", "60"], pids_limit=2), image="base", detach=True)
    try:
        with pytest.raises(SampanError) as caught:
            engine.containers.exec(name, ["true"])
        assert caught.value.exit_code == 126 and "an exec needs two" in caught.value.hint
        engine.containers.update(name, {"pids_limit": 3})
        assert engine.containers.exec(name, ["true"]) == 0
    finally:
        engine.containers.remove(name, force=True)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[str]:
    """Make a block device that reads a file of 4 MiB."""
    needs("blkio")
    if os.geteuid():
        pytest.skip("only root makes loop devices")
    file = tmp_path / "disk"
    file.write_bytes(bytes(4 << 20))
    made = subprocess.run(["losetup", "--find", "--show", "-r", file], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"this host gives no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_reading_from_a_device_is_throttled(engine: sampan.Engine, disk: str) -> None:
    script = f"dd if={disk} of=/dev/null bs=256k count=8 iflag=direct 2>/dev/null"
    out(engine, script, devices=[f"{disk}:{disk}:r"])
    began = time.monotonic()
    out(engine, script, devices=[f"{disk}:{disk}:r"], device_read_bps=[f"{disk}:1mb"])
    assert time.monotonic() - began > 1.0  # 2 MiB at 1 MiB a second; load only makes it longer


def test_rates_of_a_device(engine: sampan.Engine, disk: str) -> None:
    number = f"{os.major(os.stat(disk).st_rdev)}:{os.minor(os.stat(disk).st_rdev)}"
    v1 = "blkio" in LAYOUT.v1
    for field, name, word in (
        ("device_read_bps", "read_bps", "rbps"),
        ("device_write_bps", "write_bps", "wbps"),
        ("device_read_iops", "read_iops", "riops"),
        ("device_write_iops", "write_iops", "wiops"),
    ):
        text = shown(engine, "blkio", f"blkio.throttle.{name}_device", "io.max", **{field: [f"{disk}:1048576"]})
        assert (f"{number} 1048576" if v1 else f"{word}=1048576") in text


def _weighed() -> bool:
    files = [*pathlib.Path("/sys/block").glob("*/queue/scheduler"), pathlib.Path(LAYOUT.v2_mount, "io.cost.qos")]
    return any("[bfq]" in text or "enable=1" in text for text in (file.read_text() for file in files if file.exists()))


def test_weight_of_block_io_where_the_kernel_has_it(engine: sampan.Engine) -> None:
    needs("blkio")
    try:
        result = engine.run("base", ["true"], blkio_weight=300)
    except NotSupported as error:
        assert "--blkio-weight" in error.message
        assert "kernel has no" in error.message or not _weighed()
        return
    assert result.exit_code == 0
    if "blkio" in LAYOUT.v1:
        assert "300" in shown(engine, "blkio", "blkio.bfq.weight", "io.bfq.weight", blkio_weight=300)


def test_shm_size(engine: sampan.Engine) -> None:
    script = "dd if=/dev/zero of=/dev/shm/f bs=64k count=32 2>&1; stat -c %s /dev/shm/f"
    assert out(engine, script, shm_size=1 << 20).split()[-1] == str(1 << 20)
    assert out(engine, script).split()[-1] == str(2 << 20)


def test_ulimits(engine: sampan.Engine) -> None:
    assert out(engine, "ulimit -n; ulimit -Hn", ulimits=["nofile=64:128"]).split() == ["64", "128"]
    script = "dd if=/dev/zero of=/f bs=1k count=8 2>/dev/null; stat -c %s /f"
    assert out(engine, script, ulimits=["fsize=4096"]).split() == ["4096"]


def test_oom_score_adj(engine: sampan.Engine) -> None:
    assert out(engine, "cat /proc/self/oom_score_adj", oom_score_adj=500) == "500\n"
    if engine.host.rootless or not engine.host.cap_mask() & capabilities.mask(["CAP_SYS_RESOURCE"]):
        with pytest.raises(NotSupported, match=r"-500.*CAP_SYS_RESOURCE") as refused:
            out(engine, "true", oom_score_adj=-500)
        assert "--oom-score-adj" in refused.value.hint
    else:
        assert out(engine, "cat /proc/self/oom_score_adj", oom_score_adj=-500) == "-500\n"


def test_a_device_rule_opens_a_device(engine: sampan.Engine, disk: str) -> None:
    if not (LAYOUT.v2_base or "devices" in LAYOUT.v1):
        pytest.skip("this host cannot limit devices")
    number = os.stat(disk).st_rdev
    code = f"{os.major(number)} {os.minor(number)}"
    script = f"mknod /d b {code} && head -c 1 /d >/dev/null"
    engine.bootstrap("host", "mknodbase", ["sh", "mknod", "head"])
    assert engine.run("mknodbase", ["sh", "-c", script]).exit_code != 0
    rule = f"b {os.major(number)}:* r"
    assert engine.run("mknodbase", ["sh", "-c", script], device_cgroup_rules=[rule]).exit_code == 0
    engine.images.remove("mknodbase", force=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus": 1, "cpu_quota": 5000}, "--cpus"),
        ({"cpu_period": 10}, "--cpu-period 10"),
        ({"cpu_quota": 10}, "--cpu-quota 10"),
        ({"memory_swappiness": 101}, "--memory-swappiness"),
        ({"blkio_weight": 9}, "--blkio-weight"),
        ({"blkio_weight_device": ["/dev/null:100"]}, "not a block device"),
        ({"device_read_bps": ["vda:1mb"]}, "--device-read-bps"),
        ({"device_read_bps": ["/dev/no-such:1mb"]}, "No such file"),
        ({"device_write_iops": ["/dev/null"]}, "--device-write-iops"),
        ({"device_cgroup_rules": ["c 1:3"]}, "--device-cgroup-rule"),
        ({"device_cgroup_rules": ["x 1:3 rwm"]}, "--device-cgroup-rule"),
        ({"memory": 1 << 20}, "smallest"),
        ({"memory_swap": 1 << 30}, "needs --memory"),
        ({"cpuset_mems": "a"}, "--cpuset-mems"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_names_the_option(engine: sampan.Engine, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        engine.containers.create("base", RunOptions(command=["true"], **settings))
    assert message in caught.value.message
