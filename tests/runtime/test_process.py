"""A process is told from every other that had or will have its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import Denied, InvalidArgument, NotFound
from sampan.runtime import process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_stat_is_read_past_any_name() -> None:
    numbers = " ".join(str(n) for n in range(4, 53))
    for name in ("x", "a b", "a) R 1 (", ")", "((", "x) Z 0 0 0"):
        fields = process.parse_stat(f"77 ({name}) S {numbers}\n".encode())
        assert (fields[0], fields[19]) == (b"S", b"22")


def test_name_with_parentheses_on_a_real_process(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z (b"
    shutil.copy("/bin/sleep", odd)
    child = subprocess.Popen([str(odd), "60"])
    try:
        start = process.start_time(child.pid)
        assert start is not None and process.alive(child.pid, start, process.boot_id())
    finally:
        child.kill()
        child.wait()


def test_what_is_gone_started_now_at_the_latest(sleeper: subprocess.Popen[bytes]) -> None:
    before = process.started(sleeper.pid)
    assert before == process.start_time(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    gone = process.started(sleeper.pid)
    after = subprocess.Popen(["true"])
    assert before <= gone <= process.started(after.pid)
    after.wait()


def test_alive_needs_pid_start_and_boot(sleeper: subprocess.Popen[bytes]) -> None:
    start, boot = process.start_time(sleeper.pid), process.boot_id()
    assert start is not None
    assert process.alive(sleeper.pid, start, boot)
    assert not process.alive(sleeper.pid, start + 1, boot)
    assert not process.alive(sleeper.pid, start, "another boot")
    assert not process.alive(0, start, boot) and not process.alive(-1, start, boot)


def test_signal_reaches_this_process_only(sleeper: subprocess.Popen[bytes]) -> None:
    start, boot = process.start_time(sleeper.pid), process.boot_id()
    assert start is not None
    with pytest.raises(NotFound):
        process.send(sleeper.pid, start - 1, boot, signal.SIGKILL)
    assert sleeper.poll() is None
    process.send(sleeper.pid, start, boot, signal.SIGTERM)
    assert process.wait(sleeper.pid, start, boot, 60)
    assert sleeper.wait() == -signal.SIGTERM


def test_a_dead_process_that_nobody_collected_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    start, boot = process.start_time(sleeper.pid), process.boot_id()
    assert start is not None
    os.kill(sleeper.pid, signal.SIGKILL)
    assert process.wait(sleeper.pid, start, boot, 60)
    assert not process.alive(sleeper.pid, start, boot)
    with pytest.raises(NotFound):
        process.send(sleeper.pid, start, boot, signal.SIGTERM)


def test_wait_gives_up_in_time(sleeper: subprocess.Popen[bytes]) -> None:
    start = process.start_time(sleeper.pid)
    assert start is not None
    assert not process.wait(sleeper.pid, start, process.boot_id(), 0.05)
    assert sleeper.poll() is None


def test_signal_to_another_users_process_is_denied(sleeper: subprocess.Popen[bytes]) -> None:
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    start = process.start_time(sleeper.pid)
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(process.__file__).parents[2])!r})
from sampan.errors import Denied
from sampan.runtime import process
os.setuid(65534)
try:
    process.send({sleeper.pid}, {start}, process.boot_id(), 9)
except Denied:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 7
    assert sleeper.poll() is None and issubclass(Denied, Exception)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("15", 15), ("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63),
     ("64", 64), ("WINCH", 28), ("IOT", 6), (" hup ", 1)],
)  # fmt: skip
def test_signal_names(text: str, number: int) -> None:
    assert process.signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-9", "TERMINATE", "RTMIN-1", "RTMAX+1", "RTMIN+99", "RTMIN+", "9x", "²"]
)
def test_unknown_signals_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown signal"):
        process.signal_number(text)


def test_signal_numbers_agree_with_python() -> None:
    for known in signal.Signals:
        if known.name not in ("SIGRTMIN", "SIGRTMAX"):
            assert process.signal_number(known.name) == known.value
    assert process.signal_name(15) == "SIGTERM" and process.signal_name(37) == "SIGRTMIN+3"
