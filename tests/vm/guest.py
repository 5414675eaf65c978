"""Tests of sampan inside the virtual machine of run.py: as root, as an ordinary user with and without delegated groups.

Every check prints `ok NAME`, or `FAIL NAME` with the commands that ran in it and what they printed; the last line
counts the failures. Programs are started with a deadline, since a machine that hangs would tell nothing.
"""

from __future__ import annotations

import io
import json
import os
import pwd
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
SAMPAN = f"{CHECKOUT}/bin/sampan"
GROUPS = "/sys/fs/cgroup"
HOG = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]  # its buffer is 200 MiB
FORKS = "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i+1)); done; wait"

failures: list[str] = []
ran: list[str] = []


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def command(*words: str, text: str = "") -> Ended:
    """Run a command; keep what it printed for a failure's report."""
    started = time.monotonic()
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=90, check=False)
        ended = Ended(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired as error:
        ended = Ended(-1, str(error.stdout or ""), f"no end within 90 s; {error.stderr!r}")
    took = time.monotonic() - started
    ran.append(f"$ {' '.join(words)}  ({took:.1f} s)\n-> {ended.code}\n{ended.out}{ended.err}")
    return ended


def check(test: Callable[[], None]) -> None:
    """Run one test and say how it went."""
    ran.clear()
    try:
        test()
    except Exception:
        failures.append(test.__name__)
        print(f"FAIL {test.__name__}\n" + "\n".join(ran) + "\n" + traceback.format_exc(), flush=True)
    else:
        print(f"ok {test.__name__}", flush=True)


def equal(found: object, wanted: object) -> None:
    """Fail, showing both, unless they are equal."""
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def holds(condition: object, what: str) -> None:
    """Fail with `what` unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def base_tar() -> str:
    """Return the tar to import: the one that was given, else Debian's busybox with its applets."""
    given = f"{CHECKOUT}/base.tar"
    if os.path.exists(given):
        return given
    with tarfile.open("/var/tmp/base.tar", "w") as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        tar.add("/bin/busybox", "bin/busybox")
        for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
        for name, line in (("passwd", b"root:x:0:0:root:/root:/bin/sh\n"), ("group", b"root:x:0:\n")):
            info = tarfile.TarInfo(f"etc/{name}")
            info.size = len(line)
            tar.addfile(info, io.BytesIO(line))
    return "/var/tmp/base.tar"


def sampan(*words: str, text: str = "") -> Ended:
    """Run sampan as root."""
    return command(SAMPAN, *words, text=text)


def left_groups() -> list[str]:
    """Return the containers' groups that are there."""
    return [
        path
        for path, _, _ in os.walk(GROUPS)
        if os.path.basename(path).startswith("sampan-") and path[-8:] != ".service"
    ]


# As root


def root_host() -> None:
    equal(os.path.exists(f"{GROUPS}/cgroup.controllers"), True)
    with open("/proc/self/status", encoding="ascii") as file:
        bounding = next(line.split()[1] for line in file if line.startswith("CapBnd:"))
    holds(int(bounding, 16) & 0xFFFFFFFF == 0xFFFFFFFF, f"the machine itself lacks capabilities: {bounding}")


def root_doctor() -> None:
    found = sampan("doctor")
    equal(found.code, 0)
    print(found.out, flush=True)


def root_import() -> None:
    equal(sampan("import", base_tar(), "base").code, 0)


def root_run() -> None:
    found = sampan("run", "--rm", "base", "true")
    equal((found.code, found.out, found.err), (0, "", ""))
    equal(sampan("run", "--rm", "base", "id", "-u").out, "0\n")


def root_capabilities() -> None:
    default = sampan("run", "--rm", "base", "grep", "CapEff", "/proc/self/status")
    equal((default.out.split()[-1:], default.err), (["00000000a80425fb"], ""))
    whole = sampan("run", "--rm", "--privileged", "base", "grep", "CapEff", "/proc/self/status")
    equal((whole.out.split()[-1:], whole.err), (["000001ffffffffff"], ""))


def root_own_group() -> None:
    equal(sampan("run", "--rm", "base", "cat", "/proc/self/cgroup").out, "0::/\n")


def root_memory() -> None:
    found = sampan("run", "--name", "hog", "--memory", "30m", "base", *HOG)
    equal(found.code, 137)
    state = json.loads(sampan("inspect", "hog").out)[0]["State"]
    equal((state["OOMKilled"], state["ExitCode"], state["Status"]), (True, 137, "exited"))
    equal(sampan("rm", "hog").code, 0)


def root_memory_child() -> None:
    found = sampan("run", "--rm", "--memory", "30m", "base", "sh", "-c", " ".join(HOG) + "; echo $?")
    equal((found.code, found.out.split()[-1:]), (0, ["137"]))


def root_limits() -> None:
    limits = ["--cpus", "0.5", "--memory", "64m", "--memory-swap", "96m", "--pids-limit", "99", "--cpu-shares", "512"]
    limits += ["--cpuset-cpus", "0", "--memory-reservation", "32m"]
    files = ["cpu.max", "memory.max", "memory.swap.max", "pids.max", "cpu.weight", "cpuset.cpus", "memory.low"]
    found = sampan("run", "--rm", *limits, "base", "sh", "-c", f"cd /sys/fs/cgroup && cat {' '.join(files)}")
    equal(found.out.splitlines()[:4], ["50000 100000", str(64 << 20), str(32 << 20), "99"])
    equal(found.out.splitlines()[5:], ["0", str(32 << 20)])


def root_cpus() -> None:
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu.stat"
    found = sampan("run", "--rm", "--cpus", "0.2", "base", "sh", "-c", script)
    counts = dict(line.split() for line in found.out.splitlines())
    holds(int(counts["nr_throttled"]) > 0, "never throttled")


def root_pids() -> None:
    found = sampan("run", "--rm", "--pids-limit", "20", "base", "sh", "-c", FORKS)
    holds(found.code != 0 and "fork" in found.err, "the fork loop was not stopped")


def root_detached() -> None:
    identity = sampan("run", "-d", "--name", "web", "--memory", "64m", "base", "sleep", "1000").out.strip()
    holds(any(identity in path for path in left_groups()), "the running container has no group")
    equal(sampan("exec", "web", "cat", "/proc/self/cgroup").out, "0::/\n")
    holds("sleep" in sampan("exec", "web", "ps").out, "exec does not see the container's processes")
    equal(sampan("stop", "-t", "1", "web").code, 0)
    equal(json.loads(sampan("inspect", "web").out)[0]["State"]["ExitCode"], 137)
    equal(sampan("start", "web").code, 0)
    equal(sampan("rm", "-f", "web").code, 0)


def root_devices() -> None:
    script = "mknod /tmp/d b 253 0 || mknod /tmp/d b 254 0; head -c 1 /tmp/d"
    found = sampan("run", "--rm", "base", "sh", "-c", script)
    holds(found.code != 0 and "Operation not permitted" in found.err, "a block device could be made or read")
    major, minor = os.major(os.stat("/dev/vda").st_rdev), os.minor(os.stat("/dev/vda").st_rdev)
    disk = f"mknod /tmp/d b {major} {minor} && head -c 1 /tmp/d >/dev/null"
    refused = sampan("run", "--rm", "base", "sh", "-c", disk)
    holds(refused.code != 0 and "Operation not permitted" in refused.err, "the host's disk can be read")
    given = sampan("run", "--rm", "--device", "/dev/vda:/dev/disk:r", "base", "sh", "-c", "head -c 1 /dev/disk | wc -c")
    equal((given.code, given.out), (0, "1\n"))
    written = sampan("run", "--rm", "--device", "/dev/vda:/dev/disk:r", "base", "sh", "-c", ": >>/dev/disk")
    holds(written.code != 0, "a device given for reading can be written")
    equal(sampan("run", "--rm", "--privileged", "base", "sh", "-c", disk).code, 0)


def root_build() -> None:
    dockerfile = 'FROM base\nRUN echo built > /word && id -u\nENV A=b\nCMD ["cat", "/word"]\n'
    os.makedirs("/var/tmp/context", exist_ok=True)
    with open("/var/tmp/context/Dockerfile", "w", encoding="ascii") as file:
        file.write(dockerfile)
    equal(sampan("build", "-t", "made", "/var/tmp/context").code, 0)
    equal(sampan("run", "--rm", "made").out, "built\n")


def file_of(name: str, file: str) -> str:
    """Return a file of a container's group."""
    identity = sampan("inspect", "-f", "{{.Id}}", name).out.strip()
    with open(f"{GROUPS}/sampan/sampan-{identity}/{file}", encoding="ascii") as opened:
        return opened.read().strip()


def root_throttle() -> None:
    number = os.stat("/dev/vda").st_rdev
    words = [
        "--device",
        "/dev/vda:/dev/vda:r",
        "--device-read-bps",
        "/dev/vda:1mb",
        "--device-write-iops",
        "/dev/vda:9",
    ]
    read = "dd if=/dev/vda of=/dev/null bs=256k count=8 iflag=direct && cat /sys/fs/cgroup/io.max"
    began = time.monotonic()
    found = sampan("run", "--rm", *words, "base", "sh", "-c", read)
    if found.code and "direct" in found.err:  # a dd without O_DIRECT: the file alone is looked at
        found = sampan("run", "--rm", *words, "base", "cat", "/sys/fs/cgroup/io.max")
        began -= 1
    wanted = f"{os.major(number)}:{os.minor(number)} rbps=1048576 wbps=max riops=max wiops=9"
    equal((found.code, found.out.strip()), (0, wanted))
    holds(time.monotonic() - began > 1, "2 MiB at 1 MiB a second took less than a second")


def root_refused() -> None:
    """What cgroup v2 has no file for is refused by name, and nothing is left of the container."""
    for words in (["--memory-swappiness", "10"], ["--oom-kill-disable", "-m", "64m"], ["--cpu-rt-runtime", "1000"]):
        found = sampan("run", "--name", "no", *words, "base", "true")
        holds(found.code == 125 and words[0] in found.err, f"{words[0]}: no clear message")
        sampan("rm", "no")
    found = sampan("run", "--rm", "--blkio-weight", "300", "base", "sh", "-c", "cat /sys/fs/cgroup/io*weight")
    holds(
        "2930" in found.out or "300" in found.out or (found.code == 125 and "--blkio-weight" in found.err),
        "neither applied nor refused",
    )
    found = sampan("run", "--rm", "--cpuset-cpus", "0,99", "base", "true")
    holds(found.code == 125 and "--cpuset-cpus" in found.err, "a CPU that is not there")


def root_update() -> None:
    equal(sampan("run", "-d", "--name", "web", "-m", "64m", "base", "sleep", "1000").code, 0)
    words = ["-m", "96m", "--memory-swap", "96m", "--pids-limit", "9", "--cpus", "0.5", "--cpu-shares", "512"]
    equal(sampan("update", *words, "--cpuset-cpus", "0", "--memory-reservation", "32m", "web").out, "web\n")
    files = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus", "memory.low")
    held = [file_of("web", file) for file in files]
    equal(held, [str(96 << 20), "0", "9", "50000 100000", "59", "0", str(32 << 20)])
    found = sampan("update", "-m", "80m", "--memory-swap", "80m", "--cpuset-cpus", "0,99", "web")
    holds(found.code == 1 and "--cpuset-cpus" in found.err, "a CPU that is not there")
    equal([file_of("web", file) for file in files], held)
    equal(sampan("update", "--pids-limit", "-1", "--cpu-quota", "-1", "web").code, 0)
    equal([file_of("web", "pids.max"), file_of("web", "cpu.max").split()[0]], ["max", "max"])
    equal(sampan("restart", "-t", "0", "web").code, 0)
    equal([file_of("web", "memory.max"), file_of("web", "pids.max")], [str(96 << 20), "max"])
    equal(sampan("rename", "web", "site").code, 0)
    equal(sampan("ps", "-f", "name=^site$", "--format", "{{.Names}} {{.State}}").out, "site running\n")
    equal(sampan("rm", "-f", "site").code, 0)


def root_update_below_use() -> None:
    """memory.max below what a program holds would kill it: refused, and it lives on."""
    hold = "dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2>/dev/null; echo ready; sleep 1000"
    words = ["--shm-size", "64m", "-m", "128m", "--memory-swap", "128m", "base", "sh", "-c", hold]
    equal(sampan("run", "-d", "--name", "held", *words).code, 0)
    deadline = time.monotonic() + 60
    while "ready" not in sampan("logs", "held").out and time.monotonic() < deadline:
        time.sleep(0.2)
    found = sampan("update", "-m", "16m", "--memory-swap", "16m", "held")
    holds(found.code == 1 and "--memory" in found.err and "holds" in found.err, "no clear message")
    equal(file_of("held", "memory.max"), str(128 << 20))
    equal(sampan("ps", "-q", "-f", "name=held").out.count("\n"), 1)
    equal(sampan("rm", "-f", "held").code, 0)


def root_update_kills() -> None:
    wait = "while [ ! -e /go ]; do sleep 1; done; exec " + " ".join(HOG)
    equal(sampan("run", "-d", "--name", "late", "base", "sh", "-c", wait).code, 0)
    equal(sampan("update", "-m", "30m", "--memory-swap", "30m", "late").code, 0)
    equal(sampan("exec", "late", "touch", "/go").code, 0)
    equal(sampan("wait", "late").out, "137\n")
    equal(json.loads(sampan("inspect", "late").out)[0]["State"]["OOMKilled"], True)
    equal(sampan("rm", "late").code, 0)


def root_observed() -> None:
    """What cgroup v2 counts, with and without limits; a commit stands still."""
    for name, limits in (("free", ()), ("bound", ("--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"))):
        loop = "while :; do :; done"
        equal(command(SAMPAN, "run", "-d", "--name", name, *limits, "base", "sh", "-c", loop).code, 0)
        row = json.loads(command(SAMPAN, "stats", "--no-stream", "--format", "json", name).out)
        holds(float(row["CPUPerc"].rstrip("%")) > 1, "no processor time")
        holds(row["PIDs"] == "1" and not row["MemUsage"].startswith(("--", "0B")), "no memory or processes")
        holds(("64MiB" in row["MemUsage"]) == bool(limits), "the wrong limit")
        holds(loop in command(SAMPAN, "top", name).out, "top")
        found = command(SAMPAN, "commit", name)
        equal((found.code, found.err), (0, ""))
        equal(command(SAMPAN, "cp", "/etc/hostname", f"{name}:/copied").code, 0)
        holds("A /copied" in command(SAMPAN, "diff", name).out, "diff")
        equal(command(SAMPAN, "rm", "-f", name).code, 0)


def root_nothing_left() -> None:
    equal(left_groups(), [])
    holds("sampan" not in open("/proc/self/mounts", encoding="utf-8").read().replace(CHECKOUT, ""), "mounts are left")


# As an ordinary user


def as_user(name: str, *words: str, service: tuple[str, ...] = ()) -> Ended:
    """Run a command as a user who has just logged in; `service` puts more before it."""
    entry = pwd.getpwnam(name)
    runtime = f"/run/user/{entry.pw_uid}"
    environment = [f"HOME={entry.pw_dir}", f"USER={name}", "PATH=/usr/bin:/bin", f"XDG_RUNTIME_DIR={runtime}"]
    environment.append(f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus")
    login = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", f"User={name}", "-p", "PAMName=login"]
    return command(*login, "--working-directory=/", "env", "-i", *environment, *service, *words)


SCOPE = ("systemd-run", "--user", "--quiet", "--scope", "-p", "Delegate=yes")


def delegated(name: str, *words: str) -> Ended:
    """Run sampan as a user in a scope of the user's service manager."""
    return as_user(name, SAMPAN, *words, service=SCOPE)


def add_users() -> None:
    for name in ("alice", "bob"):
        equal(command("useradd", "-m", "-s", "/bin/sh", name).code, 0)
    for path in ("/etc/subuid", "/etc/subgid"):
        equal(command("sed", "-i", "/^bob:/d", path).code, 0)
        holds("alice" in open(path, encoding="ascii").read(), f"useradd gave alice nothing in {path}")
    equal(command("loginctl", "enable-linger", "alice").code, 0)
    deadline = time.monotonic() + 60
    bus = f"/run/user/{pwd.getpwnam('alice').pw_uid}/bus"
    while not os.path.exists(bus) and time.monotonic() < deadline:
        time.sleep(0.2)
    holds(os.path.exists(bus), f"no {bus}")


def user_doctor() -> None:
    found = delegated("alice", "doctor")
    print(found.out, flush=True)
    equal(found.code, 0)


def user_run() -> None:
    equal(delegated("alice", "import", base_tar(), "base").code, 0)
    found = delegated("alice", "run", "--rm", "base", "sh", "-c", "id -u; cat /proc/self/cgroup")
    equal((found.code, found.out, found.err), (0, "0\n0::/\n", ""))
    found = delegated("alice", "run", "--rm", "-u", "1000:1000", "base", "id", "-u")
    equal((found.code, found.out), (0, "1000\n"))


def user_memory() -> None:
    found = delegated("alice", "run", "--name", "hog", "--memory", "30m", "base", *HOG)
    equal(found.code, 137)
    equal(json.loads(delegated("alice", "inspect", "hog").out)[0]["State"]["OOMKilled"], True)
    equal(delegated("alice", "rm", "hog").code, 0)


def user_pids() -> None:
    found = delegated("alice", "run", "--rm", "--pids-limit", "20", "base", "sh", "-c", FORKS)
    holds(found.code != 0 and "fork" in found.err, "the fork loop was not stopped")


def user_cpus() -> None:
    found = delegated("alice", "run", "--rm", "--cpus", "0.5", "base", "cat", "/sys/fs/cgroup/cpu.max")
    equal(found.out, "50000 100000\n")


def user_refused() -> None:
    """A controller that is not delegated: the message names it."""
    found = delegated("alice", "run", "--rm", "--cpuset-cpus", "0", "base", "true")
    if "cpuset" in open(f"{user_group()}/cgroup.controllers", encoding="ascii").read():
        equal(found.code, 0)
    else:
        holds(found.code == 125 and "cpuset" in found.err, "no clear message")


def user_group() -> str:
    uid = pwd.getpwnam("alice").pw_uid
    return f"{GROUPS}/user.slice/user-{uid}.slice/user@{uid}.service"


def user_detached() -> None:
    equal(delegated("alice", "run", "-d", "--name", "web", "base", "sleep", "1000").code, 0)
    # From another login, whose own group is not delegated.
    holds("sleep" in as_user("alice", SAMPAN, "exec", "web", "ps").out, "exec from another login")
    equal(delegated("alice", "exec", "web", "cat", "/proc/self/cgroup").out, "0::/\n")
    equal(as_user("alice", SAMPAN, "stop", "-t", "1", "web").code, 0)
    equal(as_user("alice", SAMPAN, "rm", "web").code, 0)


def user_update() -> None:
    """In the scope where it was started, and from a login with a group of its own."""
    equal(delegated("alice", "run", "-d", "--name", "web", "-m", "64m", "base", "sleep", "1000").code, 0)
    equal(delegated("alice", "update", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "9", "web").code, 0)
    found = delegated("alice", "exec", "web", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max")
    equal(found.out, f"{96 << 20}\n9\n")
    equal(as_user("alice", SAMPAN, "update", "--pids-limit", "20", "web").code, 0)
    equal(delegated("alice", "exec", "web", "cat", "/sys/fs/cgroup/pids.max").out, "20\n")
    equal(delegated("alice", "rm", "-f", "web").code, 0)


def user_build() -> None:
    equal(delegated("alice", "build", "-t", "made", "/var/tmp/context").code, 0)
    equal(delegated("alice", "run", "--rm", "made").out, "built\n")


def user_observed() -> None:
    equal(delegated("alice", "run", "-d", "--name", "seen", "--memory", "64m", "base", "sleep", "1000").code, 0)
    row = json.loads(delegated("alice", "stats", "--no-stream", "--format", "json", "seen").out)
    holds("/ 64MiB" in row["MemUsage"] and row["PIDs"] == "1" and row["CPUPerc"] != "--", "stats as a user")
    holds("sleep 1000" in delegated("alice", "top", "seen").out, "top as a user")
    equal(delegated("alice", "cp", "/etc/hostname", "seen:/copied").code, 0)
    equal(delegated("alice", "commit", "seen").err, "")
    equal(delegated("alice", "rm", "-f", "seen").code, 0)


def user_undelegated() -> None:
    """From a plain login (a session's scope belongs to root): it runs; a limit is refused, and told how to have it."""
    found = as_user("alice", SAMPAN, "run", "--rm", "base", "id", "-u")
    equal((found.code, found.out), (0, "0\n"))
    found = as_user("alice", SAMPAN, "run", "--rm", "--memory", "30m", "base", "true")
    holds(
        found.code == 125 and "--memory" in found.err and "systemd-run --user --scope" in found.err, "no clear message"
    )
    holds("systemd-run --user --scope" in as_user("alice", SAMPAN, "doctor").out, "doctor does not tell")
    equal(as_user("alice", SAMPAN, "run", "-d", "--name", "bare", "base", "sleep", "1000").code, 0)
    holds("sleep" in as_user("alice", SAMPAN, "exec", "bare", "ps").out, "exec without a group")
    equal(as_user("alice", SAMPAN, "rm", "-f", "bare").code, 0)


def user_single_id() -> None:
    """Without a range in /etc/subuid: root inside is the user; another user is refused with a clear message."""
    equal(as_user("bob", SAMPAN, "import", base_tar(), "base").code, 0)
    found = as_user("bob", SAMPAN, "run", "--rm", "base", "id", "-u")
    equal((found.code, found.out), (0, "0\n"))
    holds("only your own id is mapped" in found.err, "no warning")
    found = as_user("bob", SAMPAN, "run", "--rm", "-u", "1000", "base", "true")
    holds(found.code == 125 and "/etc/subuid" in found.err, "no clear message")
    found = as_user("bob", SAMPAN, "build", "-t", "made", "/var/tmp/context")
    equal(found.code, 0)


TESTS = (
    *(root_host, root_doctor, root_import, root_run, root_capabilities, root_own_group, root_memory),
    *(root_memory_child, root_limits, root_cpus, root_pids, root_throttle, root_refused),
    *(root_update, root_update_below_use, root_update_kills, root_detached, root_devices, root_build, root_observed),
    *(root_nothing_left, add_users, user_doctor, user_run, user_memory, user_pids, user_cpus, user_refused),
    *(user_detached, user_update, user_build, user_undelegated, user_single_id, root_nothing_left),
)


def main() -> int:
    """Run every test."""
    print(f"=== begin, kernel {os.uname().release}", flush=True)
    for test in TESTS:
        check(test)
    print(f"=== end: {len(failures)} failed {' '.join(failures)}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
