"""Checks of ordinary users: in a scope that systemd delegates, after a plain login, without a range in /etc/subuid."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable

import scenarios
from guestkit import GROUPS, Login, Place, base_tar, check, command, context, equal, failures, holds, text, until

SCOPE = ("systemd-run", "--user", "--quiet", "--scope", "-p", "Delegate=yes")
PLAIN = ("day", "killed")  # without groups
SINGLE = ("day",)
STORE = "/home/{}/.local/share/sampan"


def add_users() -> None:
    for name in ("alice", "bob"):
        equal(command("useradd", "-m", "-s", "/bin/sh", name).code, 0)
    for path in ("/etc/subuid", "/etc/subgid"):
        equal(command("sed", "-i", "/^bob:/d", path).code, 0)
        with open(path, encoding="ascii") as file:
            holds("alice" in file.read(), f"useradd gave alice nothing in {path}")
    equal(command("loginctl", "enable-linger", "alice").code, 0)
    until(lambda: os.path.exists(f"/run/user/{pwd.getpwnam('alice').pw_uid}/bus"), "alice's manager does not start")


def user_group() -> str:
    """Give the group that systemd delegates to alice's manager, with all below it."""
    uid = pwd.getpwnam("alice").pw_uid
    return f"{GROUPS}/user.slice/user-{uid}.slice/user@{uid}.service"


def alice(*inside: str, grouped: bool = True) -> tuple[Login, Place]:
    """Log alice in."""
    login = Login("alice", *inside)
    return login, Place(login.run, STORE.format("alice"), user_group() if grouped else "")


def user_doctor(place: Place) -> None:
    found = place("doctor")
    print(found.out, flush=True)
    equal(found.code, 0)


def user_run(place: Place) -> None:
    equal(place("import", base_tar(), "base").code, 0)
    found = place("run", "--rm", "base", "sh", "-c", "id -u; cat /proc/self/cgroup")
    equal((found.code, found.out, found.err), (0, "0\n0::/\n", ""))
    found = place("run", "--rm", "-u", "1000:1000", "base", "id", "-u")
    equal((found.code, found.out), (0, "1000\n"))


def user_limits(place: Place) -> None:
    files = ["cpu.max", "memory.max", "memory.swap.max", "pids.max", "memory.low"]
    words = ["--cpus", "0.5", "-m", "64m", "--memory-swap", "96m", "--pids-limit", "99", "--memory-reservation", "32m"]
    found = place("run", "--rm", *words, "base", "sh", "-c", f"cd /sys/fs/cgroup && cat {' '.join(files)}")
    equal(found.out.splitlines(), ["50000 100000", str(64 << 20), str(32 << 20), "99", str(32 << 20)])


def user_refused(place: Place) -> None:
    """A controller that is not delegated is named; so are limits and scores for which a user has no right."""
    found = place("run", "--rm", "--cpuset-cpus", "0", "base", "true")
    if "cpuset" in text(f"{user_group()}/cgroup.controllers"):
        equal(found.code, 0)
    else:
        holds(found.code == 125 and "cpuset" in found.err, "no clear message")
    for option, value in (("--ulimit", "nofile=9999999"), ("--oom-score-adj", "-500")):
        found = place("run", "--rm", option, value, "base", "true")
        holds(found.code == 125 and option in found.err, f"{option}: no clear message")


def user_update(scope: Place, plain: Place) -> None:
    """In the scope where it was started, and from a login with a group of its own."""
    scope.do("run", "-d", "--name", "web", "-m", "64m", "base", "sleep", "1000")
    equal(scope("update", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "9", "web").code, 0)
    equal([scope.file("web", "memory.max"), scope.file("web", "pids.max")], [str(96 << 20), "9"])
    equal(plain("update", "--pids-limit", "20", "web").code, 0)
    equal(scope.file("web", "pids.max"), "20")
    # All else from there: what is delegated is alice's, wherever she is logged in.
    found = plain("exec", "web", "ps")
    holds("sleep" in found.out and "limits do not hold" in found.err, "exec from another login")
    equal(plain("pause", "web").code, 0)
    equal(scope("unpause", "web").code, 0)
    equal(plain("stop", "-t", "0", "web").code, 0)
    equal(plain("rm", "web").code, 0)


