"""The bundle of code: it is used, never stale, and whatever is wrong with it costs time and nothing else."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
START = "import sys; sys.path.append(sys.argv[1]); del sys.argv[1]; from sampan import bundle; bundle.install(); "
ENTRY = START + "from sampan.cli.main import entry; entry()"
WHERE = START + "from sampan.cli import main, version; print(main.__cached__, version.MARK)"


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the package, with a mark to change, and without what was compiled."""
    shutil.copytree(ROOT / "sampan", tmp_path / "sampan", ignore=shutil.ignore_patterns("__pycache__", "_helper"))
    with open(tmp_path / "sampan" / "cli" / "version.py", "a", encoding="utf-8") as file:
        file.write("\nMARK = 'old'\n")
    return tmp_path


def python(copy: pathlib.Path, code: str, *words: str) -> str:
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, str(copy), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def bundled(copy: pathlib.Path) -> pathlib.Path:
    python(copy, ENTRY, "version", "--short")
    return copy / "sampan" / "__pycache__" / f"sampan.{sys.implementation.cache_tag}.bundle"


def test_the_second_command_imports_from_the_bundle_of_the_first(copy: pathlib.Path) -> None:
    assert not python(copy, WHERE).split()[0].endswith(".bundle")
    made = bundled(copy)
    assert python(copy, WHERE).split() == [str(made), "old"]


def test_a_bundle_is_written_once_and_grows_with_what_is_used(copy: pathlib.Path) -> None:
    made = bundled(copy)
    before = made.stat()
    assert (bundled(copy).stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    python(copy, ENTRY, "help", "run")
    assert made.stat().st_size > before.st_size
    assert python(copy, WHERE).split()[0] == str(made)


@pytest.mark.parametrize("text", ["new", "newer"])
def test_a_changed_source_counts_at_once(copy: pathlib.Path, text: str) -> None:
    """Of the same size and a nanosecond later, or of the same time and another size."""
    bundled(copy)
    source = copy / "sampan" / "cli" / "version.py"
    state = source.stat()
    source.write_text(source.read_text().replace("'old'", f"'{text}'"))
    shutil.rmtree(copy / "sampan" / "cli" / "__pycache__")  # .pyc files have whole seconds only
    later = 1 if len(text) == 3 else 0
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns + later))
    assert python(copy, WHERE).split()[1] == text
    made = bundled(copy)
    assert python(copy, WHERE).split() == [str(made), text]


def test_a_module_that_is_gone_is_gone(copy: pathlib.Path) -> None:
    bundled(copy)
    (copy / "sampan" / "cli" / "version.py").unlink()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        python(copy, WHERE)
    assert "cannot import name 'version'" in failed.value.stderr


def damage(made: pathlib.Path, how: str) -> None:
    data = made.read_bytes()
    if how == "empty":
        made.write_bytes(b"")
    elif how == "of another interpreter":
        made.write_bytes(data[:8] + bytes([data[8] ^ 1]) + data[9:])
    elif how == "index cut short":
        made.write_bytes(data[:200])
    elif how == "no index":
        made.write_bytes(data[:24] + b"N" + data[25:])
    elif how == "code cut short":
        made.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("how", ["empty", "of another interpreter", "index cut short", "no index", "code cut short"])
def test_a_damaged_bundle_is_passed_over_and_replaced(copy: pathlib.Path, how: str) -> None:
    made = bundled(copy)
    whole = made.read_bytes()
    damage(made, how)
    used = python(copy, WHERE).split()[0] == str(made)
    assert used == (how == "code cut short")
    assert python(copy, WHERE).split()[1] == "old"
    assert python(copy, ENTRY, "version", "--short").startswith("sampan ")
    assert len(made.read_bytes()) == len(whole)


def test_where_nothing_may_be_written_all_works_without(copy: pathlib.Path) -> None:
    made = copy / "sampan" / "__pycache__"
    shutil.rmtree(made, ignore_errors=True)
    made.write_text("not a directory")
    assert python(copy, ENTRY, "version", "--short").startswith("sampan ")
    assert made.read_text() == "not a directory"


def test_errors_still_show_their_source(copy: pathlib.Path) -> None:
    with open(copy / "sampan" / "cli" / "version.py", "a", encoding="utf-8") as file:
        file.write("\n\ndef fail() -> None:\n    raise RuntimeError('here')\n")
    made = bundled(copy)
    code = START + "from sampan.cli import version; version.fail()"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        python(copy, code)
    assert "raise RuntimeError('here')" in failed.value.stderr and made.exists()
