"""Checks that are tried from several places: as root, in a user's delegated group, after a plain login, without ids."""

from __future__ import annotations

import json
import time
from typing import Any

from guestkit import Place, equal, helpers, holds, keyed, kill_all, left_groups, until

HOG = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]  # its buffer is 200 MiB
FORKS = "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i+1)); done; wait"
IDLE = ("sleep", "1000")
BUSY = "while :; do :; done"


def day(place: Place) -> None:
    """The words that everybody uses: run -d, ps, logs, exec, top, stop, start, wait, rm."""
    script = "trap 'exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.1; done"
    place("run", "-d", "--name", "web", "base", "sh", "-c", script)
    until(lambda: "out" in place("logs", "web").out, "no output in the log")
    equal(place("logs", "web").err.splitlines()[-1:], ["err"])
    equal(place("ps", "--format", "{{.Names}} {{.State}}").out, "web running\n")
    found = place("exec", "web", "sh", "-c", "ps | grep -c 'trap'; exit 3")
    equal((found.code, found.out.strip() != "0"), (3, True))
    holds("trap" in place("top", "web").out, "top does not show the program")
    if place.base:
        equal(place("exec", "web", "cat", "/proc/self/cgroup").out, "0::/\n")
    equal(place("stop", "web").code, 0)
    state = place.state("web")
    equal((state["Status"], state["ExitCode"], state["OOMKilled"]), ("exited", 7, False))
    equal(place("start", "web").code, 0)
    equal(place("kill", "web").code, 0)
    equal(place("wait", "web").out, "137\n")
    equal(place("rm", "web").code, 0)


def view(place: Place) -> None:
    """The container sees its own group alone, and cannot write to it; privileged, it can."""
    script = "grep ' /sys/fs/cgroup ' /proc/self/mountinfo; cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*slice"
    found = place("run", "--rm", "base", "sh", "-c", script)
    mounts = [line.split() for line in found.out.splitlines()[:-1]]
    equal([(words[3], words[words.index("-") + 1]) for words in mounts], [("/", "cgroup2")])
    equal(set(mounts[0][5].split(",")) >= {"ro", "nosuid", "nodev", "noexec"}, True)
    equal((found.out.splitlines()[-1], found.code), ("0::/", 1))
    for line in ("mkdir x", "echo 5 >cgroup.max.depth", "echo $$ >cgroup.procs", "mount -o remount,rw ."):
        refused = place("run", "--rm", "base", "sh", "-c", f"cd /sys/fs/cgroup && {line}")
        holds(refused.code != 0, f"{line}: not refused")
    equal(place("run", "--rm", "--privileged", "base", "mkdir", "/sys/fs/cgroup/x").code, 0)


def memory(place: Place) -> None:
    """The program itself, a child of it, an exec: who lives on, and what is told."""
    equal(place("run", "--name", "hog", "--memory", "30m", "base", *HOG).code, 137)
    state = place.state("hog")
    equal((state["OOMKilled"], state["ExitCode"], state["Status"]), (True, 137, "exited"))
    equal(place("rm", "hog").code, 0)
    found = place("run", "--name", "hog", "--memory", "30m", "base", "sh", "-c", " ".join(HOG) + "; echo $?")
    equal((found.code, found.out.split()[-1:]), (0, ["137"]))
    state = place.state("hog")
    equal((state["OOMKilled"], state["ExitCode"]), (True, 0))
    equal(place("rm", "hog").code, 0)
    place.do("run", "-d", "--name", "hog", "--memory", "30m", "base", "sleep", "1000")
    equal(place("exec", "hog", *HOG).code, 137)
    state = place.state("hog")
    equal((state["OOMKilled"], state["Running"]), (True, True))
    equal(place("stop", "-t", "0", "hog").code, 0)
    state = place.state("hog")
    equal((state["OOMKilled"], state["ExitCode"]), (True, 137))
    equal(place("start", "hog").code, 0)
    equal(place.state("hog")["OOMKilled"], False)
    equal(place("rm", "-f", "hog").code, 0)


