"""The machine is rebooted while containers run: units of systemd that sampan wrote start what the policies want."""

from __future__ import annotations

import os
import pwd
import time

from asuser import SCOPE, alice, user_group
from guestkit import GROUPS, ROOT, Ended, Login, Place, base_tar, check, command, equal, holds, until

TRAP = "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.1; done"
BOOTED = {  # state after the boot; each ran when the machine went down, but for `stopped`
    "always": "running",
    "unless": "running",
    "stopped": "exited",
    "failing": "running",
    "none": "exited",
}


def rooted() -> tuple[Login, Place]:
    """Log root in, in a session of its own, so that containers are started from where people start them."""
    login = Login("root")
    return login, Place(login.run, "/var/lib/sampan", GROUPS)


def _start(place: Place) -> None:
    rows = (("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped"), ("none", "no"))
    for name, policy in rows:
        place.do("run", "-d", "--name", name, "--restart", policy, "-m", "32m", "base", "sh", "-c", TRAP)
    # PID 1 without a handler: nobody may wait long for it when the machine goes down.
    place.do("run", "-d", "--name", "failing", "--restart", "on-failure", "base", "sleep", "1000")
    place.do("run", "-d", "--rm", "--name", "gone", "base", "sleep", "1000")
    equal(place("stop", "-t", "5", "stopped").code, 0)


def _alone(*words: str) -> Ended:
    """Run sampan on a store for which no unit is installed."""
    return command("env", "SAMPAN_ROOT=/var/lib/alone", "SAMPAN_RUN=/run/alone", *words)


ALONE = Place(_alone, "/var/lib/alone", GROUPS)


def prepare() -> None:
    """Install the units, and have containers of each policy run."""
    equal(ALONE("import", base_tar(), "base").code, 0)
    ALONE.do("run", "-d", "--name", "alone", "--restart", "always", "base", "sh", "-c", TRAP)
    login, place = rooted()
    equal(place("system", "boot", "--install").code, 0)
    equal(command("systemctl", "daemon-reload").code, 0)
    equal(command("systemctl", "enable", "sampan-boot.service").code, 0)
    _start(place)
    login.close()
    login, place = alice(*SCOPE)
    equal(place("system", "boot", "--install").code, 0)
    equal(login.script("systemctl --user daemon-reload && systemctl --user enable sampan-boot.service").code, 0)
    _start(place)
    login.close()
    with open("/var/tmp/went-down", "w", encoding="ascii") as file:
        file.write(str(time.time()))


def _booted(place: Place) -> None:
    until(lambda: len(place("ps", "-q").out.split()) >= 3, "the containers are not started", 120)
    rows = dict(line.split() for line in place("ps", "-a", "--format", "{{.Names}} {{.State}}").out.splitlines())
    equal(rows, BOOTED)
    equal(place.file("always", "memory.max"), str(32 << 20))
    equal(place.do("inspect", "-f", "{{.RestartCount}}", "always"), "0\n")
    equal(place("logs", "always").out.split()[:3], ["up", "told", "up"])
    state = place.state("none")
    equal((state["ExitCode"], state["OOMKilled"]), (0, False))
    holds(place("logs", "none").out.split() == ["up", "told"], "not told to end")


def root_booted() -> None:
    command("systemctl", "status", "--no-pager", "sampan-boot.service")  # for the report of a failure
    until(lambda: command("systemctl", "is-active", "sampan-boot.service").out == "active\n", "the unit is not active")
    _booted(ROOT)
    equal(ROOT("system", "boot").out, "")  # twice does it once


def user_booted() -> None:
    until(lambda: os.path.exists(f"/run/user/{pwd.getpwnam('alice').pw_uid}/bus"), "alice's manager does not start")
    login, place = alice(grouped=False)
    place.base = user_group()
    _booted(place)
    equal(login.script("systemctl --user stop sampan-boot.service").code, 0)
    until(lambda: place("ps", "-q").out == "", "stopping the unit does not end its containers")
    equal(place("rm", *BOOTED).code, 0)
    login.close()


def root_without_unit() -> None:
    """Also where no unit is installed the container was told, by systemd's last round of signals, and is as it was."""
    equal(ALONE("logs", "alone").out.split(), ["up", "told"])
    state = ALONE.state("alone")
    equal((state["Status"], state["ExitCode"]), ("exited", 0))
    equal(ALONE("system", "boot").out, "alone\n")
    equal(ALONE("rm", "-f", "alone").code, 0)


def root_unit_stopped() -> None:
    """Stopping the unit tells its containers to end, and none is started again."""
    began = time.monotonic()
    equal(command("systemctl", "stop", "sampan-boot.service").code, 0)
    holds(time.monotonic() - began < 40, "it took too long")
    equal(ROOT("ps", "-q").out, "")
    equal(ROOT("rm", *BOOTED).code, 0)


def run() -> None:
    """Run the checks of the second boot."""
    with open("/var/tmp/went-down", encoding="ascii") as file:
        began = float(file.read())
    print(f"the way down and up took {time.time() - began:.0f} s", flush=True)
    check("root_booted", root_booted, keeps=True)
    check("user_booted", user_booted, keeps=True)
    check("root_without_unit", root_without_unit, keeps=True)
    check("root_unit_stopped", root_unit_stopped)
