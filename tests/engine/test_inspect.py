"""`inspect`: Docker's keys, all of them, with what really holds."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import sampan
from sampan.oci.options import RunOptions

# moby, api/types/container: InspectResponse, HostConfig with Resources, Config; what is there on Linux.
TOP = (
    "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform"
    " MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings"
)
STATE = "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"
HOST = (
    "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom"
    " ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links"
    " OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode ShmSize Runtime"
    " Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps"
    " BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod"
    " CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap"
    " MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth"
    " MaskedPaths ReadonlyPaths"
)
CONFIG = (
    "Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd Image Volumes"
    " WorkingDir Entrypoint OnBuild Labels"
)
NETWORK = (
    "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses"
    " SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway"
    " MacAddress Networks"
)


@pytest.fixture(scope="module")
def made(engine: sampan.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(
        'FROM base\nENTRYPOINT ["sh", "-c"]\nCMD ["true"]\nEXPOSE 53/udp\nVOLUME /anonymous\nSTOPSIGNAL INT\n'
    )
    engine.build(str(context), tags=["inspected"])
    options = RunOptions(
        command=["exit 0"],
        mounts=[("volume", "seen", "/v", ["ro"]), ("bind", str(context), "/b", ["rbind", "rslave", "rw", "create"])],
        tmpfs=["/t:size=1m"],
        env=["A=b"],
        add_host=["db:1.2.3.4"],
        ulimits=["nofile=10:20", "core=unlimited"],
        oom_score_adj=7,
        cap_add=["SYS_TIME"],
        expose=["80"],
        domainname="ex.org",
        annotations={"note": "x"},
        stop_timeout=3,
        read_only=True,
        init=True,
    )
    made = engine.containers.create("inspected", options, name="inspect_me")
    yield engine.containers.inspect(made, size=True)
    engine.containers.remove(made, volumes=True)
    engine.store.volumes.remove("seen")


@pytest.mark.parametrize(
    ("where", "keys"),
    [("", TOP), ("State", STATE), ("HostConfig", HOST), ("Config", CONFIG), ("NetworkSettings", NETWORK)],
)
def test_every_key_of_dockers_is_there(made: dict[str, Any], where: str, keys: str) -> None:
    found = made[where] if where else made
    assert set(keys.split()) - set(found) == set()


def test_what_was_asked_is_shown(made: dict[str, Any], engine: sampan.Engine) -> None:
    host = made["HostConfig"]
    assert host["ExtraHosts"] == ["db:1.2.3.4"] and host["CapAdd"] == ["SYS_TIME"] and host["OomScoreAdj"] == 7
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 20, "Soft": 10}, {"Name": "core", "Hard": -1, "Soft": -1}]
    assert host["Tmpfs"] == {"/t": "size=1m"} and host["Annotations"] == {"note": "x"}
    assert host["ReadonlyRootfs"] is True and host["Init"] is True
    assert host["Binds"][0] == "seen:/v:ro"
    config = made["Config"]
    assert config["Entrypoint"] == ["sh", "-c"] and config["Cmd"] == ["exit 0"]
    assert (made["Path"], made["Args"]) == ("sh", ["-c", "exit 0"])
    assert config["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}} and config["Volumes"] == {"/anonymous": {}}
    assert (config["StopSignal"], config["StopTimeout"], config["Domainname"]) == ("INT", 3, "ex.org")
    assert (made["SizeRw"], made["SizeRootFs"]) == (0, engine.images.inspect("inspected")["Size"])


def test_mounts(made: dict[str, Any]) -> None:
    """What the engine itself mounts, as /etc/hosts here, is not listed."""
    mounts = {mount["Destination"]: mount for mount in made["Mounts"]}
    assert set(mounts) == {"/v", "/b", "/anonymous"}
    assert (mounts["/v"]["Type"], mounts["/v"]["Name"], mounts["/v"]["RW"], mounts["/v"]["Driver"]) == (
        *("volume", "seen", False),
        "local",
    )
    assert (mounts["/b"]["Type"], mounts["/b"]["RW"], mounts["/b"]["Propagation"]) == ("bind", True, "rslave")
    assert len(mounts["/anonymous"]["Name"]) == 64
    assert made["HostsPath"].endswith("/hosts") and made["ResolvConfPath"] == ""


def test_an_entrypoint_of_the_callers_drops_the_images_command(engine: sampan.Engine) -> None:
    made = engine.containers.create("base", RunOptions(entrypoint=["true"]))
    try:
        config = engine.containers.inspect(made)["Config"]
        assert (config["Entrypoint"], config["Cmd"]) == (["true"], None)
    finally:
        engine.containers.remove(made)


def test_limits_of_devices_are_shown_with_their_paths(engine: sampan.Engine) -> None:
    disks = [path for path in pathlib.Path("/dev").iterdir() if path.is_block_device()]
    if not disks:
        pytest.skip("this host has no block device")
    disk = str(disks[0])
    options = RunOptions(command=["true"], device_read_bps=[f"{disk}:1mb"], device_write_iops=[f"{disk}:50"])
    made = engine.containers.create("base", options)
    try:
        host = engine.containers.inspect(made)["HostConfig"]
        assert host["BlkioDeviceReadBps"] == [{"Path": disk, "Rate": 1 << 20}]
        assert host["BlkioDeviceWriteIOps"] == [{"Path": disk, "Rate": 50}]
    finally:
        engine.containers.remove(made)
