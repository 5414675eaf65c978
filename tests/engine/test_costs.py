"""What a run may cost, in counts, which a busy machine does not change: transactions, syncs, processes, files."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from waiting import until

import sampan

ROOT = pathlib.Path(__file__).parent.parent.parent
SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")
CODE = "import sys; sys.path.append(sys.argv[1]); del sys.argv[1]; from sampan import bundle; bundle.install(); "
CODE += "from sampan.cli.main import entry; entry()"


UNFINISHED = " <unfinished ...>"


def statements(engine: sampan.Engine) -> list[str]:
    """Return the SQL of one `Engine.run`."""
    seen: list[str] = []
    engine.run("base", ["true"], network="none")
    connection = engine.store.db.open()
    connection.set_trace_callback(seen.append)
    try:
        engine.run("base", ["true"], network="none")
    finally:
        connection.set_trace_callback(None)
    return seen


def test_a_run_from_python_writes_twice_and_durably_never(engine: sampan.Engine) -> None:
    seen = statements(engine)
    assert sum(text.startswith("BEGIN") for text in seen) == 2
    assert not any("FULL" in text for text in seen)
    assert len(seen) <= 16


def test_a_removal_of_what_has_ended_writes_once(engine: sampan.Engine) -> None:
    """Its end is not written down first: the record is about to go."""
    seen: list[str] = []
    name = ended(engine)
    connection = engine.store.db.open()
    connection.set_trace_callback(seen.append)
    try:
        engine.containers.remove(name)
    finally:
        connection.set_trace_callback(None)
    assert sum(text.startswith("BEGIN") for text in seen) == 1
    assert len(seen) <= 7


def test_a_removal_makes_few_system_calls(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    subprocess.run(command(engine, "rm", ended(engine)), check=True, capture_output=True)
    name = ended(engine)
    engine.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    assert len(ours(strace(tmp_path / "trace", ["-f"], command(engine, "rm", name)))) <= 300


def ended(engine: sampan.Engine) -> str:
    """Give a container that has ended, which nobody has noticed."""
    done = subprocess.run(command(engine, "run", "-d", "base", "true"), capture_output=True, text=True, check=True)
    name = done.stdout.strip()
    until(lambda: os.path.exists(engine.store.paths.container(name) + "/exit"))
    return name


def command(engine: sampan.Engine, *words: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", CODE, str(ROOT), "--root", engine.store.paths.root, *words]


def strace(target: pathlib.Path, flags: list[str], words: list[str]) -> list[str]:
    """Run a command and return its trace; skip where that cannot be."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    if os.geteuid():
        pytest.skip("a traced newuidmap has no rights of its own: counted as root only")
    done = subprocess.run(["strace", *flags, "-o", str(target), *words], capture_output=True, text=True, timeout=120)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return whole(target.read_text(errors="replace").splitlines())


def whole(lines: list[str]) -> list[str]:
    """Make one line of a call that another process's came between: how many those are depends on load."""
    made: list[str] = []
    begun: dict[str, int] = {}
    for line in lines:
        pid = line.split(maxsplit=1)[0]
        if " resumed>" in line and pid in begun:
            made[begun.pop(pid)] += line.partition(" resumed>")[2]
            continue
        if line.endswith(UNFINISHED):
            begun[pid] = len(made)
        made.append(line.removesuffix(UNFINISHED))
    return made


