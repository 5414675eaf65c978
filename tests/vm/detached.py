"""What is detached outlives the unit or the login that started it, where a user may have it so."""

from __future__ import annotations

import os
from collections.abc import Callable

from asuser import SCOPE, alice, user_group
from guestkit import GROUPS, ROOT, SAMPAN, Login, Place, check, command, equal, failures, holds, text, until
from reboot import TRAP, rooted

KILLING = "/etc/systemd/logind.conf.d/kill.conf"
UNIT = ("systemd-run", "--quiet", "--wait", "--collect")
AWAY = "sampan/supervisors"


def _supervisor_group(place: Place, name: str) -> str:
    pid = place.do("inspect", "-f", "{{.State.Pid}}", name).strip()
    parent = text(f"/proc/{pid}/stat").rpartition(")")[2].split()[1]
    return text(f"/proc/{parent}/cgroup").partition("::")[2]


def _up(place: Place, name: str) -> None:
    until(lambda: place("logs", name).out == "up\n", "it does not come up")


def _goes_on(place: Place, name: str) -> None:
    equal(place("ps", "-f", f"name={name}", "--format", "{{.State}}").out, "running\n")
    equal(place("exec", name, "true").code, 0)
    equal(place("stop", "-t", "9", name).code, 0)
    equal(place("logs", name).out.split(), ["up", "told"])
    equal(place.state(name)["ExitCode"], 0)
    equal(place("rm", name).code, 0)


def root_service() -> None:
    """A transient service of root, which ends with its command: `run -d`, `exec -d`, and a restart after it."""
    words = ["run", "-d", "--name", "away", "-m", "32m", "base", "sh", "-c", TRAP]
    equal(command(*UNIT, SAMPAN, *words).code, 0)
    _up(ROOT, "away")
    equal(_supervisor_group(ROOT, "away"), f"/{AWAY}")
    equal(command(*UNIT, SAMPAN, "exec", "-d", "away", "sleep", "1000").code, 0)
    holds("sleep 1000" in ROOT("top", "away").out, "what `exec -d` started has ended with its unit")
    _goes_on(ROOT, "away")
    equal(command(*UNIT, SAMPAN, "run", "-d", "--name", "back", "--restart", "always", "base", "sleep", "1000").code, 0)
    before = ROOT.do("inspect", "-f", "{{.State.Pid}}", "back")
    os.kill(int(before), 9)
    shown = ("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "back")
    until(lambda: ROOT(*shown).out == "running 1\n", "no restart")
    equal(_supervisor_group(ROOT, "back"), f"/{AWAY}")
    equal(ROOT("rm", "-f", "back").code, 0)


def root_session() -> None:
    """A login of root whose processes are killed at its end."""
    os.makedirs(os.path.dirname(KILLING), exist_ok=True)
    with open(KILLING, "w", encoding="ascii") as file:
        file.write("[Login]\nKillUserProcesses=yes\nKillExcludeUsers=nobody\n")
    equal(command("systemctl", "restart", "systemd-logind").code, 0)
    login, place = rooted()
    holds("session-" in login.script("cat /proc/self/cgroup").out, "no session")
    place.do("run", "-d", "--name", "away", "base", "sh", "-c", TRAP)
    _up(place, "away")
    login.script("sleep 1234 >/dev/null 2>&1 &")
    login.close()
    until(lambda: command("pgrep", "-f", "^sleep 1234").code == 1, "the session's processes are not killed")
    _goes_on(ROOT, "away")


# As a person does: the keys again until the terminal is raw and they are understood.
KEYS = """
import os, pty, select, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
while os.waitpid(pid, os.WNOHANG)[0] == 0:
    if select.select([terminal], [], [], 1)[0]:
        try:
            seen += os.read(terminal, 1000)
        except OSError:
            continue
    elif b"up" in seen:
        os.write(terminal, b"\\x10\\x11")
"""


def root_left_by_keys() -> None:
    """`run -it` in a login whose processes are killed at its end, left by the detach keys before."""
    login, place = rooted()
    words = ["run", "-it", "--name", "away", "base", "sh", "-c", TRAP]
    equal(login.run("python3", "-c", KEYS, SAMPAN, *words).code, 0)
    equal(_supervisor_group(place, "away"), f"/{AWAY}")
    login.script("sleep 1234 >/dev/null 2>&1 &")
    login.close()
    until(lambda: command("pgrep", "-f", "^sleep 1234").code == 1, "the session's processes are not killed")
    _goes_on(ROOT, "away")


def user_service(scope: Place) -> None:
    """A user's service; a scope lives as long as what is in it, so there the supervisor stays."""
    login = Login("alice")
    words = f"{SAMPAN} run -d --name away base sh -c '{TRAP.replace(chr(39), chr(34))}'"
    equal(login.script(f"systemd-run --user --quiet --wait --collect {words}").code, 0)
    login.close()
    _up(scope, "away")
    equal(_supervisor_group(scope, "away"), f"{user_group().removeprefix(GROUPS)}/{AWAY}")
    _goes_on(scope, "away")
    login, place = alice(*SCOPE)
    place.do("run", "-d", "--name", "away", "base", "sh", "-c", TRAP)
    _up(place, "away")
    holds(_supervisor_group(place, "away").endswith(".scope"), "it has left a scope that would not have ended")
    login.close()
    _goes_on(scope, "away")


def plain_session(scope: Place) -> None:
    """A plain login's scope is root's: there a container ends with the login, and is told."""
    login, plain = alice(grouped=False)
    plain.do("run", "-d", "--name", "gone", "base", "sh", "-c", TRAP)
    _up(plain, "gone")
    holds("session-" in _supervisor_group(plain, "gone"), "it is not in the session")
    login.close()
    until(lambda: scope("ps", "-q").out == "", "it has not ended with the login")
    equal(scope("logs", "gone").out.split(), ["up", "told"])
    equal(scope("rm", "gone").code, 0)


def run(wanted: Callable[[str], bool]) -> None:
    """Run all of them; alice's image is there."""
    for test in (root_service, root_session, root_left_by_keys):
        if wanted(test.__name__):
            check(test.__name__, test)
    login, scope = alice(*SCOPE)
    for each in (user_service, plain_session):
        if wanted(each.__name__) and "user_run" not in failures:
            check(each.__name__, each, scope)
    login.close()
