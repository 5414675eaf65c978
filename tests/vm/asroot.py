"""Checks that root alone can make: capabilities, devices, swap, disks, limits that systemd must not undo."""

from __future__ import annotations

import json
import os
import time

from guestkit import GROUPS, ROOT, base_tar, command, context, equal, holds, keyed, sampan
from scenarios import BUSY, HOG


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


def root_cgroup_of_the_host() -> None:
    found = sampan("run", "--rm", "--cgroupns", "host", "base", "cat", "/proc/self/cgroup")
    holds(found.out.startswith("0::/sampan/sampan-") and found.code == 0, "--cgroupns host")


def root_limits() -> None:
    limits = ["--cpus", "0.5", "--memory", "64m", "--memory-swap", "96m", "--pids-limit", "99", "--cpu-shares", "512"]
    limits += ["--cpuset-cpus", "0", "--memory-reservation", "32m"]
    files = ["cpu.max", "memory.max", "memory.swap.max", "pids.max", "cpu.weight", "cpuset.cpus", "memory.low"]
    found = sampan("run", "--rm", *limits, "base", "sh", "-c", f"cd /sys/fs/cgroup && cat {' '.join(files)}")
    equal(found.out.splitlines()[:4], ["50000 100000", str(64 << 20), str(32 << 20), "99"])
    equal(found.out.splitlines()[5:], ["0", str(32 << 20)])
    equal(sampan("run", "--rm", "--cpuset-cpus", "1", "base", "nproc").out, "1\n")


def root_cpus() -> None:
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu.stat"
    found = sampan("run", "--rm", "--cpus", "0.2", "base", "sh", "-c", script)
    counts = dict(line.split() for line in found.out.splitlines())
    holds(int(counts["nr_throttled"]) > 0, "never throttled")


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
    equal(sampan("build", "-t", "made", context()).code, 0)
    equal(sampan("run", "--rm", "made").out, "built\n")


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
    for words in (["--blkio-weight", "300"], ["--blkio-weight-device", "/dev/vda:300"]):
        found = sampan(
            "run", "--rm", *words, "base", "true"
        )  # no disk has the scheduler, though the kernel has io.weight
        holds(found.code == 125 and words[0] in found.err and "bfq" in found.err, f"{words[0]}: no clear message")
    found = sampan("run", "--rm", "--cpuset-cpus", "0,99", "base", "true")
    holds(found.code == 125 and "--cpuset-cpus" in found.err, "a CPU that is not there")


def root_update() -> None:
    equal(sampan("run", "-d", "--name", "web", "-m", "64m", "base", "sleep", "1000").code, 0)
    words = ["-m", "96m", "--memory-swap", "96m", "--pids-limit", "9", "--cpus", "0.5", "--cpu-shares", "512"]
    equal(sampan("update", *words, "--cpuset-cpus", "0", "--memory-reservation", "32m", "web").out, "web\n")
    files = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus", "memory.low")
    held = [ROOT.file("web", file) for file in files]
    equal(held, [str(96 << 20), "0", "9", "50000 100000", "59", "0", str(32 << 20)])
    found = sampan("update", "-m", "80m", "--memory-swap", "80m", "--cpuset-cpus", "0,99", "web")
    holds(found.code == 1 and "--cpuset-cpus" in found.err, "a CPU that is not there")
    equal([ROOT.file("web", file) for file in files], held)
    equal(sampan("update", "--pids-limit", "-1", "--cpu-quota", "-1", "web").code, 0)
    equal([ROOT.file("web", "pids.max"), ROOT.file("web", "cpu.max").split()[0]], ["max", "max"])
    equal(sampan("restart", "-t", "0", "web").code, 0)
    equal([ROOT.file("web", "memory.max"), ROOT.file("web", "pids.max")], [str(96 << 20), "max"])
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
    equal(ROOT.file("held", "memory.max"), str(128 << 20))
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
        equal(sampan("run", "-d", "--name", name, *limits, "base", "sh", "-c", loop).code, 0)
        row = json.loads(sampan("stats", "--no-stream", "--format", "json", name).out)
        holds(float(row["CPUPerc"].rstrip("%")) > 1, "no processor time")
        holds(row["PIDs"] == "1" and not row["MemUsage"].startswith(("--", "0B")), "no memory or processes")
        holds(("64MiB" in row["MemUsage"]) == bool(limits), "the wrong limit")
        holds(loop in sampan("top", name).out, "top")
        found = sampan("commit", name)
        equal((found.code, found.err), (0, ""))
        equal(sampan("cp", "/etc/hostname", f"{name}:/copied").code, 0)
        holds("A /copied" in sampan("diff", name).out, "diff")
        equal(sampan("rm", "-f", name).code, 0)


def root_written_slowly() -> None:
    """What is written through the page cache is slowed too, which needs the memory controller beside that of disks."""
    write = "dd if=/dev/zero of=/file bs=256k count=12 && sync"
    with open(f"{GROUPS}/sampan/cgroup.subtree_control", "w", encoding="ascii") as file:
        file.write("-memory")  # which the containers of before have turned on
    began = time.monotonic()
    equal(sampan("run", "--rm", "--device-write-bps", "/dev/vda:1mb", "base", "sh", "-c", write).code, 0)
    holds(time.monotonic() - began > 2, "3 MiB at 1 MiB a second took less than two seconds")


