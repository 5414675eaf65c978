"""Programs that are more than one file: Python and Perl with the libraries that they were installed with.

A `python3` on PATH may be a launcher (pyenv) or belong to a virtual environment: the interpreter itself is asked
where it and its standard library really lie, and both are packed at the same path.
"""

from __future__ import annotations

import os
import sys

from sampan.bootstrap.closure import Libraries
from sampan.bootstrap.tree import Tree
from sampan.errors import NotFound, NotSupported

SKIPPED = (
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
)
PYTHON_ASK = (
    "import sys, os, sysconfig\n"
    "p = sysconfig.get_paths()\n"
    "print(os.path.realpath(getattr(sys, '_base_executable', '') or sys.executable))\n"
    "print(p['stdlib'])\nprint(p['platstdlib'])\n"
)
PERL_ASK = (
    'use Config; print join("\\n", $^X, grep { -d } @Config{qw(privlibexp archlibexp)}, grep { m{/perl-base$} } @INC)'
)
ASK_SECONDS = 30


def is_python(program: str) -> bool:
    """Tell whether a program's name is that of a Python interpreter: python, python3, python3.12."""
    name = os.path.basename(program)
    return name.startswith("python") and not name[6:].strip("0123456789.")


def is_perl(program: str) -> bool:
    """Tell whether a program's name is perl's."""
    return os.path.basename(program) == "perl"


def add_python(tree: Tree, libraries: Libraries, program: str, path: str) -> str:
    """Pack a Python interpreter and its standard library; return where the interpreter lies."""
    executable, *standard = ask(python_on(libraries, program, path), ["-I", "-S", "-c", PYTHON_ASK])
    add_closure(tree, libraries, executable)
    for directory in dict.fromkeys(standard):
        for file in add_library(tree, directory):
            if file.endswith(".so"):
                add_extension(tree, libraries, file)
    return executable


def add_library(tree: Tree, directory: str) -> list[str]:
    """Pack a standard library without its tests and what only builds or shows windows; return its files."""
    names = os.listdir(tree.root + directory)
    build = [name for name in names if name.startswith("config-")]
    windows = [f"{directory}/lib-dynload/{name}" for name in _names(tree.root + directory + "/lib-dynload")]
    graphical = [os.path.basename(name) for name in windows if os.path.basename(name).startswith("_tkinter.")]
    return tree.add_tree(directory, (*SKIPPED, *build, *graphical))


def add_extension(tree: Tree, libraries: Libraries, file: str) -> None:
    """Pack what an extension module needs; a module whose libraries this host lacks cannot be imported here either."""
    for needed in libraries.closure(file, lenient=True):
        tree.add(needed)


def add_perl(tree: Tree, libraries: Libraries, path: str) -> str:
    """Pack perl with the modules of its own distribution; return where it lies."""
    program = libraries.which("perl", path)
    executable, *standard = ask(program, ["-e", PERL_ASK])
    executable = executable if executable.startswith("/") else program
    add_closure(tree, libraries, executable)
    for directory in dict.fromkeys(standard):
        for file in tree.add_tree(directory, ("pod",)):
            if file.endswith(".so"):
                add_extension(tree, libraries, file)
    return executable


def add_closure(tree: Tree, libraries: Libraries, program: str) -> str:
    """Pack a program with all that it needs; return its real path."""
    real = tree.add(program)
    # ld.so takes $ORIGIN of a program from /proc/self/exe: its real path.
    for needed in libraries.closure(real):
        tree.add(needed)
    return real


def python_on(libraries: Libraries, program: str, path: str) -> str:
    """Return an interpreter to ask: the system's own, else the one that runs us, else any on PATH."""
    if program not in ("python", "python3"):
        return libraries.which(program, path)
    for candidate in ("/usr/bin/python3", f"{sys.base_prefix}/bin/python3"):
        if os.access(libraries.root + candidate, os.X_OK):
            return candidate
    return libraries.which("python3", path)


def ask(program: str, arguments: list[str]) -> list[str]:
    """Run an interpreter of this host and return the lines that it prints."""
    import subprocess

    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotSupported(f"cannot ask {program} for its standard library: {exc}") from exc
    if done.returncode:
        words = os.fsdecode(done.stderr).strip().splitlines()
        why = words[0] if words else f"exit code {done.returncode}"
        raise NotSupported(f"cannot ask {program} for its standard library: {why}")
    lines = [line for line in os.fsdecode(done.stdout).splitlines() if line]
    if not lines:
        raise NotFound(f"cannot ask {program} for its standard library: no answer")
    return lines


def _names(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []
