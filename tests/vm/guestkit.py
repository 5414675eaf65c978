"""What the guest's checks are made of: commands, logins that stay, checks that must leave nothing, what can be left.

Programs are started with a deadline, since a machine that hangs would tell nothing. A check that fails tells all the
commands that ran in it, and what they printed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import select
import shlex
import signal
import subprocess
import tarfile
import time
import traceback
from collections.abc import Callable
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
SAMPAN = f"{CHECKOUT}/bin/sampan"
GROUPS = "/sys/fs/cgroup"
LIMIT = 90.0  # seconds for one command
SETTLE = 15.0  # seconds for what ends by itself: supervisors unmount after they have told the end

failures: list[str] = []
ran: list[str] = []


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def _note(words: tuple[str, ...], started: float, ended: Ended) -> Ended:
    took = time.monotonic() - started
    ran.append(f"$ {' '.join(words)}  ({took:.1f} s)\n-> {ended.code}\n{ended.out}{ended.err}")
    return ended


def command(*words: str, text: str = "") -> Ended:
    """Run a command; keep what it printed for a failure's report."""
    started = time.monotonic()
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=LIMIT, check=False)
        ended = Ended(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired as error:
        ended = Ended(-1, str(error.stdout or ""), f"no end within {LIMIT:.0f} s; {error.stderr!r}")
    return _note(words, started, ended)


def equal(found: object, wanted: object) -> None:
    """Fail, showing both, unless they are equal."""
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def holds(condition: object, what: str) -> None:
    """Fail with `what` unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for a condition, and give what it gave; fail with `what` if it does not come to that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        holds(time.monotonic() < deadline, what)
        time.sleep(0.2)
    return found


# Who is logged in


class Login:
    """A shell that stays, as after a login; commands run in it one after the other, all in its control group."""

    def __init__(self, name: str, *inside: str) -> None:
        """Log a user in through PAM; `inside` is put before the shell."""
        entry = pwd.getpwnam(name)
        runtime = f"/run/user/{entry.pw_uid}"
        environment = [f"HOME={entry.pw_dir}", f"USER={name}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        if entry.pw_uid:
            environment.append(f"XDG_RUNTIME_DIR={runtime}")
            environment.append(f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus")
        login = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", f"User={name}", "-p", "PAMName=login"]
        words = [*login, "--working-directory=/", "env", "-i", *environment, *inside, "sh"]
        self.name, self.home = name, entry.pw_dir
        self._shell = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def run(self, *words: str) -> Ended:
        """Run one command in this login."""
        return self.script(shlex.join(words))

    def script(self, text: str) -> Ended:
        """Run lines of shell in this login."""
        started = time.monotonic()
        out, err = f"{self.home}/.said.out", f"{self.home}/.said.err"
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {text}\n}} >{out} 2>{err} </dev/null; echo ended $?\n")
        code = -1
        if select.select([self._shell.stdout], [], [], LIMIT)[0]:
            line = self._shell.stdout.readline().split()
            code = int(line[1]) if line[:1] == ["ended"] else -1
        found = [open(path, encoding="utf-8", errors="replace").read() for path in (out, err) if os.path.exists(path)]
        return _note((f"[{self.name}]", text), started, Ended(code, *(found or ["", "no shell"])))

    def close(self) -> None:
        """Log out."""
        self._shell.communicate("exit\n", timeout=LIMIT)


class Place:
    """From where sampan is called: as root, or in a login of a user.

    Its store is `store`; its containers' groups are below `base`, which is "" where they can have none.
    """

    def __init__(self, run: Callable[..., Ended], store: str, base: str = "") -> None:
        self._run, self.store, self.base = run, store, base

    def __call__(self, *words: str) -> Ended:
        """Run sampan there."""
        return self._run(SAMPAN, *words)

    def do(self, *words: str) -> str:
        """Run sampan there; it must succeed and say nothing on standard error. Give its output."""
        found = self(*words)
        equal((found.code, found.err), (0, ""))
        return found.out

    def state(self, name: str) -> Any:
        """Give what `inspect` says of a container's state."""
        return json.loads(self("inspect", "-f", "{{json .State}}", name).out)

    def group(self, name: str) -> str:
        """Give a container's group."""
        return f"{self.base}/sampan/sampan-{self.do('inspect', '-f', '{{.Id}}', name).strip()}"

    def file(self, name: str, file: str) -> str:
        """Give what a file of a container's group says."""
        return text(f"{self.group(name)}/{file}")


def text(path: str) -> str:
    """Give a file's text without its last line's end."""
    with open(path, encoding="ascii") as opened:
        return opened.read().strip()


def keyed(value: str) -> dict[str, int]:
    """Give a file of names and numbers as such."""
    return {words[0]: int(words[1]) for line in value.splitlines() if len(words := line.split()) == 2}


def sampan(*words: str) -> Ended:
    """Run sampan as root."""
    return command(SAMPAN, *words)


ROOT = Place(command, "/var/lib/sampan", GROUPS)


# What may be left


def left_groups() -> list[str]:
    """Return the containers' groups that are there."""
    return [path for path, _, _ in os.walk(GROUPS) if "/sampan/sampan-" in path]


def left_mounts() -> list[str]:
    """Return what is mounted for sampan, in this mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line.split()[4] for line in file if "/sampan/" in line or "sampan-" in line]


def helpers() -> list[int]:
    """Return the processes of sampan's helper: supervisors, waiters, health checks."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and "sampan-helper" in os.readlink(f"/proc/{name}/exe"):
                found.append(int(name))
    return found


def left(*places: Place) -> list[str]:
    """Return all that is there of containers, and what ended ones have left."""
    processes = []
    for place in places or (ROOT,):
        if os.path.isdir(f"{place.store}/containers"):
            processes += [f"{place.store}/containers/{name}" for name in os.listdir(f"{place.store}/containers")]
    for pid in helpers():
        with contextlib.suppress(OSError):
            processes.append(f"process {pid}: " + open(f"/proc/{pid}/stat", encoding="ascii").read()[:40])
    return left_groups() + left_mounts() + processes


def kill_all() -> int:
    """Kill every helper with -9, all at once; return how many they were."""
    found = helpers()
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def check(name: str, test: Callable[..., None], *places: Place, keeps: bool = False) -> None:
    """Run one test and say how it went; nothing may be left after it unless it `keeps` its containers."""
    ran.clear()
    started = time.monotonic()
    try:
        test(*places)
        deadline = time.monotonic() + SETTLE
        while not keeps and (rest := left(*places)):
            holds(time.monotonic() < deadline, "left: " + "\n  ".join(rest))
            time.sleep(0.1)
    except Exception:
        failures.append(name)
        print(f"FAIL {name}\n" + "\n".join(ran) + "\n" + traceback.format_exc(), flush=True)
        _clear(places)
    else:
        print(f"ok {name}  ({time.monotonic() - started:.1f} s)", flush=True)


def _clear(places: tuple[Place, ...]) -> None:
    """Take away what a failed test left, so that the next one fails for reasons of its own alone."""
    for place in places or (ROOT,):
        names = place("ps", "-aq").out.split()
        if names:
            place("rm", "-f", *names)
    kill_all()
    for path in reversed(left_groups()):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def context() -> str:
    """Return a directory to build from."""
    os.makedirs("/var/tmp/context", exist_ok=True)
    with open("/var/tmp/context/Dockerfile", "w", encoding="ascii") as file:
        file.write('FROM base\nRUN echo built > /word && id -u\nENV A=b\nCMD ["cat", "/word"]\n')
    return "/var/tmp/context"


def base_tar() -> str:
    """Return the tar to import: the one that was given, else Debian's busybox with its applets."""
    given = f"{CHECKOUT}/base.tar"
    if os.path.exists(given):
        return given
    if os.path.exists("/var/tmp/base.tar"):
        return "/var/tmp/base.tar"
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