def root_few_reads() -> None:
    """Reads a second, of what no page cache holds: eight and more of 128 KiB, at four a second."""
    words = ["--device", "/dev/vda:/dev/vda:r", "--device-read-iops", "/dev/vda:4"]
    read = "dd if=/dev/vda of=/dev/null bs=128k skip=15000 count=8 2>/dev/null; cat /sys/fs/cgroup/io.max"
    began = time.monotonic()
    found = sampan("run", "--rm", *words, "base", "sh", "-c", read)
    equal((found.code, found.out.split()[1:]), (0, ["rbps=max", "wbps=max", "riops=4", "wiops=max"]))
    holds(time.monotonic() - began > 1, "eight reads at four a second took less than a second")


def root_few_writes() -> None:
    """Writes a second: twelve files, each written to the disk by itself, at four a second."""
    took = []
    for limit in ((), ("--device-write-iops", "/dev/vda:4")):
        # New files: one is charged to who wrote it first; on a volume: the layer of --rm is never synced.
        one = f"dd if=/dev/zero of=/var/tmp/few{len(limit)}-$i bs=4k count=1 conv=fsync 2>/dev/null"
        write = f"cat /proc/uptime; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {one}; done; cat /proc/uptime"
        found = sampan("run", "--rm", "-v", "/var/tmp:/var/tmp", *limit, "base", "sh", "-c", write)
        began, ended = (float(line.split()[0]) for line in found.out.splitlines())
        took.append(ended - began)
    holds(took[1] > 2.5, f"{took[0]:.1f} s without a limit, {took[1]:.1f} s at four a second")


def root_weights() -> None:
    """Of two that read the same slow disk, the one with ten times the weight has much more of it, by bfq."""
    equal(command("modprobe", "bfq").code, 0)
    with open("/sys/block/vdc/queue/scheduler", encoding="ascii") as file:
        before = file.read().partition("[")[2].partition("]")[0]
    _schedule("bfq")
    read = "while :; do dd if=/dev/vdc of=/dev/null bs=128k skip=$0 count=1600 2>/dev/null; done"
    words = ["--device", "/dev/vdc:/dev/vdc:r"]
    for name, flag, skip in (
        ("low", "--blkio-weight=100", "0"),
        ("high", "--blkio-weight-device=/dev/vdc:1000", "2000"),
    ):
        equal(sampan("run", "-d", "--name", name, *words, flag, "base", "sh", "-c", read, skip).err, "")
    equal(ROOT.file("low", "io.bfq.weight").split()[-1], "100")
    holds("1000" in ROOT.file("high", "io.bfq.weight").split(), "the weight of one disk")
    first = [_has_read(name) for name in ("low", "high")]
    time.sleep(8)
    low, high = (_has_read(name) - start for name, start in zip(("low", "high"), first, strict=True))
    holds(high > 2 * low > 0, f"{high} bytes to {low}")
    equal(sampan("rm", "-f", "low", "high").code, 0)
    _schedule(before)


def _schedule(name: str) -> None:
    with open("/sys/block/vdc/queue/scheduler", "w", encoding="ascii") as file:
        file.write(name)


def _has_read(name: str) -> int:
    words = [word for word in ROOT.file(name, "io.stat").split() if word.startswith("rbytes=")]
    return sum(int(word.partition("=")[2]) for word in words)


def root_shm_and_files() -> None:
    """The size of /dev/shm and the limit of open files bite."""
    script = "dd if=/dev/zero of=/dev/shm/f bs=1M count=3; ls -l /dev/shm/f; exec 19>/tmp/a; echo opened"
    words = ["--shm-size", "2m", "--ulimit", "nofile=16:32"]
    found = sampan("run", "--rm", *words, "base", "sh", "-c", script)
    holds("No space left" in found.err and f" {2 << 20} " in found.out, "/dev/shm took more than 2 MiB")
    holds("opened" not in found.out and found.code, "descriptor 19 of 16 could be opened")


