"""The runtime configuration: Docker's defaults, Docker's merging rules, and hostile images."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import pytest

from sampan.errors import InvalidArgument, NotSupported
from sampan.oci import capabilities, jsontext, options
from sampan.oci.spec import RunOptions, config_for, host_devices, options_dict

IMAGE: dict[str, Any] = {"config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "LANG=C"]}}


def look(path: str) -> os.stat_result:
    if path == "/dev/fuse":
        return os.stat_result((stat.S_IFCHR | 0o666, 1, 1, 1, 0, 5, 0, 0, 0, 0), {"st_rdev": os.makedev(10, 229)})
    raise FileNotFoundError(2, "No such file or directory", path)


def spec(config: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    image = {"config": config} if config is not None else IMAGE
    return config_for(image, RunOptions(**fields), rootless=False, look=look)


def mount(found: dict[str, Any], destination: str) -> dict[str, Any]:
    (one,) = [entry for entry in found["mounts"] if entry["destination"] == destination]
    return dict(one)


@pytest.mark.parametrize(
    ("config", "fields", "expected"),
    [
        ({"Cmd": ["sh"]}, {}, ["sh"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {}, ["e", "c"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": ["x", "y"]}, ["e", "x", "y"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": ["n"]}, ["n"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": ["n"], "command": ["x"]}, ["n", "x"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": [""], "command": ["x"]}, ["x"]),
        ({"Entrypoint": None, "Cmd": None}, {"command": ["x"]}, ["x"]),
    ],
)
def test_entrypoint_and_command_combine_as_in_docker(
    config: dict[str, Any], fields: dict[str, Any], expected: list[str]
) -> None:
    assert spec(config, **fields)["process"]["args"] == expected


@pytest.mark.parametrize("fields", [{}, {"entrypoint": [""]}, {"entrypoint": []}])
def test_no_command_at_all_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        spec({"Cmd": ["c"]} if fields else {}, **fields)


def test_a_later_variable_wins_and_path_has_a_default() -> None:
    assert spec(env=["LANG=de", "A=1=2"])["process"]["env"] == ["PATH=/bin", "LANG=de", "A=1=2"]
    assert spec({"Cmd": ["x"]})["process"]["env"] == ["PATH=" + options.DEFAULT_PATH]
    found = spec({"Cmd": ["x"], "Env": ["A=1", "A=2"]}, tty=True, hostname="box")["process"]["env"]
    assert found[1:] == ["HOSTNAME=box", "TERM=xterm", "A=2"]


@pytest.mark.parametrize(
    "entry", ["NAME", "*", "X*", "=x", "", "A\nB=1", "A=\0", "A B=1", "X*=1", "A=" + "x" * 131072, "A=\ud800"]
)
def test_malformed_environment_of_an_image_is_refused(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "host-secret")
    with pytest.raises(InvalidArgument):
        spec({"Cmd": ["x"], "Env": [entry]})


def test_ten_megabytes_of_environment_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="environment"):
        spec({"Cmd": ["x"], "Env": [f"A{number}=" + "x" * 100_000 for number in range(100)]})


def test_nothing_of_the_hosts_environment_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_TEST_SECRET", "host-secret")
    assert "host-secret" not in json.dumps(spec())


def test_default_capabilities_are_dockers_fourteen_and_not_inheritable() -> None:
    found = spec()["process"]["capabilities"]
    assert set(found["bounding"]) == set(capabilities.DEFAULT) and len(found["bounding"]) == 14
    assert found["bounding"] == found["effective"] == found["permitted"]
    assert found["inheritable"] == found["ambient"] == []


@pytest.mark.parametrize(
    ("fields", "count", "has", "lacks"),
    [
        ({"cap_add": ["sys_admin"]}, 15, "CAP_SYS_ADMIN", "CAP_BPF"),
        ({"cap_drop": ["CAP_CHOWN"]}, 13, "CAP_KILL", "CAP_CHOWN"),
        ({"cap_drop": ["ALL"], "cap_add": ["chown"]}, 1, "CAP_CHOWN", "CAP_KILL"),
        ({"cap_add": ["ALL"], "cap_drop": ["SYS_ADMIN"]}, 40, "CAP_BPF", "CAP_SYS_ADMIN"),
        ({"privileged": True}, 41, "CAP_SYS_ADMIN", "CAP_NONE"),
        ({"privileged": True, "cap_drop": ["SYS_BOOT"]}, 40, "CAP_SYS_ADMIN", "CAP_SYS_BOOT"),
    ],
)
def test_capabilities_are_added_and_dropped(fields: dict[str, Any], count: int, has: str, lacks: str) -> None:
    found = spec(**fields)["process"]["capabilities"]["bounding"]
    assert len(found) == count and has in found and lacks not in found


def test_masked_and_read_only_paths_are_there_unless_given_up() -> None:
    linux = spec()["linux"]
    for name in (
        "acpi",
        "asound",
        "interrupts",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "timer_stats",
    ):
        assert f"/proc/{name}" in linux["maskedPaths"]
    assert {"/sys/firmware", "/sys/devices/virtual/powercap", "/proc/timer_list"} <= set(linux["maskedPaths"])
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    for fields in ({"privileged": True}, {"security_opt": ["systempaths=unconfined"]}):
        open_linux = spec(**fields)["linux"]
        assert open_linux["maskedPaths"] == open_linux["readonlyPaths"] == []


def test_heat_of_every_cpu_is_masked_where_the_host_shows_it() -> None:
    found = config_for(IMAGE, RunOptions(), rootless=False, look=lambda path: os.stat("/"))["linux"]["maskedPaths"]
    assert "/sys/devices/system/cpu/cpu0/thermal_throttle" in found
    assert sum("thermal_throttle" in path for path in found) == os.cpu_count()


def test_default_mounts_are_locked_down() -> None:
    found = spec()
    assert [entry["destination"] for entry in found["mounts"]] == (
        ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    )
    assert "ro" in mount(found, "/sys")["options"] and "ro" in mount(found, "/sys/fs/cgroup")["options"]
    assert f"size={64 << 20}" in mount(found, "/dev/shm")["options"]
    assert "size=1048576" in mount(spec(shm_size=1 << 20), "/dev/shm")["options"]


def test_host_namespaces_are_shared_only_when_asked() -> None:
    def kinds(**fields: Any) -> set[str]:
        return {entry["type"] for entry in spec(**fields)["linux"]["namespaces"]}

    everything = {"mount", "cgroup", "pid", "ipc", "uts", "network"}
    assert kinds() == everything
    assert kinds(network="host", pid="host", ipc="host", uts="host") == {"mount", "cgroup"}
    assert mount(spec(ipc="host"), "/dev/shm")["type"] == "bind"
    assert "hostname" not in spec(uts="host")
    rootless = config_for(IMAGE, RunOptions(network="host"), rootless=True, look=look, container_id="a" * 64)
    assert rootless["hostname"] == os.uname().nodename, "as with Docker"
    named = config_for(IMAGE, RunOptions(network="host", hostname="box"), rootless=True, look=look)
    assert named["hostname"] == "box"
    assert mount(rootless, "/sys")["type"] == "bind" and "ro" in mount(rootless, "/sys")["options"]
    asked: list[dict[str, Any]] = [{"network": "bridge"}, {"pid": "other"}, {"ipc": "container:x"}]
    for fields in asked:
        with pytest.raises(NotSupported):
            spec(**fields)


def test_volumes_binds_and_tmpfs_follow_the_default_mounts_outer_first() -> None:
    found = spec(
        {"Cmd": ["x"], "Volumes": {"/data": {}, "/srv/": {}}},
        mounts=[
            ("bind", "/src", "/a/b/c", ["ro"]),
            ("volume", "cache", "/srv", ["rw"]),
            ("tmpfs", "", "/tmp", ["size=5m"]),
        ],
        tmpfs=["/run:rw,exec,size=1m", "/x"],
    )
    asked = found["mounts"][7:]
    assert [entry["destination"] for entry in asked] == ["/srv", "/tmp", "/run", "/x", "/data", "/a/b/c"]
    assert mount(found, "/a/b/c") == {
        "type": "bind",
        "source": "/src",
        "destination": "/a/b/c",
        "options": ["rbind", "ro"],
    }
    assert mount(found, "/srv")["source"] == "cache"
    assert mount(found, "/data") == {"type": "volume", "source": "", "destination": "/data", "options": ["rw"]}
    assert mount(found, "/x")["options"] == ["noexec", "nosuid", "nodev"]
    assert mount(found, "/run")["options"] == ["nosuid", "nodev", "rw", "exec", "size=1m"]


def test_a_bind_over_a_default_mount_replaces_it() -> None:
    assert mount(spec(mounts=[("bind", "/dev/shm", "/dev/shm", [])]), "/dev/shm")["type"] == "bind"


@pytest.mark.parametrize(
    "path", ["/proc", "/proc/", "//proc", "/x/../proc", "/proc/self", "/proc/sys/kernel", "/", "/..", "rel"]
)
def test_mounts_over_proc_or_the_root_are_refused_from_users_and_images(path: str) -> None:
    with pytest.raises(InvalidArgument):
        spec(mounts=[("bind", "/src", path, [])])
    with pytest.raises(InvalidArgument):
        spec(tmpfs=[path])
    with pytest.raises(InvalidArgument):
        spec({"Cmd": ["x"], "Volumes": {path: {}}})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mounts": [("bind", "rel", "/x", [])]}, "absolute"),
        ({"mounts": [("bind", "/a\0", "/x", [])]}, "absolute"),
        ({"mounts": [("bind", "/a", "/x", ["suidd"])]}, "unknown option"),
        ({"mounts": [("volume", "a", "/x", ["lowerdir=/"])]}, "unknown option"),
        ({"mounts": [("bind", "/a", "/x", []), ("bind", "/b", "/x/", [])]}, "two of them"),
        ({"tmpfs": ["/x:size=1,context=y"]}, "unknown option"),
        ({"workdir": "rel"}, "--workdir"),
        ({"memory": 1}, "--memory"),
        ({"memory": -5}, "--memory"),
        ({"memory": "64m"}, "--memory"),
        ({"memory_swap": 1 << 30}, "--memory-swap"),
        ({"memory": 64 << 20, "memory_swap": 1 << 20}, "--memory-swap"),
        ({"cpus": "x"}, "--cpus"),
        ({"cpus": float("nan")}, "--cpus"),
        ({"cpus": -1}, "--cpus"),
        ({"cpu_shares": 1}, "--cpu-shares"),
        ({"cpuset": "0;1"}, "--cpuset"),
        ({"pids_limit": "many"}, "--pids-limit"),
        ({"ulimits": ["nofile"]}, "--ulimit"),
        ({"ulimits": ["files=1"]}, "--ulimit"),
        ({"ulimits": ["nofile=2:1"]}, "--ulimit"),
        ({"ulimits": ["nofile=-2"]}, "--ulimit"),
        ({"cap_add": ["SYS_ADMINN"]}, "--cap-add"),
        ({"cap_drop": ["x"]}, "--cap-drop"),
        ({"security_opt": ["seccmp=x"]}, "--security-opt"),
        ({"oom_score_adj": 2000}, "--oom-score-adj"),
        ({"hostname": "a b"}, "--hostname"),
        ({"hostname": "x" * 65}, "--hostname"),
        ({"hostname": "x", "uts": "host"}, "--hostname"),
        ({"devices": ["/dev/none"]}, "--device"),
        ({"devices": ["/dev/fuse:/etc/x"]}, "--device"),
        ({"devices": ["/dev/fuse:/dev/../x"]}, "--device"),
        ({"devices": ["/dev/fuse:/dev/x:q"]}, "--device"),
        ({"sysctls": {"kernel.panic": "1"}}, "--sysctl"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}, "network": "host"}, "--sysctl"),
        ({"sysctls": {"net.ipv4/x": "1"}}, "--sysctl"),
        ({"user": "a\nb"}, "user"),
        ({"stop_signal": "TERM;x"}, "stop signal"),
        ({"command": ["a\0b"]}, "NUL"),
    ],
)
def test_wrong_values_are_refused_naming_the_option(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        spec(**fields)


def test_limits_become_resources() -> None:
    found = spec(memory=64 << 20, cpus=1.5, cpu_shares=512, cpuset="0-1,3", pids_limit=10)["linux"]["resources"]
    assert found["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert found["cpu"] == {"quota": 150_000, "period": 100_000, "shares": 512, "cpus": "0-1,3"}
    assert found["pids"] == {"limit": 10}
    assert spec(memory=64 << 20, memory_swap=-1)["linux"]["resources"]["memory"]["swap"] == -1
    assert set(spec()["linux"]["resources"]) == {"devices"}


def test_ulimits_become_rlimits() -> None:
    assert spec(ulimits=["nofile=1024", "core=0:-1"])["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1},
    ]


def test_a_device_is_made_and_allowed() -> None:
    found = spec(devices=["/dev/fuse:/dev/inner:rw"])
    assert host_devices(found) == [("inner", stat.S_IFCHR | 0o666, 10, 229, 0, 5, "/dev/fuse")]
    assert found["linux"]["resources"]["devices"][-1] == {
        "allow": True,
        "type": "c",
        "major": 10,
        "minor": 229,
        "access": "rw",
    }
    assert found["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert spec(devices=["/dev/fuse:r"])["linux"]["devices"][0]["path"] == "/dev/fuse"


def test_security_options() -> None:
    assert spec()["linux"]["seccomp"] == {"sampan": "default"}
    assert spec(security_opt=["seccomp=unconfined"])["linux"]["seccomp"] == {"sampan": "unconfined"}
    assert spec(security_opt=["seccomp:/p.json"])["linux"]["seccomp"] == {"sampan": "/p.json"}
    assert spec(privileged=True)["linux"]["seccomp"] == {"sampan": "unconfined"}
    for text in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
        assert spec(security_opt=[text])["process"]["noNewPrivileges"] is True
    assert spec(security_opt=["apparmor=unconfined", "label=disable"])["process"]["noNewPrivileges"] is False
    with pytest.raises(NotSupported):
        spec(security_opt=["apparmor=mine"])


def test_labels_of_an_image_change_nothing() -> None:
    labels = {"sampan.stop_signal": "KILL", "run.oci.handler": "x", "io.kubernetes.container.logPath": "/x"}
    assert spec({"Cmd": ["sh"], "Labels": labels}) == spec({"Cmd": ["sh"]})


def test_user_stays_text_and_the_rest_of_the_process_is_as_asked() -> None:
    config = {"Cmd": ["sh"], "User": "app:staff", "WorkingDir": "srv", "StopSignal": "SIGQUIT"}
    process = spec(config, group_add=["5"], init=True, tty=True, oom_score_adj=5)["process"]
    assert process["user"] == {"username": "app:staff", "additionalGids": ["5"]}
    assert (process["cwd"], process["terminal"], process["sampan.init"], process["oomScoreAdj"]) == (
        "/srv",
        True,
        True,
        5,
    )
    assert spec(config, user="0")["process"]["user"] == {"username": "0"}
    assert spec(config)["annotations"] == {"sampan.stop_signal": "SIGQUIT"}
    assert spec(config, stop_signal="INT")["annotations"] == {"sampan.stop_signal": "INT"}
    assert spec(read_only=True)["root"] == {"path": "", "readonly": True}


def test_the_configuration_and_the_options_are_json() -> None:
    found = spec(env=["A=b"], memory=64 << 20)
    assert jsontext.loads(jsontext.dumps(found)) == found
    asked = RunOptions(env=["A=b"], memory=5, stop_timeout=3)
    assert options_dict(asked) == {"env": ["A=b"], "memory": 5, "stop_timeout": 3}
    assert options_dict(RunOptions()) == {}
    with pytest.raises(InvalidArgument):
        RunOptions(memori=5)


@pytest.mark.parametrize("access", ["r", "w", "rm"])
def test_a_narrowed_device_is_refused_where_nothing_would_narrow_it(access: str) -> None:
    asked = RunOptions(devices=[f"/dev/fuse:/dev/fuse:{access}"])
    with pytest.raises(NotSupported, match="cannot narrow access to /dev/fuse"):
        config_for(IMAGE, asked, rootless=True, look=look)
    assert config_for(IMAGE, asked, rootless=False, look=look)["linux"]["devices"][0]["sampan.access"] == access
    config_for(IMAGE, RunOptions(devices=["/dev/fuse:/dev/fuse:rw"]), rootless=True, look=look)


def test_half_a_surrogate_pair_is_no_path() -> None:
    with pytest.raises(InvalidArgument, match="working directory"):
        spec({"Cmd": ["x"], "WorkingDir": "/\ud800"})
    with pytest.raises(InvalidArgument, match="volume of the image"):
        spec({"Cmd": ["x"], "Volumes": {"/\ud800": {}}})
    assert spec({"Cmd": ["x"], "WorkingDir": "/\udcff"})["process"]["cwd"] == "/\udcff"  # a byte that is not UTF-8
