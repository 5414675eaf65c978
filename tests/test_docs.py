"""What the pages name is there: files, functions, tests; and no module is left out of the map of them."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
SOURCES = [path for part in ("sampan", "helper", "tests", "bench", "examples") for path in (ROOT / part).rglob("*.*")]
SOURCES += [path for path in ROOT.iterdir() if path.is_file()]
PATHS = [path.relative_to(ROOT).as_posix() for path in (*SOURCES, *PAGES)]
TEXT = "\n".join(path.read_text() for path in SOURCES if path.suffix in (".py", ".c", ".h", ".sh"))
WORDS = frozenset(re.findall(r"\w+", TEXT)) | {pathlib.Path(path).stem for path in PATHS}
ARCHITECTURE = (ROOT / "docs/internals/architecture.md").read_text()
# Names that are not ours: of the kernel, of SQLite, of an example.
FOREIGN = {"fs/namespace.c", "app/app.py", "AF_VSOCK", "SYS_SOCKET", "RESOLVE_IN_ROOT", "locking_mode"}
FOREIGN |= {"frozen_modules", "raw_syscalls"}


def page(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_there(name: str) -> bool:
    """Whether a name is one of the sources, or (of a test, also cut short with …) stands in one."""
    bare = name.strip("…")
    return bare in WORDS or ("_" in name and any(bare in word for word in WORDS if word.startswith("test_")))


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_files_that_a_page_names_exist(path: pathlib.Path) -> None:
    text = path.read_text()
    named = {name.lstrip("./") for name in re.findall(r"(?<![\w*<>-])[\w./-]*\w+\.(?:py|c|h|md|sh)\b", text)}
    assert not [name for name in named - FOREIGN if not any(f"/{known}".endswith(f"/{name}") for known in PATHS)]
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_names_in_code_marks_exist(path: pathlib.Path) -> None:
    marked = " ".join(re.findall(r"`([^`\n]+)`", path.read_text()))
    names = {name for name in re.findall(r"…?[A-Za-z_][A-Za-z0-9_]{3,}…?", marked) if "_" in name}
    assert not sorted(name for name in names - FOREIGN if not is_there(name))


def test_every_module_is_in_the_map() -> None:
    modules = [path for path in (ROOT / "sampan").rglob("*.py") if path.parent.name != "cli" and path.stem[0] != "_"]
    assert not sorted(page(path) for path in modules if not re.search(rf"\b{path.name}\b", ARCHITECTURE))


def test_what_is_nowhere_is_noticed() -> None:
    assert is_there("remove_tree") and is_there("names_in_code_marks…") and not is_there("no_such_" + "name_anywhere")
