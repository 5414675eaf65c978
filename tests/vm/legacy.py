"""Checks of a boot with systemd on cgroup version 1, alone or hybrid (its own tree on cgroup2), as on older systems."""

from __future__ import annotations

import time
from collections.abc import Callable

import asroot
import asuser
import scenarios
from guestkit import GROUPS, ROOT, SAMPAN, Place, base_tar, check, command, equal, failures, holds, sampan, text

UNIT = ("systemd-run", "--quiet", "--wait", "--collect")
PLAIN = Place(command, ROOT.store)  # no group of version 2 is looked for
PIDS = Place(command, ROOT.store, f"{GROUPS}/pids")


def old_host() -> None:
    """The machine is what it was asked to be."""
    mounts = text("/proc/mounts")
    holds(f" {GROUPS}/memory cgroup " in mounts, "no memory controller of version 1")
    print(sampan("doctor").out, flush=True)
    equal(sampan("doctor").code, 0)


def old_limits() -> None:
    limits = ["--cpus", "0.5", "--memory", "64m", "--pids-limit", "99", "--cpu-shares", "512", "--cpuset-cpus", "0"]
    limits += ["--memory-reservation", "32m", "--memory-swappiness", "10"]
    files = ["memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory/memory.swappiness"]
    files += ["pids/pids.max", "cpuset/cpuset.cpus", "cpu/cpu.shares", "cpu/cpu.cfs_quota_us"]
    found = sampan("run", "--rm", *limits, "base", "sh", "-c", f"cd /sys/fs/cgroup && cat {' '.join(files)}")
    equal((found.code, found.err), (0, ""))
    equal(found.out.split(), [str(64 << 20), str(32 << 20), "10", "99", "0", "512", "50000"])
    equal(sampan("run", "--rm", "--cpuset-cpus", "1", "base", "nproc").out, "1\n")


def old_limits_bite() -> None:
    equal(sampan("run", "--name", "hog", "--memory", "30m", "base", *scenarios.HOG).code, 137)
    state = ROOT.state("hog")
    equal((state["OOMKilled"], state["ExitCode"]), (True, 137))
    equal(sampan("rm", "hog").code, 0)
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu/cpu.stat"
    found = sampan("run", "--rm", "--cpus", "0.2", "base", "sh", "-c", script)
    counts = dict(line.split() for line in found.out.splitlines())
    holds(int(counts["nr_throttled"]) > 0, "never throttled")
    words = ["--device", "/dev/vda:/dev/vda:r", "--device-read-iops", "/dev/vda:4"]
    read = "dd if=/dev/vda of=/dev/null bs=128k skip=15000 count=8 2>/dev/null"
    began = time.monotonic()
    equal(sampan("run", "--rm", *words, "base", "sh", "-c", read).code, 0)
    holds(time.monotonic() - began > 1, "eight reads at four a second took less than a second")
    found = sampan("run", "--rm", "--blkio-weight", "300", "base", "true")
    holds(found.code == 125 and "--blkio-weight" in found.err, "a weight that no scheduler knows")


def old_pause() -> None:
    equal(sampan("run", "-d", "--name", "still", "base", "sh", "-c", f"({scenarios.BUSY}) & {scenarios.BUSY}").code, 0)
    equal(sampan("pause", "still").code, 0)
    equal(sampan("ps", "--format", "{{.State}}").out, "paused\n")
    equal(sampan("unpause", "still").code, 0)
    equal(sampan("update", "-m", "64m", "--memory-swap", "64m", "still").out, "still\n")
    group = PIDS.group("still").replace("/pids/", "/memory/")
    equal(text(f"{group}/memory.limit_in_bytes"), str(64 << 20))
    equal(sampan("pause", "still").code, 0)
    equal(sampan("rm", "-f", "still").code, 0)


def old_detached() -> None:
    """`run -d` outlives the transient service that it was called in, and its supervisor has left all of its groups."""
    words = ["run", "-d", "--name", "away", "-m", "32m", "base", "sleep", "1000"]
    equal(command(*UNIT, "-p", "MemoryMax=500M", "-p", "CPUWeight=50", SAMPAN, *words).code, 0)
    pid = ROOT.do("inspect", "-f", "{{.State.Pid}}", "away").strip()
    parent = text(f"/proc/{pid}/stat").rpartition(")")[2].split()[1]
    holds(
        ".service" not in text(f"/proc/{parent}/cgroup"),
        "the supervisor is in the unit: " + text(f"/proc/{parent}/cgroup"),
    )
    equal(sampan("exec", "away", "true").code, 0)
    equal(command("systemctl", "daemon-reload").code, 0)
    equal(text(f"{PIDS.group('away').replace('/pids/', '/memory/')}/memory.limit_in_bytes"), str(32 << 20))
    equal(sampan("rm", "-f", "away").code, 0)


def old_user(place: Place) -> None:
    """An ordinary user has no groups there: all else works, and a limit is refused by name."""
    equal(place("import", base_tar(), "base").code, 0)
    equal(place("run", "--rm", "base", "id", "-u").out, "0\n")
    found = place("run", "--rm", "--memory", "30m", "base", "true")
    holds(found.code == 125 and "--memory" in found.err, "no clear message")


def run(wanted: Callable[[str], bool]) -> None:
    """Run all of them."""

    def one(name: str, test: Callable[..., None], *places: Place) -> None:
        if wanted(name) or test is asroot.root_import:
            check(name, test, *places)

    for test in (old_host, asroot.root_import, asroot.root_run, old_limits, old_limits_bite, old_pause, old_detached):
        one(test.__name__, test)
    for name in ("day", "pids", "joined", "killed"):
        one(f"old_{name}", getattr(scenarios, name), PLAIN)
    one("old_late", scenarios.late, PIDS)
    check("add_users", asuser.add_users)
    if "add_users" in failures:
        return
    login, place = asuser.alice(grouped=False)
    one("old_user", old_user, place)
    one("old_user_day", scenarios.day, place)
    login.close()
