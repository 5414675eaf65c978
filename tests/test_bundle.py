"""The bundle of code: it is used, never stale, and whatever is wrong with it costs time and nothing else."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_bundle_never_takes_the_place_of_a_closed_stream(copy: pathlib.Path, fd: int) -> None:
    """A container would be given it, and the command's own words would be written into it."""
    made = bundled(copy)
    code = START + "import os; where = os.readlink('/proc/self/fd/{fd}'); os.write({out}, where.encode())"
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", code.format(fd=fd, out=2 if fd == 1 else 1), str(copy)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {fd}>&-', "sh", *command], check=True, capture_output=True, text=True, timeout=60
    )
    assert made.exists()
    assert done.stdout + done.stderr == "/dev/null"


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


LEAN = """
def documented(a: "nothing", b: "nothing" = 1) -> "nothing":
    \'\'\'Read by people.\'\'\'


class Documented:
    \'\'\'Read by people.\'\'\'
    bare: "nothing"
    number: "nothing" = 7
"""


def test_the_bundle_has_no_documentation_and_no_annotations(copy: pathlib.Path) -> None:
    with open(copy / "sampan" / "cli" / "version.py", "a", encoding="utf-8") as file:
        file.write(LEAN)
    made = bundled(copy)
    show = "; f, c = v.documented, v.Documented; print((v.__doc__, f.__doc__, c.__doc__, f.__annotations__, c.number))"
    code = "import sys; sys.path.append(sys.argv[1]); from sampan.cli import version as v" + show
    assert "'Read by people.', {'a'" in python(copy, code)
    assert python(copy, START + "from sampan.cli import version as v" + show) == "(None, None, None, {}, 7)"
    assert b"Read by people" not in made.read_bytes()


def test_no_module_reads_its_own_documentation() -> None:
    """Nor annotations: the bundle has none (sampan/lean.py)."""
    for path in (ROOT / "sampan").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        assert not names & {"__doc__", "__annotations__", "get_type_hints", "dataclass", "getdoc"}, path
        if text and path.name not in ("bundle.py", "__init__.py", "__main__.py"):
            assert "\nfrom __future__ import annotations\n" in text, path


ENVIRONMENT = """
import os, sys
seen = [os.environ.get("A"), os.environ.get("Z", "none"), "A" in os.environ, "Z" in os.environ, len(os.environ)]
seen += [sorted(os.environ), sorted(os.environ.keys()), sorted(os.environ.items()), sorted(os.environ.values())]
seen += [dict(os.environ) == os.environ.copy(), os.environ == dict(os.environ)]
seen += [os.environ | {"C": "3"}, {"C": "3"} | os.environ]
os.environ.update({"D": "4"}, E="5")
os.environ |= {"F": "6"}
seen += [os.environ.pop("D"), os.environ.pop("D", None), os.environ.setdefault("G", "7"), os.getenv("E")]
seen += [{**os.environ}]
try:
    os.environ.pop("D")
except KeyError as error:
    seen.append(error.args)
class Path:
    def __fspath__(self): return "p"
seen += [isinstance(Path(), os.PathLike), isinstance(1, os.PathLike), os.fspath(Path()), repr(os.environ)]
os.environ.popitem(), os.environ.clear()
import collections.abc, typing, subprocess
seen += [len(os.environ), isinstance({}, collections.abc.Mapping), subprocess.run(["/bin/true"]).returncode]
print(seen)
"""


def test_the_environment_of_a_command_is_as_ever(tmp_path: pathlib.Path) -> None:
    """`os` is given a stand-in for the class that its environment is made of (sampan/bundle.py)."""
    told = []
    for begin in (START, "import sys; del sys.argv[1]; ", START + "assert '_collections_abc' not in sys.modules; "):
        command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", begin + f"exec({ENVIRONMENT!r})", str(ROOT)]
        done = subprocess.run(command, env={"A": "1", "B": "2"}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_command_goes_on_with_the_code_that_it_began_with(copy: pathlib.Path, how: str) -> None:
    """An upgrade while it runs: what it imports later is of the same version, and its exit code is its own."""
    bundled(copy)
    source = copy / "sampan" / "cli" / "version.py"
    text = source.read_text()
    change = f"import shutil; shutil.rmtree({str(copy / 'sampan')!r}); "
    if how == "replaced":
        change += f"shutil.copytree({str(ROOT / 'sampan')!r}, {str(copy / 'sampan')!r}); "
        change += f"open({str(source)!r}, 'w').write({text.replace('old', 'younger')!r}); "
    end = "from sampan.cli import version; print(version.MARK, flush=True); "
    end += "import sampan.errors, sampan.cli.main; sampan.cli.main.entry()"
    assert python(copy, START + change + end, "version", "--short").split()[0] == "old"


def test_a_bundle_that_is_older_than_the_command_does_not_count_after_an_upgrade_either(copy: pathlib.Path) -> None:
    bundled(copy)
    source = copy / "sampan" / "cli" / "version.py"
    source.write_text(source.read_text().replace("'old'", "'younger'"))
    replace = f"import os; os.utime({str(copy / 'sampan' / '__init__.py')!r}); "
    again = "del sys.modules['sampan.cli.version']; " + replace
    code = START + f"from sampan.cli import version; {again}from sampan.cli import version as v; print(v.MARK)"
    assert python(copy, code) == "younger"


def test_what_the_removed_package_had_no_code_for_is_told(copy: pathlib.Path) -> None:
    bundled(copy)
    code = START + "import sampan.cli.main as m, sampan.cli.failure as f, shutil; "
    code += f"shutil.rmtree({str(copy / 'sampan')!r}); "
    code += "sys.stderr = sys.stdout; code = m.main(['volume', 'ls']); sys.exit(0 if code == 125 else 1)"
    assert python(copy, code).startswith("sampan: sampan was replaced or removed while this command ran: ")
    code = START + f"import sampan.cli.main as m, shutil; shutil.rmtree({str(copy / 'sampan')!r}); "
    shutil.copytree(ROOT / "sampan", copy / "sampan", ignore=shutil.ignore_patterns("__pycache__", "_helper"))
    code += "sys.stderr = sys.stdout; code = m.main(['volume', 'ls']); sys.exit(0 if code == 125 else 1)"
    assert python(copy, code) == "sampan: sampan was removed while this command ran"
