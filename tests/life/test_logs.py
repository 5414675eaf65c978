"""logs: what programs write, however much and whatever; rotation; following; moments; a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lifesupport import Run
from waiting import until

import sampan
from sampan.engine import supervisors
from sampan.engine.logs import Files
from sampan.errors import InvalidArgument, NotSupported
from sampan.oci import logopts, timestamp

LIMIT = 8 << 20  # of a supervisor's resident memory


def ended(engine: sampan.Engine, name: str) -> bool:
    return engine.containers.get(name).status == "exited"


def log_of(engine: sampan.Engine, name: str) -> Path:
    return Path(engine.store.paths.container(engine.containers.get(name).id), "log")


def most_resident(engine: sampan.Engine, name: str) -> int:
    """Give the most resident memory that the supervisor has had, in bytes (proc(5): VmHWM)."""
    pid = supervisors.supervisor(engine.containers.socket(engine.containers.get(name).id))
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def test_lines_are_dockers_json_and_streams_are_apart(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("echo out; echo err >&2; printf half")
    until(lambda: ended(engine, name))
    entries = [json.loads(line) for line in log_of(engine, name).read_text().splitlines()]
    assert [(e["log"], e["stream"]) for e in sorted(entries, key=lambda e: str(e["log"]))] == [
        ("err\n", "stderr"),
        ("half", "stdout"),
        ("out\n", "stdout"),
    ]
    assert all(e["time"].endswith("Z") and len(e["time"]) == 30 for e in entries)
    shown = sampan_run("logs", name)
    assert (shown.stdout, shown.stderr) == ("out\nhalf", "err\n")
    assert oct(log_of(engine, name).stat().st_mode & 0o777) == "0o640"


def test_any_bytes_make_valid_lines(engine: sampan.Engine, started: Callable[..., str]) -> None:
    name = started(r"""printf 'nul \000 bad \377\300\200 tab \t quote " back \\ \303\274\n'""")
    until(lambda: ended(engine, name))
    (entry,) = [json.loads(line) for line in log_of(engine, name).read_text(encoding="utf-8").splitlines()]
    assert entry["log"] == 'nul \0 bad \ufffd\ufffd\ufffd tab \t quote " back \\ \u00fc\n'


def test_a_line_without_end_is_cut_and_grows_no_memory(engine: sampan.Engine, started: Callable[..., str]) -> None:
    name = started("dd if=/dev/zero bs=1M count=24; echo; echo end; while [ ! -e /go ]; do sleep 0.02; done")
    until(lambda: b'"end\\n"' in log_of(engine, name).read_bytes())
    assert most_resident(engine, name) < LIMIT
    engine.containers.exec(name, ["sh", "-c", ": > /go"])
    until(lambda: ended(engine, name))
    lines = log_of(engine, name).read_text().splitlines()
    assert json.loads(lines[-1])["log"] == "end\n"
    assert all(len(json.loads(line)["log"]) <= 16384 for line in lines)
    sizes = [path.stat().st_size for path in log_of(engine, name).parent.glob("log*")]
    assert len(sizes) == 3 and max(sizes) <= logopts.MAX_SIZE


def test_a_flood_keeps_its_limits_and_its_last_line(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    script = "trap 'kill $!; wait; echo last; exit 0' TERM; yes & while :; do sleep 0.05; done"
    name = started(script, "--log-opt", "max-size=200k", "--log-opt", "max-file=2")
    until(lambda: Path(f"{log_of(engine, name)}.1").exists())
    assert most_resident(engine, name) < LIMIT
    assert sampan_run("stop", name).returncode == 0
    assert engine.containers.get(name).exit_code == 0
    sizes = [path.stat().st_size for path in log_of(engine, name).parent.glob("log*")]
    assert len(sizes) == 2 and max(sizes) <= 200_000
    assert sampan_run("logs", "--tail", "1", name).stdout == "last\n"


def test_a_follower_sees_each_line_once_across_rotations_and_ends_with_the_container(
    engine: sampan.Engine, started: Callable[..., str], tmp_path: Path
) -> None:
    """The program is never 600 lines ahead: those of one file and a bit, of the four that are kept."""
    tmp_path.chmod(0o755)
    os.mkfifo(tmp_path / "pace")
    (tmp_path / "pace").chmod(0o666)
    pace = os.open(tmp_path / "pace", os.O_RDWR)
    script = "exec 3< /go/pace; i=0; while [ $i -lt 4000 ]; do [ $((i%100)) != 0 ] || read x <&3; "
    script += "echo line $i; i=$((i+1)); done"
    name = started(script, "--log-opt", "max-size=50k", "--log-opt", "max-file=4", "-v", f"{tmp_path}:/go")
    with subprocess.Popen(engine.command(["logs", "-f", name]), stdout=subprocess.PIPE, text=True) as follower:
        watchdog = threading.Timer(120, follower.kill)
        watchdog.start()
        os.write(pace, b"\n" * 5)
        assert follower.stdout is not None
        for number, line in enumerate(follower.stdout):
            assert line == f"line {number}\n"
            if number % 100 == 0:
                os.write(pace, b"\n")
        watchdog.cancel()
    os.close(pace)
    assert (follower.returncode, number) == (0, 3999)


class Overtaken(Files):
    """A reader that is held up after each look for so many steps of the writer."""

    steps: list[Callable[[], None]] = []

    def _look(self) -> list[tuple[str, int]]:
        found = super()._look()
        if self.steps:
            self.steps.pop(0)()
        return found


@pytest.mark.parametrize("each", [1, 2, 4])
def test_a_reader_that_is_overtaken_by_a_rotation_reads_each_line_once(tmp_path: Path, each: int) -> None:
    """Its steps: the oldest file is renamed, the next one, and the new one is made."""
    path = tmp_path / "log"

    def write(number: int) -> None:
        path.write_text(f"{number}\n")

    def move(number: int) -> None:
        older = tmp_path / f"log.{number - 1}" if number > 1 else path
        if older.exists():
            older.rename(tmp_path / f"log.{number}")

    def rotation(line: int) -> list[Callable[[], None]]:
        return [*(lambda n=n: move(n) for n in (3, 2, 1)), lambda: write(line)]  # type: ignore[misc]

    reader = Overtaken(str(path))
    write(0)
    assert list(reader.lines()) == [b"0\n"]
    for step in rotation(1):
        step()
    steps = [*rotation(2), *rotation(3)]
    reader.steps = [lambda at=at: [step() for step in steps[at : at + each]] for at in range(0, len(steps), each)]  # type: ignore[misc]
    read = list(reader.lines())
    while reader.steps:
        reader.steps.pop(0)()
        read += reader.lines()
    reader.close()
    assert read == [b"1\n", b"2\n", b"3\n"]


def test_an_interrupted_follower_ends_without_a_word(engine: sampan.Engine, started: Callable[..., str]) -> None:
    name = started("echo here; sleep 60")
    follower = subprocess.Popen(
        engine.command(["logs", "-f", name]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert follower.stdout and follower.stdout.readline() == "here\n"
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=60)[1] == "" and follower.returncode == 130


def test_moments_tails_and_times(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, tmp_path: Path
) -> None:
    script = "for i in 1 2 3; do while [ ! -e /go/$i ]; do sleep 0.02; done; echo $i; done"
    tmp_path.chmod(0o755)
    name = started(script, "-v", f"{tmp_path}:/go")
    for number in (1, 2, 3):
        (tmp_path / str(number)).touch()
        until(lambda number=number: log_of(engine, name).read_text().count("\n") == number)  # type: ignore[misc]
    until(lambda: ended(engine, name))
    stamps = [line.split(" ")[0] for line in sampan_run("logs", "-t", name).stdout.splitlines()]
    assert len(stamps) == 3 and stamps == sorted(set(stamps))

    def shown(*words: str) -> str:
        return sampan_run("logs", *words, name).stdout.replace("\n", "")

    moments = [timestamp.parse(stamp) for stamp in stamps]
    between = (moments[0] + moments[1]) // 2
    middle = f"{between // 10**9}.{between % 10**9:09d}"
    assert shown("--since", middle) == "23" and shown("--until", middle) == "1"
    second = f"{moments[1] // 10**9}.{moments[1] % 10**9:09d}"
    for whole in (stamps[1], second):  # to the nanosecond, and the line of that very moment belongs to both
        assert shown("--since", whole) == "23" and shown("--until", whole) == "12"
        assert shown("--since", whole, "--until", whole) == "2"
    assert shown("--since", "1h30m") == "123" and shown("--until", "1h30m") == ""
    assert shown("--since", "1700000000.5") == "123" and shown("--since", "2020-01-31") == "123"
    assert shown("-n", "2") == "23" and shown("--tail", "0") == "" and shown("--tail", "all") == "123"
    assert shown("--tail", "1", "--until", middle) == "1"
    for bad in (["--since", "yesterday"], ["--tail", "many"]):
        done = sampan_run("logs", *bad, name)
        assert done.returncode != 0 and len(done.stderr.splitlines()) <= 2 and bad[1] in done.stderr
    long = started("echo now; sleep 6000")
    until(lambda: sampan_run("logs", long).stdout == "now\n")
    soon = f"{time.time() + 0.5:.3f}"
    assert sampan_run("logs", "-f", "--until", soon, long).stdout == "now\n"


def test_a_log_of_none_is_not_kept_and_says_so(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("echo gone; sleep 60", "--log-driver", "none")
    done = sampan_run("logs", name)
    assert done.returncode != 0 and "--log-driver none" in done.stderr
    assert not log_of(engine, name).exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (True, 10 << 20, 3)),
        ({"log_opts": {"max-size": "10m", "max-file": "1"}}, (True, 10_000_000, 1)),
        ({"log_opts": {"max-size": "1.5kb"}}, (True, 1500, 3)),
        ({"log_opts": {"max-size": "-1"}}, (True, 0, 3)),
        ({"log_driver": "none"}, (False, 10 << 20, 3)),
    ],
)
def test_options(options: dict[str, object], expected: tuple[bool, int, int]) -> None:
    found = logopts.settings(options)
    assert (found.kept, found.max_size, found.max_files) == expected


@pytest.mark.parametrize(
    ("driver", "key", "value", "kind"),
    [
        ("", "max-size", "0", InvalidArgument),
        ("", "max-size", "10x", InvalidArgument),
        ("", "max-size", "1e400", InvalidArgument),
        ("", "max-file", "0", InvalidArgument),
        ("", "max-file", "-1", InvalidArgument),
        ("", "labels", "a", NotSupported),
        ("syslog", "max-size", "1m", NotSupported),
        ("none", "max-size", "1m", InvalidArgument),
    ],
)
def test_bad_options_are_named(driver: str, key: str, value: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="log (option|driver)"):
        logopts.settings({"log_driver": driver, "log_opts": {key: value}})


FULL = """
set -e
mount -t tmpfs -o size=24m,mode=755 none "$1"
sampan() { "$@"; }
$SAMPAN bootstrap -t base host sh dd true yes sleep
mkdir "$2/go"
program='while [ ! -e /go/on ]; do sleep 0.05; done; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done'
$SLOWLY $SAMPAN run -d --name full -v "$2/go:/go" base sh -c "$program; echo to stderr >&2; exit 7"
for size in 64k 512; do dd if=/dev/zero bs=$size >> "$1/ballast" 2>/dev/null || true; done
touch "$2/go/on"
echo "waited $($SAMPAN wait full)"
$SAMPAN ps -a --format '{{.Names}} {{.Status}}'
echo "kept $($SAMPAN logs full 2>/dev/null | wc -l)"
$SAMPAN logs full 2>/dev/null > "$2/log"
tail -n 1 "$2/log"
$SAMPAN logs full 2>&1 >/dev/null
$SAMPAN rm full
rm "$1/ballast"
$SAMPAN run --rm base true
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small tmpfs")
@pytest.mark.parametrize("slowly", [False, True])
def test_a_disk_that_is_full_at_the_end_hides_neither_exit_code_nor_last_lines(
    engine: sampan.Engine, tmp_path: Path, slowly: bool
) -> None:
    """Slowly: the room for the last lines is there when the start is told, however long the disk takes to give it."""
    if slowly and not shutil.which("strace"):
        pytest.skip("needs strace, to hold up fallocate(2)")
    (tmp_path / "st").mkdir()
    words = engine.command([])
    words[words.index("--root") + 1] = f"{tmp_path}/st"
    words[words.index(engine.store.paths.run)] = f"{tmp_path}/st/run"
    held = "strace -D -f -qq -o /dev/null -e trace=fallocate -e inject=fallocate:delay_enter=1500000:when=1"
    script = FULL.replace("$SAMPAN", " ".join(f"'{word}'" for word in words))
    script = script.replace("$SLOWLY", held if slowly else "")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", f"{tmp_path}/st", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waited 7\n" in done.stdout and "full Exited (7)" in done.stdout
    kept = int(done.stdout.partition("kept ")[2].split()[0])
    assert 100 < kept < 1000, done.stdout  # the disk was full: of the lines between some are lost
    assert "line 1999\nto stderr\n" in done.stdout  # of each stream, whichever was read first