def nested(place: Place) -> None:
    """A container that makes groups of its own, as one with systemd does: OOM, exec, pause, stats, the end."""
    script = (
        "cd /sys/fs/cgroup && mkdir init inner && echo $$ >init/cgroup.procs && echo +memory >cgroup.subtree_control"
    )
    script += " && echo 20M >inner/memory.max && sh -c 'echo $$ >inner/cgroup.procs; exec \"$@\"' sh " + " ".join(HOG)
    script += "; echo child $?; exec sleep 1000"
    place.do("run", "-d", "--name", "nest", "--privileged", "-m", "60m", "base", "sh", "-c", script)
    until(lambda: "child" in place("logs", "nest").out, "it did not come to the end of its script")
    equal(place("logs", "nest").out.split()[-2:], ["child", "137"])
    equal(keyed(place.file("nest", "memory.events"))["oom_kill"], 1)
    found = place("exec", "nest", "cat", "/proc/self/cgroup")
    equal((found.code, found.out, found.err), (0, "0::/init\n", ""))
    row = json.loads(place("stats", "--no-stream", "--format", "json", "nest").out)
    holds(row["PIDs"] == "1" and "/ 60MiB" in row["MemUsage"], "stats")
    equal(place("pause", "nest").code, 0)
    holds("frozen 1" in place.file("nest", "init/cgroup.events"), "the groups inside are not frozen")
    equal(place("unpause", "nest").code, 0)
    equal(place("stop", "-t", "0", "nest").code, 0)
    equal(place.state("nest")["OOMKilled"], True)
    equal(place("rm", "nest").code, 0)


def pause(place: Place) -> None:
    """The freezer holds every process still, also for `ps`; exec is refused; stop and rm work on what is paused."""
    place.do("run", "-d", "--name", "still", "base", "sh", "-c", f"({BUSY}) & {BUSY}")
    group = place.group("still")

    def used() -> int:
        with open(f"{group}/cpu.stat", encoding="ascii") as file:
            return keyed(file.read())["usage_usec"]

    equal(place("pause", "still").out, "still\n")
    before = used()
    time.sleep(1)
    equal(used(), before)
    shown = place("ps", "--format", "{{.State}} {{.Status}}").out
    holds(shown.startswith("paused Up ") and shown.endswith(" (Paused)\n"), "ps")
    refused = place("exec", "still", "true")
    holds(refused.code != 0 and "paused" in refused.err, "exec in a paused container")
    equal(place("pause", "still").code, 1)
    equal(place("unpause", "still").code, 0)
    until(lambda: used() > before, "it does not go on")
    equal(place("pause", "still").code, 0)
    equal(place("stop", "-t", "0", "still").code, 0)
    equal(place("start", "still").code, 0)
    equal(place("pause", "still").code, 0)
    equal(place("rm", "-f", "still").code, 0)


def stats(place: Place) -> None:
    """The numbers are those of what the container is known to do."""
    script = f"dd if=/dev/zero of=/dev/shm/f bs=1M count=20 2>/dev/null; sleep 1000 & echo ready; {BUSY}"
    limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "9"]
    place.do("run", "-d", "--name", "busy", *limits, "base", "sh", "-c", script)
    until(lambda: "ready" in place("logs", "busy").out, "not ready")
    row = json.loads(place("stats", "--no-stream", "--format", "json", "busy").out)
    holds(20 < float(row["CPUPerc"].rstrip("%")) < 70, "half a processor")
    used, _, limit = row["MemUsage"].partition(" / ")
    holds(used.endswith("MiB") and 20 <= float(used[:-3]) < 40 and limit == "64MiB", "20 MiB of 64")
    equal(row["PIDs"], "2")
    holds(keyed(place.file("busy", "cpu.stat"))["nr_throttled"] > 0, "never throttled")
    equal(place("rm", "-f", "busy").code, 0)


def pids(place: Place) -> None:
    found = place("run", "--rm", "--pids-limit", "20", "base", "sh", "-c", FORKS)
    holds(found.code != 0 and "fork" in found.err, "the fork loop was not stopped")


def health(place: Place) -> None:
    """Checks run in the container's group, tell the truth, and stand still with it."""
    check = "cat /proc/self/cgroup >/seen; test -e /ok"
    words = ["--health-cmd", check, "--health-interval", "1s", "--health-retries", "1"]
    place.do("run", "-d", "--name", "ill", *words, "base", "sleep", "1000")

    def status() -> str:
        return str(place.state("ill")["Health"]["Status"])

    until(lambda: status() == "unhealthy", "it does not become unhealthy")
    equal(place("exec", "ill", "touch", "/ok").code, 0)
    until(lambda: status() == "healthy", "it does not become healthy")
    if place.base:
        equal(place("exec", "ill", "cat", "/seen").out, "0::/\n")
        equal(place("pause", "ill").code, 0)
        before = place.state("ill")["Health"]["Log"][-1]
        time.sleep(2)
        equal(place.state("ill")["Health"]["Log"][-1], before)
    equal(place("rm", "-f", "ill").code, 0)