def user_kept_from_systemd(place: Place) -> None:
    """As for root: what the user's manager does with its own units leaves our limits alone."""
    place.do("run", "-d", "--name", "web", "-m", "64m", "--pids-limit", "9", "base", "sleep", "1000")
    login = Login("alice")
    unit = "systemd-run --user --quiet --wait --collect"
    found = login.script(
        f"{unit} -p MemoryMax=50M -p CPUWeight=50 true && {unit} true && systemctl --user daemon-reload"
    )
    login.close()
    equal((found.code, found.err), (0, ""))
    equal([place.file("web", "memory.max"), place.file("web", "pids.max")], [str(64 << 20), "9"])
    equal(place("run", "--rm", "-m", "30m", "base", *scenarios.HOG).code, 137)
    equal(place("rm", "-f", "web").code, 0)


def user_build(place: Place) -> None:
    equal(place("build", "-t", "made", context()).code, 0)
    equal(place("run", "--rm", "made").out, "built\n")


def user_undelegated(place: Place) -> None:
    """From a plain login (its scope is root's): a limit is refused, and told how to have it; so is pause."""
    found = place("run", "--rm", "--memory", "30m", "base", "true")
    holds(
        found.code == 125 and "--memory" in found.err and "systemd-run --user --scope" in found.err, "no clear message"
    )
    holds("systemd-run --user --scope" in place("doctor").out, "doctor does not tell")
    place.do("run", "-d", "--name", "bare", "base", "sleep", "1000")
    found = place("pause", "bare")
    holds(found.code == 1 and "cannot pause" in found.err, "no clear message")
    equal(place("rm", "-f", "bare").code, 0)


def plain_hidden(place: Place) -> None:
    """A host whose /proc hides other people's processes."""
    equal(command("mount", "-o", "remount,hidepid=2", "/proc").code, 0)
    try:
        equal(place("doctor").code, 0)
        scenarios.late(place)
        scenarios.day(place)
    finally:
        equal(command("mount", "-o", "remount,hidepid=0", "/proc").code, 0)


def user_single_id(place: Place) -> None:
    """Without a range in /etc/subuid: root inside is the user; another user is refused with a clear message."""
    equal(place("import", base_tar(), "base").code, 0)
    found = place("run", "--rm", "base", "id", "-u")
    equal((found.code, found.out), (0, "0\n"))
    holds("only your own id is mapped" in found.err, "no warning")
    found = place("run", "--rm", "-u", "1000", "base", "true")
    holds(found.code == 125 and "/etc/subuid" in found.err, "no clear message")
    equal(place("build", "-t", "made", context()).code, 0)


def run(wanted: Callable[[str], bool]) -> None:
    """Run all of them."""

    def one(test: Callable[..., None], *places: Place, name: str = "") -> None:
        label = name or test.__name__
        if wanted(label) or test is user_run:  # which imports the image
            check(label, test, *places)

    check("add_users", add_users)
    if "add_users" in failures:
        return
    login, scope = alice(*SCOPE)
    plain_login, plain = alice(grouped=False)
    for test in (user_doctor, user_run, user_limits, user_refused, user_build, user_kept_from_systemd):
        one(test, scope)
    for scenario in scenarios.GROUPED:
        one(getattr(scenarios, scenario), scope, name=f"user_{scenario}")
    one(user_update, scope, plain)
    one(user_undelegated, plain)
    one(plain_hidden, plain)
    for scenario in PLAIN:
        one(getattr(scenarios, scenario), plain, name=f"plain_{scenario}")
    one(scenarios.disk, plain, name="user_disk")
    login.close()
    plain_login.close()
    if not wanted("user_single_id"):
        return
    third = Login("bob")
    bob = Place(third.run, STORE.format("bob"))
    one(user_single_id, bob)
    for scenario in SINGLE:
        one(getattr(scenarios, scenario), bob, name=f"single_{scenario}")
    third.close()
