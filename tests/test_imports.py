"""Interpreter start is the largest cost of a command: what the hot paths import is an allow-list."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from waiting import until

import sampan

ROOT = pathlib.Path(__file__).parent.parent

# What the interpreter itself loads before the first line of ours, with -I -S, in any of the versions supported.
START = {
    "__future__",
    "__main__",
    "_abc",
    "_ast",
    "_codecs",
    "_frozen_importlib",
    "_frozen_importlib_external",
    "_imp",
    "_io",
    "_signal",
    "_stat",
    "_thread",
    "_warnings",
    "_weakref",
    "abc",
    "builtins",
    "codecs",
    "encodings",
    "encodings.aliases",
    "encodings.utf_8",
    "genericpath",
    "io",
    "marshal",
    "os",
    "os.path",
    "posix",
    "posixpath",
    "stat",
    "sys",
    "time",
    "winreg",
    "zipimport",
    "_collections_abc",
    "gc",
    "_opcode",
}

# What the run path and the cached-build path may load besides (docs/internals/architecture.md).
ALLOWED = START | {
    "_hashlib",
    "_json",
    "_sha2",
    "_sha256",
    "_socket",
    "_sqlite3",
    "_struct",
    "_functools",
    "array",
    "binascii",
    "errno",
    "fcntl",
    "math",
    "resource",
    "select",
    "termios",
    "zlib",
    *(["pwd"] if os.geteuid() else []),  # whose ranges of ids these are (runtime/idmap.py)
}

FORBIDDEN = {
    *("re", "json", "typing", "dataclasses", "enum", "pathlib", "subprocess", "contextlib", "functools", "collections"),
    *("argparse", "datetime", "logging", "shutil", "tempfile", "threading", "ctypes", "hashlib", "sqlite3", "tarfile"),
    *("warnings", "traceback", "linecache", "difflib", "random", "socket", "signal", "inspect", "importlib"),
}


def loaded_by(code: str, *args: str) -> set[str]:
    """Run code as bin/sampan does, isolated and without site; return the modules that it loaded."""
    script = f"import sys\nsys.path.append({str(ROOT)!r})\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:  # with -c Python 3.13 loads more
        file.write(script)
        file.flush()
        words = [sys.executable, "-I", "-S", "-X", "utf8", file.name, *args]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def others(names: set[str]) -> set[str]:
    return {name for name in names if name != "sampan" and not name.startswith("sampan.")}


def ours(names: set[str]) -> set[str]:
    return names - others(names)


def test_version_loads_only_what_it_needs() -> None:
    found = loaded_by("from sampan.cli.main import main\nassert main(['version']) == 0")
    assert others(found) <= START
    assert ours(found) <= {
        "sampan",
        "sampan.bundle",
        "sampan.cli",
        "sampan.cli.lines",
        "sampan.cli.main",
        "sampan.cli.options",
        "sampan.cli.output",
        "sampan.cli.version",
        "sampan.engine",
        "sampan.engine.engine",
        "sampan.engine.system",
        "sampan.errors",
    }


@pytest.mark.parametrize("command", ["run", "exec", "build", "stop", "rm", "ps", "create", "start", "kill", "logs"])
def test_a_hot_command_imports_nothing_heavy(command: str) -> None:
    found = loaded_by(f"from sampan.cli.main import load_command\nload_command({command!r})\nimport sampan.cli.main")
    assert others(found) <= ALLOWED


@pytest.mark.parametrize(
    "module", ["sampan.engine.engine", "sampan.engine.containers", "sampan.oci.spec", "sampan.runtime.compile"]
)
def test_the_run_path_imports_nothing_heavy(module: str) -> None:
    found = loaded_by(f"import {module}")
    assert others(found) <= ALLOWED
    assert not others(found) & FORBIDDEN


def test_a_run_loads_nothing_heavy(tmp_path: pathlib.Path) -> None:
    """The whole path, from the words to the exit code; the first run fills the caches, the second is the hot one."""
    tmp_path.chmod(0o711)
    root = ["--root", str(tmp_path / "store")]
    subprocess.run(
        [sys.executable, "-m", "sampan", *root, "bootstrap", "-t", "b", "host", "true"], cwd=ROOT, check=True
    )
    code = f"from sampan.cli.main import main\nassert main([*{root!r}, 'run', '--rm', 'b', 'true']) == 0"
    loaded_by(code)
    loaded = loaded_by(code)
    found = others(loaded)
    assert found <= ALLOWED
    assert not found & FORBIDDEN
    assert len(ours(loaded)) <= 56


def test_a_removal_loads_little(tmp_path: pathlib.Path) -> None:
    """Of what has ended: neither what starts, stops or lists containers nor what makes the store is loaded for it."""
    tmp_path.chmod(0o711)
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.bootstrap("host", "b", ["true"])
    words = engine.command(["run", "-d", "--name", "x", "b", "true"])
    name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    end = pathlib.Path(engine.store.paths.container(name), "exit")
    until(end.exists)
    loaded = loaded_by(f"from sampan.cli.main import main\nassert main({engine.command(['rm', 'x'])[-4:]!r}) == 0")
    found = others(loaded)
    assert found <= ALLOWED - {"_struct", "_socket", "select", "termios", "zlib", "array", "math", "resource"}
    assert len(ours(loaded)) <= 31
    parts = {name.rpartition(".")[2] for name in ours(loaded)}
    assert not parts & {"launching", "starter", "ending", "supervisors", "listing", "output", "dbmaking", "schema"}


def test_the_control_notices_a_heavy_import() -> None:
    assert "re" in loaded_by("import re")
