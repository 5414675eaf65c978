"""The words of `run`: what they become, and which are refused."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from sampan.cli import main, mounts, options, runflags, variables
from sampan.errors import InvalidArgument, NotSupported, SampanError


def asked(*words: str) -> Any:
    return runflags.run_options(options.parse([*words, "image", "prog", "-x"], main.load_command("run").OPTIONS))


@pytest.mark.parametrize(
    ("words", "field", "expected"),
    [
        ([], "command", ["prog", "-x"]),
        ([], "entrypoint", None),
        (["--entrypoint", "/e"], "entrypoint", ["/e"]),
        (["--entrypoint", ""], "entrypoint", []),
        (["-e", "A=1", "-eB=2"], "env", ["A=1", "B=2"]),
        (["-w", "/w"], "workdir", "/w"),
        (["-u", "1:2"], "user", "1:2"),
        (["--group-add", "5"], "group_add", ["5"]),
        (["-h", "box"], "hostname", "box"),
        ([], "network", "none"),
        (["--net=host"], "network", "host"),
        (["--network", "host"], "network", "host"),
        (["--pid=host"], "pid", "host"),
        (["--ipc", "host"], "ipc", "host"),
        (["--uts", "host"], "uts", "host"),
        (["-m", "64m"], "memory", 64 << 20),
        (["--memory-swap", "-1"], "memory_swap", -1),
        (["--memory-reservation", "1m"], "memory_reservation", 1 << 20),
        (["--shm-size", "1g"], "shm_size", 1 << 30),
        (["--cpus", "1.5"], "cpus", 1.5),
        (["-c", "512"], "cpu_shares", 512),
        (["--cpuset-cpus", "0-1"], "cpuset", "0-1"),
        (["--pids-limit", "10"], "pids_limit", 10),
        (["--ulimit", "nofile=1:2"], "ulimits", ["nofile=1:2"]),
        (["--oom-score-adj", "-5"], "oom_score_adj", -5),
        (["--cap-add", "SYS_TIME"], "cap_add", ["SYS_TIME"]),
        (["--cap-drop=ALL"], "cap_drop", ["ALL"]),
        (["--security-opt", "no-new-privileges"], "security_opt", ["no-new-privileges"]),
        (["--privileged"], "privileged", True),
        (["--device", "/dev/fuse"], "devices", ["/dev/fuse"]),
        (["--sysctl", "net.x=1"], "sysctls", {"net.x": "1"}),
        (["-l", "a=b", "--label", "c"], "labels", {"a": "b", "c": ""}),
        (["--annotation", "a=b"], "annotations", {"a": "b"}),
        (["--add-host", "a:1.2.3.4"], "add_host", ["a:1.2.3.4"]),
        (["--dns", "1.1.1.1", "--dns-opt", "debug"], "dns_option", ["debug"]),
        (["--volumes-from", "x:ro"], "volumes_from", ["x:ro"]),
        (["--expose", "80-81/udp"], "expose", ["80-81/udp"]),
        (["--cpu-period", "50000", "--cpu-quota", "-1"], "cpu_quota", -1),
        (["--device-read-bps", "/dev/a:1mb"], "device_read_bps", ["/dev/a:1mb"]),
        (["--device-cgroup-rule", "c 1:3 r"], "device_cgroup_rules", ["c 1:3 r"]),
        (["--oom-kill-disable"], "oom_kill_disable", True),
        (["--init"], "init", True),
        (["-it"], "tty", True),
        (["-it"], "interactive", True),
        (["--read-only"], "read_only", True),
        (["--tmpfs", "/t:size=1m"], "tmpfs", ["/t:size=1m"]),
        (["--stop-signal", "INT"], "stop_signal", "INT"),
        (["--stop-timeout", "3"], "stop_timeout", 3),
        (["-v", "/a:/b:ro"], "mounts", [("bind", "/a", "/b", ["ro", "create"])]),
        (["--mount", "type=tmpfs,dst=/t"], "mounts", [("tmpfs", "tmpfs", "/t", ["nosuid", "nodev", "noexec", "rw"])]),
    ],
)
def test_run_options(words: list[str], field: str, expected: object) -> None:
    assert getattr(asked(*words), field) == expected


def test_every_option_of_run_reaches_the_engine_or_is_refused() -> None:
    """An option that is parsed and then forgotten would make a container weaker than asked."""
    elsewhere = {"cidfile", "name", "platform", "pull", "rm", "detach", "detach_keys", "explain", "sig_proxy"}
    elsewhere |= {"attach", "disable_content_trust", "isolation", "quiet", "volume_driver"}
    elsewhere |= {"env", "env_file", "label", "label_file", "volume", "mount", "entrypoint"}
    for option in main.load_command("run").OPTIONS.options:
        name = options.field(option.long)
        assert option.refuse or name in elsewhere or name in runflags._SAME or name in runflags._NAMES, name


@pytest.mark.parametrize("words", [["-p", "80:80"], ["--ip", "1.1.1.1"], ["--cpu-count", "1"], ["--gpus", "all"]])
def test_what_is_not_there_is_refused_by_name(words: list[str]) -> None:
    with pytest.raises(NotSupported, match=words[0]):
        asked(*words)


def test_publish_points_at_the_host_network() -> None:
    with pytest.raises(NotSupported) as caught:
        asked("-p", "8080:80")
    assert caught.value.hint == "use --network host"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/data", ("volume", "", "/data", ["rw"])),
        ("vol:/data", ("volume", "vol", "/data", ["rw"])),
        ("vol:/data:ro,nocopy", ("volume", "vol", "/data", ["ro", "nocopy"])),
        ("/src:/dst", ("bind", "/src", "/dst", ["rw", "create"])),
        ("/src/../x:/dst:rw,rshared", ("bind", "/x", "/dst", ["rw", "rshared", "create"])),
        (".:/dst", ("bind", os.getcwd(), "/dst", ["rw", "create"])),
        ("./sub:/dst", ("bind", os.getcwd() + "/sub", "/dst", ["rw", "create"])),
    ],
)
def test_volumes(word: str, expected: object) -> None:
    assert mounts.volume(word) == expected


@pytest.mark.parametrize(
    "word", ["", ":", "a:", ":/b", "/a:/b:ro:x", "../:", "v$:/x", "-x:/y", "a/b:/c", "ö:/x", "a" * 300 + ":/x"]
)
def test_bad_volumes(word: str) -> None:
    with pytest.raises(InvalidArgument):
        mounts.volume(word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("type=bind,source=/a,target=/b", ("bind", "/a", "/b", ["rbind", "rprivate", "rw"])),
        ("type=bind,src=/a,dst=/b,ro", ("bind", "/a", "/b", ["rbind", "rprivate", "ro"])),
        ("type=bind,src=/a:x,dst=/b,readonly=false", ("bind", "/a:x", "/b", ["rbind", "rprivate", "rw"])),
        ('type=bind,"src=/a,b",dst=/b', ("bind", "/a,b", "/b", ["rbind", "rprivate", "rw"])),
        ("type=bind,src=/a,dst=/b,bind-propagation=rslave", ("bind", "/a", "/b", ["rbind", "rslave", "rw"])),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", ("bind", "/a", "/b", ["bind", "rprivate", "rw"])),
        ("src=vol,dst=/b", ("volume", "vol", "/b", ["rw"])),
        ("type=volume,dst=/b,volume-nocopy", ("volume", "", "/b", ["rw", "nocopy"])),
        (
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777",
            ("tmpfs", "tmpfs", "/t", ["nosuid", "nodev", "noexec", "rw", "size=1048576", "mode=1777"]),
        ),
    ],
)
def test_mounts(word: str, expected: object) -> None:
    assert mounts.mount(word) == expected


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("type=bind,src=/a", "needs a target"),
        ("type=bind,dst=/b", "needs a source"),
        ("type=bind,src=/a,dst=/b,dst=/c", "twice"),
        ("type=bind,src=/a,dst=/b,readnly=true", "readnly"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "tmpfs-size"),
        ("type=bind,src=/a,dst=/b,nonsense", "KEY=VALUE"),
        ("type=bind,src=/a,dst=/b,bind-propagation=x", "propagation"),
        ("type=tmpfs,src=/a,dst=/b", "no source"),
        ("type=tmpfs,dst=/b,tmpfs-mode=9", "tmpfs-mode"),
        ("type=npipe,src=/a,dst=/b", "npipe"),
        ('type=bind,"src=/a,dst=/b', "quote"),
        ("type=volume,src=v,dst=/b,volume-opt=x", "volume-opt"),
        ("", "KEY=VALUE"),
    ],
)
def test_bad_mounts(word: str, why: str) -> None:
    with pytest.raises(SampanError, match=why):
        mounts.mount(word)


def test_variables_come_from_files_then_words_then_the_caller(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_CALLER", "c")
    monkeypatch.delenv("ABSENT", raising=False)
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbf# note\n\nA=1\n  B= two words \r\nFROM_CALLER\nABSENT\nC=\n")
    found = variables.environment([str(file)], ["A=2", "FROM_CALLER", "ABSENT"])
    assert found == ["A=1", "B= two words ", "FROM_CALLER=c", "C=", "A=2", "FROM_CALLER=c"]
    assert variables.build_arguments(["X=1=2", "FROM_CALLER", "ABSENT"]) == {"X": "1=2", "FROM_CALLER": "c"}


@pytest.mark.parametrize("text", [b"A B=1\n", b"=x\n", b"\xff=1\n", b"A\xa0\xff"])
def test_bad_variable_files_are_located(tmp_path: pathlib.Path, text: bytes) -> None:
    file = tmp_path / "env"
    file.write_bytes(text)
    with pytest.raises(InvalidArgument, match=str(file)):
        variables.environment([str(file)], [])


def test_a_huge_variable_file_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="larger than"):
        variables.environment(["/dev/zero"], [])