def root_shown() -> None:
    """`inspect` shows each limit that a container has, as Docker does."""
    words = ["-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5", "--cpu-shares", "512"]
    words += ["--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "99", "--shm-size", "2m"]
    words += ["--ulimit", "nofile=16:32", "--oom-score-adj", "200"]
    words += [f"--device-{kind}={'/dev/vda:'}{number}" for kind, number in (("read-bps", "1mb"), ("write-bps", "2mb"))]
    words += [f"--device-{kind}={'/dev/vda:'}{number}" for kind, number in (("read-iops", 30), ("write-iops", 40))]
    equal(sampan("run", "-d", "--name", "shown", *words, "base", "sleep", "1000").err, "")
    host = json.loads(sampan("inspect", "shown").out)[0]["HostConfig"]
    wanted = {"Memory": 64 << 20, "MemorySwap": 96 << 20, "MemoryReservation": 32 << 20, "NanoCpus": 500000000}
    wanted |= {"CpuShares": 512, "PidsLimit": 99, "ShmSize": 2 << 20, "OomScoreAdj": 200}
    equal({key: host[key] for key in wanted}, wanted)
    equal((host["CpusetCpus"], host["CpusetMems"]), ("0", "0"))
    equal(host["Ulimits"], [{"Name": "nofile", "Hard": 32, "Soft": 16}])
    rates = ("BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps")
    equal([host[key][0]["Rate"] for key in rates], [1 << 20, 2 << 20, 30, 40])
    io = ROOT.file("shown", "io.max").split()[1:]
    equal(io, [f"rbps={1 << 20}", f"wbps={2 << 20}", "riops=30", "wiops=40"])
    equal(ROOT.file("shown", "cpuset.mems"), "0")
    equal(sampan("exec", "shown", "cat", "/proc/1/oom_score_adj").out, "200\n")
    equal(sampan("rm", "-f", "shown").code, 0)


def root_swap() -> None:
    """As much swap as was asked for, and not more."""
    for words in (["fallocate", "-l", "160M", "/var/tmp/swap"], ["chmod", "600", "/var/tmp/swap"]):
        equal(command(*words).code, 0)
    equal(command("mkswap", "/var/tmp/swap").code, 0)
    equal(command("swapon", "/var/tmp/swap").code, 0)
    write = "dd if=/dev/zero of=/dev/shm/f bs=1M count=60 2>/dev/null; echo $?; cat /sys/fs/cgroup/memory.swap.current"
    words = ["--rm", "--shm-size", "100m", "-m", "30m"]
    found = sampan("run", *words, "--memory-swap", "100m", "base", "sh", "-c", write)
    holds(found.out.split()[:1] == ["0"] and int(found.out.split()[1]) > 20 << 20, "60 MiB in 30 and swap")
    equal(sampan("run", *words, "--memory-swap", "-1", "base", "sh", "-c", write).out.split()[:1], ["0"])
    equal(sampan("run", *words, "base", "sh", "-c", write).out.split()[:1], ["137"])  # 30 and 30: Docker's rule
    equal(sampan("run", *words, "--memory-swap", "30m", "base", "sh", "-c", write).out.split()[:1], ["137"])
    equal(command("swapoff", "/var/tmp/swap").code, 0)


def root_resources() -> None:
    """What CAP_SYS_RESOURCE allows: limits above the hard ones, a score below zero."""
    import resource

    above = resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1000
    script = "ulimit -n; ulimit -H -n; ulimit -l; cat /proc/self/oom_score_adj"
    words = ["--ulimit", f"nofile={above}", "--ulimit", "memlock=-1", "--oom-score-adj", "-500"]
    found = sampan("run", "--rm", *words, "base", "sh", "-c", script)
    equal((found.code, found.out.split()), (0, [str(above), str(above), "unlimited", "-500"]))


def root_kept_from_systemd() -> None:
    """systemd turns controllers on and off as its units need them, at a reload and with each unit: limits stay."""
    equal(sampan("run", "-d", "--name", "web", "-m", "64m", "--pids-limit", "9", "base", "sleep", "1000").code, 0)
    unit = ["systemd-run", "--quiet", "--wait", "--collect"]
    for properties in (["MemoryMax=50M", "CPUWeight=50", "IOWeight=50"], []):
        equal(command(*unit, *(word for one in properties for word in ("-p", one)), "true").code, 0)
        equal(command("systemctl", "daemon-reload").code, 0)
        equal([ROOT.file("web", "memory.max"), ROOT.file("web", "pids.max")], [str(64 << 20), "9"])
    equal(sampan("run", "--rm", "-m", "30m", "base", *HOG).code, 137)
    equal(sampan("rm", "-f", "web").code, 0)


def root_shares() -> None:
    """Of two that want one processor, the one with four times the shares has about four times as much."""
    for name, shares in (("low", "256"), ("high", "1024")):
        equal(
            sampan(
                "run", "-d", "--name", name, "--cpu-shares", shares, "--cpuset-cpus", "0", "base", "sh", "-c", BUSY
            ).code,
            0,
        )
    used = [keyed(ROOT.file(name, "cpu.stat")) for name in ("low", "high")]
    time.sleep(3)
    low, high = (
        keyed(ROOT.file(name, "cpu.stat"))["usage_usec"] - before["usage_usec"]
        for name, before in zip(("low", "high"), used, strict=True)
    )
    holds(2 < high / low < 6, f"{high} to {low} microseconds")
    equal(sampan("rm", "-f", "low", "high").code, 0)


FIRST = (root_host, root_doctor, root_import, root_run, root_capabilities)
TESTS = (
    *(root_cgroup_of_the_host, root_limits, root_cpus, root_shares, root_throttle, root_written_slowly, root_swap),
    *(root_few_reads, root_few_writes, root_weights, root_shm_and_files, root_shown),
    *(root_resources, root_refused, root_kept_from_systemd, root_update, root_update_below_use, root_update_kills),
    *(root_devices, root_build, root_observed),
)
