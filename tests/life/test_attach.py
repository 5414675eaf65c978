"""attach: output from now on, input, detach keys, signals, sizes, several clients, readers that do not read."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable

import pytest
from lifesupport import Run, heard
from waiting import until

import sampan

COUNTER = "trap 'echo bye; exit 3' TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done"


class Terminal:
    """A command at a pseudo-terminal of its own."""

    def __init__(self, words: list[str], rows: int = 24, session: bool = True) -> None:
        self.fd, peer = pty.openpty()
        fcntl.ioctl(peer, termios.TIOCSWINSZ, struct.pack("4H", rows, 80, 0, 0))
        self.process = subprocess.Popen(words, stdin=peer, stdout=peer, stderr=peer, start_new_session=session)
        os.close(peer)
        self.seen = b""

    def wait_for(self, text: bytes, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} did not come: {self.seen!r}"
            self.seen += os.read(self.fd, 4096)

    def type(self, text: bytes) -> None:
        """Type once the command has the terminal in raw mode; before the first output ^Q is the line discipline's."""
        until(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON)
        os.write(self.fd, text)

    def end(self) -> int:
        with pytest.raises(OSError) as caught:
            while select.select([self.fd], [], [], 60)[0]:
                self.seen += os.read(self.fd, 4096)
        assert caught.value.errno == errno.EIO, caught.value  # its last user is gone (pty(7))
        os.close(self.fd)
        return self.process.wait(60)