def late(place: Place) -> None:
    """A check that takes too long, also one that is paused meanwhile: nothing of it stays, no zombie either."""
    check = "echo on >>/checks; sleep 300 & sleep 300 & sleep 300; :"
    words = ["--health-cmd", check, "--health-interval", "1s", "--health-timeout", "6s", "--health-retries", "1"]
    place.do("run", "-d", "--name", "ill", *words, *(["--pids-limit", "50"] if place.base else []), "base", *IDLE)

    def checks() -> int:
        return place("exec", "ill", "cat", "/checks").out.count("on")

    def health() -> Any:
        return place.state("ill")["Health"]

    if place.base:
        until(lambda: checks() == 1, "no check begins")
        equal(place("pause", "ill").code, 0)
        before = health()  # of a slow host: its time may have been up before
        time.sleep(7)
        equal(health(), before)
        equal(place("unpause", "ill").code, 0)
        until(lambda: checks() >= 2, "no check follows the one that was paused")
    until(lambda: health()["Status"] == "unhealthy", "it does not become unhealthy")
    equal(health()["Log"][-1]["ExitCode"], -1)
    if place.base:
        equal(place("pause", "ill").code, 0)  # perhaps while one is being ended
        time.sleep(2)
        equal(place("unpause", "ill").code, 0)
    began = checks()
    until(lambda: checks() >= began + 2, "no check follows")
    states = place("exec", "ill", "sh", "-c", "cat /proc/[0-9]*/stat").out.splitlines()
    holds(not [line for line in states if line.rpartition(")")[2].split()[:2] == ["Z", "1"]], "zombies")
    if place.base:
        holds(int(place.file("ill", "pids.current")) <= 6, "more than the program and one check of five processes")
    equal(place("rm", "-f", "ill").code, 0)


def joined(place: Place) -> None:
    """Namespaces of another container; the group is the container's own."""
    place.do("run", "-d", "--name", "one", "base", "sleep", "1234")
    words = ["--pid", "container:one", "--network", "container:one"]
    found = place("run", "--rm", *words, "base", "sh", "-c", "ps; cat /proc/self/cgroup")
    holds("sleep 1234" in found.out and found.code == 0, "the other container's processes are not seen")
    equal(place("rm", "-f", "one").code, 0)


def killed(place: Place) -> None:
    """Every supervisor is killed at once: ps tells the truth, and no group, mount or process is left."""
    limits = ["-m", "64m", "--pids-limit", "20"] if place.base else []
    health = ["--health-cmd", "sleep 5", "--health-interval", "1s"]
    place.do("run", "-d", "--name", "one", *limits, *health, "base", "sleep", "1000")
    place.do("run", "-d", "--name", "two", "--restart", "always", "base", "sh", "-c", "sleep 1000 & sleep 1000")
    place.do("run", "-d", "--name", "three", "--rm", "base", "sleep", "1000")
    if place.base:
        place.do("pause", "two")
    holds(kill_all() >= 3, "no supervisors")
    rows = place("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}").out.splitlines()
    equal(sorted(" ".join(row.split()[:4]) for row in rows), ["one exited Exited (137)", "two exited Exited (137)"])
    until(lambda: not helpers() and not left_groups(), "groups or processes are left", 15)
    equal(place("start", "two").code, 0)
    equal(place("ps", "--format", "{{.Names}}").out, "two\n")
    equal(place("rm", "-f", "one", "two").code, 0)


def disk(place: Place) -> None:
    """What the store says of itself after all that."""
    equal(place("system", "check").code, 0)
    equal(place("system", "df").code, 0)


ALL = ("day", "view", "memory", "nested", "pause", "stats", "pids", "health", "late", "joined", "killed")
GROUPED = (
    "view",
    "memory",
    "nested",
    "pause",
    "stats",
    "health",
    "late",
    "killed",
)  # for users: the rest is the same code
