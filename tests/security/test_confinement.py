"""What a process in a container is and may do, the same on every way in; each attack works where it is not confined."""

from __future__ import annotations

import os
import struct
import subprocess
import tarfile
import tempfile

import pytest
from attackkit import ROOT, Image, command, status, table

import sampan
from sampan.build.progress import Event
from sampan.oci import capabilities
from sampan.runtime import cgrouphost

# ---- 12, 37: control groups ----


def outside(attack: str, *words: str) -> bytes:
    """Run an attack as root of namespaces of its own that hide nothing: what it mounts goes with it."""
    flags = ["--mount", "--propagation", "private"] if ROOT else ["--map-root-user", "--mount"]
    return subprocess.run(["unshare", *flags, attack, *words], capture_output=True, check=True).stdout


def test_no_control_group_can_be_written(engine: sampan.Engine, image: str, attack: str) -> None:
    control = table(outside(attack, "cgroups"))
    assert control["unshare"] == 0 and (0 in (control["mkdir"], control["mount_cgroup2"]) or not ROOT)
    for flags in ([], ["--pids-limit", "50"], ["--security-opt", "seccomp=unconfined"]):
        if "--pids-limit" in flags and not can_limit():
            continue
        done = command(engine, "run", "--rm", *flags, image, "/attack", "cgroups")
        found = table(done.stdout)
        found.pop("unshare")  # without the filter a user namespace may be made: what it then may do is the next test
        assert found and 0 not in found.values(), (flags, found)


def test_a_user_namespace_inside_brings_no_control_group(engine: sampan.Engine) -> None:
    """CVE-2022-0492: root of a new user and cgroup namespace mounts the hierarchy and writes its release_agent."""
    script = "unshare -UrmC sh -c 'mount -t cgroup -o memory x /mnt && echo bad > /mnt/release_agent && echo WROTE'"
    engine.bootstrap("host", "unshare", ["sh", "unshare", "mount", "mkdir"])
    flags = ["--security-opt", "seccomp=unconfined"]
    result = command(engine, "run", "--rm", *flags, "unshare", "sh", "-c", f"mkdir -p /mnt; {script}")
    assert b"WROTE" not in result.stdout, result


def can_limit() -> bool:
    layout = cgrouphost.detect(rootless=not ROOT)
    return bool(layout.v2_base or layout.v1)


@pytest.mark.skipif(not can_limit(), reason="this user has no control group of its own (cgroup v2 with delegation)")
def test_a_container_and_what_enters_it_stay_in_its_limited_group(engine: sampan.Engine, image: str) -> None:
    """CVE-2025-47291, and what is seen inside: the own group alone, with the limit that was asked for."""
    words = ["run", "-d", "--memory", "64m", "--pids-limit", "77", image, "/attack", "sleep", "600"]
    name = command(engine, *words).stdout.decode().strip()
    try:
        record = engine.containers.get(name)
        entered = subprocess.Popen(engine.command(["exec", name, "/attack", "sleep", "600"]))
        inside = command(engine, "exec", name, "/attack", "identity").stdout.decode()
        with open(f"/proc/{record.pid}/cgroup", encoding="ascii") as file:
            groups = file.read()
        entered.kill()
        entered.wait()
    finally:
        command(engine, "rm", "-f", name)
    limited = [line for line in groups.splitlines() if record.id in line]
    assert len(limited) >= 2 or [line for line in limited if line.startswith("0::")], groups
    assert {line.rpartition(":")[2] for line in inside.splitlines() if line.split(":")[0].isdigit()} == {"/"}
    script = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max"
    result = command(engine, "run", "--rm", "--pids-limit", "77", "base", "sh", "-c", script)
    assert result.stdout == b"77\n", result


# ---- 13: masked and read-only paths, one by one ----