def test_start_attaches_to_what_runs_already(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started(COUNTER)
    heard(engine, name)
    with subprocess.Popen(
        engine.command(["start", "-a", name]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout and watching.stdout.readline().startswith("line ")
        sampan_run("stop", name)
        out, err = watching.communicate(timeout=60)
    assert (out.splitlines()[-1], err, watching.returncode) == ("bye", "", 3)


def test_an_archive_is_not_for_a_terminal_and_the_hint_is_the_commands_own(
    engine: sampan.Engine, started: Callable[..., str]
) -> None:
    name = started("sleep 6000")
    for words, hint in ((["cp", f"{name}:/etc", "-"], b"name a place"), (["export", name], b"use -o FILE")):
        screen = Terminal(engine.command(words))
        assert screen.end() == 1 and hint in screen.seen


def test_output_is_from_now_on_and_the_exit_code_is_the_programs(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started(COUNTER)
    heard(engine, name)
    clients = [
        subprocess.Popen(engine.command(["attach", "--no-stdin", name]), stdout=subprocess.PIPE) for _ in range(3)
    ]
    for client in clients:
        assert client.stdout and client.stdout.readline().startswith(b"line ")
    assert sampan_run("stop", name).returncode == 0
    for client in clients:
        output = client.communicate(timeout=60)[0].splitlines()
        assert output[-1] == b"bye" and b"line 0" not in output
        assert client.returncode == 3


def test_signals_go_to_the_program_unless_it_is_told_not_to(engine: sampan.Engine, started: Callable[..., str]) -> None:
    name = started(COUNTER)
    words = engine.command(["attach", "--no-stdin", "--sig-proxy=false", name])
    apart = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert apart.stdout and apart.stdout.readline()
    apart.send_signal(signal.SIGTERM)
    assert apart.wait(60) == -signal.SIGTERM
    assert engine.containers.get(name).status == "running"
    passing = subprocess.Popen(engine.command(["attach", "--no-stdin", name]), stdout=subprocess.PIPE)
    assert passing.stdout and passing.stdout.readline()
    passing.send_signal(signal.SIGTERM)
    assert passing.wait(60) == 3
    apart.stdout.close()
    passing.stdout.close()


def test_input_reaches_a_program_of_one_client_after_another(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("while read word; do echo got $word; done; echo end", "-i")
    for word in ("one", "two"):
        client = subprocess.Popen(
            engine.command(["attach", name]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdin and client.stdout
        client.stdin.write(word + "\n")
        client.stdin.close()
        assert client.stdout.readline() == f"got {word}\n"
        client.kill()
        client.wait()
        client.stdout.close()
    assert engine.containers.get(name).status == "running"


def test_a_terminal_is_left_by_its_keys_and_come_back_to(engine: sampan.Engine, sampan_run: Run) -> None:
    terminal = Terminal(engine.command(["run", "-it", "--name", "box", "base", "sh"]), rows=31)
    try:
        terminal.type(b"stty=none; echo one-$((40+2))\r")
        terminal.wait_for(b"one-42")
        terminal.type(b"\x10\x11")
        assert terminal.end() == 0
        assert engine.containers.get("box").status == "running"
        again = Terminal(engine.command(["attach", "--detach-keys", "ctrl-@,x", "box"]))
        again.type(b"echo two-$((40+2))\r")
        again.wait_for(b"two-42")
        assert b"one-42" not in again.seen
        again.type(b"\0x")
        assert again.end() == 0
        last = Terminal(engine.command(["attach", "box"]))
        last.type(b"exit 5\r")
        assert last.end() == 5
        back = Terminal(engine.command(["start", "-ai", "box"]))
        back.type(b"echo three-$((40+2)); exit 6\r")
        back.wait_for(b"three-42")
        assert back.end() == 6
    finally:
        sampan_run("rm", "-f", "box")


def prepared(sampan_run: Run, words: tuple[str, ...], how: str, name: str, script: str) -> list[str]:
    """Make what a command needs that is to run a script, and complete the command."""
    program = ["sh", "-c", script]
    if words[0] != "run":
        sampan_run("create", how, "--name", name, "base", *program)
    if words[0] == "exec":
        sampan_run("start", name)
    return [*words, *{"run": ["base", *program], "start": [name], "exec": [name, *program]}[words[0]]]


@pytest.mark.parametrize("words", [("run", "-it", "--name", "early"), ("start", "-ai"), ("exec", "-it")])
def test_keys_count_from_the_first_output_on(engine: sampan.Engine, sampan_run: Run, words: tuple[str, ...]) -> None:
    script = "echo ready; read line; echo got-$line; sleep 60"
    terminal = Terminal(engine.command(prepared(sampan_run, words, "-it", "early", script)))
    try:
        terminal.wait_for(b"ready")
        os.write(terminal.fd, b"\x10\x11")
        assert terminal.end() == 0
        assert b"^P" not in terminal.seen
        assert engine.containers.get("early").status == "running"
    finally:
        sampan_run("rm", "-f", "early")


@pytest.mark.parametrize("words", [("run", "-t", "--name", "watched"), ("start", "-a"), ("exec", "-t")])
def test_without_i_ctrl_c_is_a_signal_also_at_a_terminal(
    engine: sampan.Engine, sampan_run: Run, words: tuple[str, ...]
) -> None:
    script = "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.02; done"
    command = engine.command(prepared(sampan_run, words, "-t", "watched", script))
    terminal = Terminal(["setsid", "-c", *command], session=False)
    try:
        terminal.wait_for(b"ready")
        time.sleep(0.2)  # a command that wrongly takes the keys has done so by now
        os.write(terminal.fd, b"\x03")
        assert terminal.end() == 9
        assert b"got" in terminal.seen
    finally:
        sampan_run("rm", "-f", "watched")


def test_what_cannot_be_attached_to_says_so_in_a_line(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    ended = started("exit 0")
    until(lambda: engine.containers.get(ended).status == "exited")
    assert sampan_run("create", "--name", "fresh", "base", "true").returncode == 0
    for name, reason in ((ended, "not running"), ("fresh", "not running"), ("nobody", "no such container")):
        done = sampan_run("attach", name)
        assert done.returncode != 0 and reason in done.stderr.splitlines()[0], done
    sampan_run("rm", "fresh")
    tty = started("sleep 60", "-it")
    assert "terminal" in sampan_run("attach", tty).stderr


def test_a_client_that_says_nothing_holds_nobody_up(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    import socket

    name = started(COUNTER)
    heard(engine, name)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for client in silent:
        client.connect(engine.containers.socket(engine.containers.get(name).id))
    assert sampan_run("stop", "-t", "600", name).returncode == 0
    assert engine.containers.get(name).exit_code == 3
    for client in silent:
        client.close()


def supervisor_of(engine: sampan.Engine, name: str) -> int:
    from sampan.engine import supervisors

    return supervisors.supervisor(engine.containers.socket(engine.containers.get(name).id))


def test_clients_that_come_and_go_leave_nothing(engine: sampan.Engine, started: Callable[..., str]) -> None:
    import socket

    name = started("sleep 60")
    path, pid = engine.containers.socket(engine.containers.get(name).id), supervisor_of(engine, name)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(300):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        if number % 3:
            socket.send_fds(client, [b"\0" * (32 if number % 2 else 7)], [0, 1, 2])
        client.close()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before)


def test_a_reader_that_stops_reading_stalls_the_output_only(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("trap 'kill $!; wait; echo last; exit 4' TERM; sleep 0.5; yes & while :; do sleep 0.05; done")
    reading, writing = os.pipe()
    client = subprocess.Popen(engine.command(["attach", "--no-stdin", name]), stdout=writing)
    os.close(writing)
    until(lambda: select.select([reading], [], [], 0)[0])
    time.sleep(0.5)
    pid = supervisor_of(engine, name)
    assert resident(pid) < 8 << 20
    assert sampan_run("stop", "-t", "600", name).returncode == 0
    assert engine.containers.get(name).exit_code == 4
    lines = sampan_run("logs", "--tail", "20", name).stdout.split()
    assert "last" in lines  # of the trap, in the log whoever reads
    data = b""
    while part := os.read(reading, 1 << 16):
        data += part
    assert client.wait(60) == 4 and b"last\n" in data
    os.close(reading)


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