@pytest.fixture(scope="module")
def traced(engine: sampan.Engine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The system calls of one `sampan run --rm`, of all its processes, when everything is warm."""
    words = command(engine, "run", "--rm", "--network", "none", "base", "true")
    # A short log, so that no commit of the run happens to be the one that folds it into the file.
    engine.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    for _ in range(2):
        subprocess.run(words, check=True, timeout=60)
    return strace(tmp_path_factory.mktemp("costs") / "trace", ["-f"], words)


def calls(lines: list[str], *names: str) -> list[str]:
    """Return the lines that begin one of these calls."""
    return [line for line in lines if line.split(maxsplit=1)[1].startswith(tuple(f"{name}(" for name in names))]


def ours(lines: list[str]) -> list[str]:
    """Leave out the start of the interpreter, which differs from build to build."""
    return lines[next(index for index, line in enumerate(lines) if ".bundle" in line) :]


def test_the_command_waits_for_no_disk(traced: list[str]) -> None:
    assert calls(traced, "execve")  # the trace is one
    assert calls(traced, *SYNCS) == []


def test_the_command_is_three_processes(traced: list[str]) -> None:
    """The interpreter, the helper and the container's first process, which becomes the program."""
    assert len({line.split()[0] for line in traced}) == 3


def test_no_process_is_moved_between_cgroups(traced: list[str]) -> None:
    """Moving one costs milliseconds: the child is born in its group, or moves itself (helper/ns.c)."""
    assert not [line for line in calls(traced, "openat") if "cgroup.procs" in line and "O_RDONLY" not in line]


def test_modules_come_from_one_file(traced: list[str]) -> None:
    if not os.access(ROOT / "sampan" / "__pycache__", os.W_OK):
        pytest.skip("this user may not write the package's __pycache__")
    opened = [line for line in calls(traced, "openat") if f"{ROOT}/sampan/" in line and "ENOENT" not in line]
    assert any(".bundle" in line for line in opened)
    assert len([line for line in opened if ".py" in line]) <= 3, opened  # sampan, sampan.bundle, and one to spare


def test_there_are_not_many_system_calls(traced: list[str]) -> None:
    assert len(ours(traced)) <= 1200


def test_the_helper_works_while_the_command_thinks(traced: list[str]) -> None:
    """It is started before the container is thought out, makes the network meanwhile, and is told of the other
    namespaces before the plan is whole.
    """
    own = [line for line in traced if line.split()[0] == traced[0].split()[0]]
    started = next(index for index, line in enumerate(own) if "CLONE_VFORK" in line)
    home = next(index for index, line in enumerate(own) if "mkdir(" in line and "/containers/" in line)
    pieces = [index for index, line in enumerate(own) if "write(" in line and '"SMPN' in line]
    below = [index for index, line in enumerate(own) if "mkdir(" in line and line.rsplit(",", 1)[0].endswith('/upper"')]
    assert pieces[0] < started < home < pieces[1] < below[0] < pieces[2]
    helper = [line for line in traced if "unshare(CLONE_NEWNET" in line or "clone3(" in line and "CLONE_NEWPID" in line]
    assert "unshare(" in helper[0] and "CLONE_NEWNET" not in helper[1], helper


LIBRARY = """
import os, sys
sys.path.append(sys.argv[1])
import sampan
engine = sampan.Engine(sys.argv[2])
for turn in range(3):
    engine.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    os.access(f"/begin-{turn}", 0)
    assert engine.run("base", ["true"], network="none").exit_code == 0
    os.access(f"/end-{turn}", 0)
"""


@pytest.fixture(scope="module")
def library(engine: sampan.Engine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The system calls of one `Engine.run`, of all its processes, in a program that has made two before."""
    words = [sys.executable, "-c", LIBRARY, str(ROOT), engine.store.paths.root]
    lines = strace(tmp_path_factory.mktemp("costs") / "library", ["-f"], words)
    began = next(index for index, line in enumerate(lines) if "/begin-2" in line)
    return lines[began : next(index for index, line in enumerate(lines) if "/end-2" in line)]


def test_a_run_from_python_makes_few_calls(library: list[str]) -> None:
    """Of 672; the program's own are among them, which depend on the host's libraries."""
    assert len(library) <= 720
    assert len([line for line in library if line.split()[0] == library[0].split()[0]]) <= 200  # the caller's own


def test_python_erases_the_record_while_the_helper_removes_groups_and_directories(library: list[str]) -> None:
    own = library[0].split()[0]
    removals = [line for line in calls(library, "rmdir", "unlink") if '"/dev/' not in line]  # a file of its set-up
    assert len(removals) >= 8 and not [line for line in removals if line.split()[0] == own]
    told = next(
        i for i, line in enumerate(library) if line.split()[0] != own and "writev(4" in line and r'"\3\0' in line
    )
    assert all(told < library.index(line) for line in removals)


def test_each_step_of_a_life_is_made_durable_by_one_sync(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    engine.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.run("base", ["true"])
    for step in (["run", "-d", "--name", "costs", "base", "sleep", "100"], ["stop"], ["start"], ["stop"], ["rm"]):
        words = step if step[0] == "run" else [*step, "costs"]
        lines = strace(tmp_path / "trace", ["-y", "-e", f"trace={','.join(SYNCS)}"], command(engine, *words))
        assert len([line for line in lines if "-wal>" in line]) == 1, (words, lines)