FILES = ["interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"]
DIRECTORIES = ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@pytest.mark.parametrize("flags", [[], ["--pid", "host"]], ids=["own", "hosts"])
def test_masked_files_are_empty_and_masked_directories_too(engine: sampan.Engine, flags: list[str]) -> None:
    script = "; ".join(f"cat /proc/{name} 2>/dev/null" for name in FILES)
    script += "; " + "; ".join(f"ls -A {path} 2>/dev/null" for path in DIRECTORIES)
    script += "; cat /sys/devices/system/cpu/cpu0/thermal_throttle/* 2>/dev/null; :"
    result = command(engine, "run", "--rm", *flags, "base", "sh", "-c", script)
    assert (result.returncode, result.stdout) == (0, b"")
    shown = [name for name in FILES if os.path.exists(f"/proc/{name}")]
    assert subprocess.run(["cat", *(f"/proc/{name}" for name in shown if name != "kcore")], capture_output=True).stdout


def test_masked_and_read_only_files_take_nothing(engine: sampan.Engine) -> None:
    paths = [f"/proc/{name}" for name in FILES] + [f"{path}/x" for path in (*DIRECTORIES, *READ_ONLY[:4])]
    paths += ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/sys/x"]
    script = "".join(f"(echo x > {path}) 2>/dev/null && echo {path};" for path in paths) + ":"
    written = command(engine, "run", "--rm", "base", "sh", "-c", script).stdout.decode().split()
    # A masked file is the null device, where a write is lost.
    assert set(written) <= {f"/proc/{name}" for name in FILES}
    assert not command(engine, "run", "--rm", "base", "sh", "-c", "cat " + " ".join(written)).stdout


# ---- 15: capabilities ----


def capability_file(bits: int) -> str:
    """Give the value of security.capability (linux/capability.h, VFS_CAP_REVISION_2) that permits and raises bits."""
    data = struct.pack("<IIIII", 0x02000001, bits & 0xFFFFFFFF, 0, bits >> 32, 0)
    return data.decode("utf-8", "surrogateescape")


def with_capability(engine: sampan.Engine, attack: str, name: str, capability: str) -> str:
    made = Image().add("etc/passwd", b"root:x:0:0::/:\n")
    with open(attack, "rb") as source:
        data = source.read()
    value = capability_file(capabilities.mask([capability]))
    made.add("attack", data, mode=0o755).add("capable", data, mode=0o755, xattrs={"security.capability": value})
    return made.load(engine, name)


def test_the_default_capabilities_are_dockers_fourteen(engine: sampan.Engine, image: str) -> None:
    docker = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT"
    assert set(capabilities.DEFAULT) == {f"CAP_{name}" for name in (*docker.split(), "KILL", "AUDIT_WRITE")}
    seen = status(engine.run(image, ["/attack", "identity"]).stdout)
    wanted = capabilities.mask(capabilities.DEFAULT) & engine.host.cap_mask()
    assert [int(seen[key], 16) for key in ("CapBnd", "CapPrm", "CapEff")] == [wanted] * 3
    assert int(seen["CapInh"], 16) == int(seen["CapAmb"], 16) == 0


@pytest.mark.skipif(not ROOT, reason="files of an ordinary user's images cannot have capabilities of the host's")
def test_a_user_gains_no_capability_beyond_the_containers(engine: sampan.Engine, attack: str) -> None:
    """CVE-2022-24769: inheritable capabilities let a file's inheritable ones become permitted."""
    allowed = with_capability(engine, attack, "allowed", "CAP_NET_RAW")
    denied = with_capability(engine, attack, "denied", "CAP_SYS_PTRACE")
    seen = status(engine.run(allowed, ["/capable", "identity"], user="1000").stdout)
    assert int(seen["CapEff"], 16) == capabilities.mask(["CAP_NET_RAW"])  # the control: the file's capability works
    result = engine.run(denied, ["/attack", "identity"], user="1000")
    assert int(status(result.stdout)["CapEff"], 16) == 0
    refused = command(engine, "run", "--rm", "-u", "1000", denied, "/capable", "identity")
    assert refused.returncode == 126 and b"Operation not permitted" in refused.stderr
    words = ["run", "--rm", "-u", "1000", "--security-opt", "no-new-privileges", allowed, "/capable", "identity"]
    assert int(status(command(engine, *words).stdout)["CapEff"], 16) == 0


def test_a_program_is_looked_up_with_the_users_own_rights(engine: sampan.Engine, attack: str) -> None:
    with open(attack, "rb") as source:
        made = Image(attack).add("closed", kind=tarfile.DIRTYPE, mode=0o700).add("closed/x", source.read(), mode=0o755)
    name = made.load(engine, "closed")
    assert engine.run(name, ["/closed/x", "fds"]).exit_code == 0
    if can_change_user(engine):
        refused = command(engine, "run", "--rm", "-u", "1000", name, "/closed/x", "fds")
        assert refused.returncode == 126 and b"Permission denied" in refused.stderr


def can_change_user(engine: sampan.Engine) -> bool:
    return engine.host.counts()[0] > 1000


# ---- 29: every way in ----


def confinement(data: bytes) -> list[str]:
    """Give what must be the same for two processes, without the namespaces' numbers."""
    return [line for line in data.decode().splitlines() if not line.startswith("ns:")]


def spaces(data: bytes) -> list[str]:
    return [line for line in data.decode().splitlines() if line.startswith("ns:")]


def test_all_ways_in_are_confined_alike(engine: sampan.Engine, image: str, attack: str) -> None:
    ways = {
        "run": command(engine, "run", "--rm", image, "/attack", "identity").stdout,
        "run detached": detached(engine, image),
        "library": engine.run(image, ["/attack", "identity"]).stdout,
        "step": step(engine, image),
    }
    name = command(engine, "create", image, "/attack", "identity").stdout.decode().strip()
    ways["start"] = command(engine, "start", "-a", name).stdout
    ways["started again"] = command(engine, "start", "-a", name).stdout
    command(engine, "rm", name)
    container = command(engine, "run", "-d", image, "/attack", "sleep", "600").stdout.decode().strip()
    ways["exec"] = command(engine, "exec", container, "/attack", "identity").stdout
    command(engine, "restart", "-t", "0", container)
    ways["exec after restart"] = command(engine, "exec", container, "/attack", "identity").stdout
    command(engine, "rm", "-f", container)
    for way, seen in ways.items():
        assert confinement(seen) == confinement(ways["run"]) != [], way
        host = spaces(subprocess.run([attack, "identity"], capture_output=True, check=True).stdout)
        assert len(spaces(seen)) == len(host) == 7
        shared = [line.split("[")[0] for line in spaces(seen) if line in host]
        assert shared == (["ns:\tuser:"] if ROOT else []), (way, shared)


def detached(engine: sampan.Engine, image: str) -> bytes:
    name = command(engine, "run", "-d", image, "/attack", "identity").stdout.decode().strip()
    command(engine, "wait", name)
    seen = command(engine, "logs", name).stdout
    command(engine, "rm", name)
    return seen


def step(engine: sampan.Engine, image: str) -> bytes:
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write(f'FROM {image}\nRUN ["/attack", "identity"]\n')
        engine.build(context, tags=["step"], no_cache=True, on_event=events.append)
    return b"".join(event.data for event in events if event.kind == "output")


def test_a_step_has_three_descriptors(engine: sampan.Engine, image: str) -> None:
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write(f'FROM {image}\nRUN ["/attack", "fds"]\n')
        engine.build(context, tags=["step"], no_cache=True, on_event=events.append)
    assert b"".join(event.data for event in events if event.kind == "output").split() == [b"0", b"1", b"2"]


# ---- 30: mounts do not travel ----


@pytest.mark.skipif(not ROOT, reason="mounting beside a running container needs root")
def test_mounts_travel_neither_in_nor_out(engine: sampan.Engine, image: str) -> None:
    with tempfile.TemporaryDirectory() as source:
        os.mkdir(source + "/sub")
        script = (
            'mount --make-rshared /; n=$("$@" run -d --cap-add SYS_ADMIN --security-opt seccomp=unconfined'
            f" -v {source}:/v base sleep 600); mount -t tmpfs x {source}/sub; echo in > {source}/sub/file;"
            ' "$@" exec $n ls /v/sub; "$@" exec $n sh -c \'mkdir /v/out && mount -t tmpfs y /v/out && echo mounted\';'
            f' grep -c {source}/out /proc/self/mountinfo; "$@" rm -f $n >/dev/null'
        )
        words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash", *engine.command([])]
        result = subprocess.run(words, capture_output=True, check=False)
    assert result.stdout.split() == [b"mounted", b"0"], result
