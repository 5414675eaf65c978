"""The architecture (docs/internals/architecture.md), executable: floors, cycles, names, sizes, forbidden calls."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "sampan"

# A module may import its own package, and packages of a smaller number. Equal numbers never meet.
FLOORS = {
    "lean": -1,
    "errors": 0,
    "rights": 0,
    "bundle": 0,
    "nearest": 0,
    "oci": 1,
    "dockerfile": 1,
    "store": 2,
    "runtime": 2,
    "registry": 2,
    "transfer": 30,
    "build": 31,
    "bootstrap": 32,
    "engine": 33,
    "cli": 40,
    "__main__": 50,
    "__init__": 50,
}
PURE = ("oci", "dockerfile")
IMPURE = {
    "socket",
    "_socket",
    "subprocess",
    "select",
    "shutil",
    "tempfile",
    "sqlite3",
    "_sqlite3",
    "threading",
    "fcntl",
}
FORBIDDEN_NAMES = {"utils", "common", "base", "manager", "core", "helpers", "misc"}
LONGEST_FILE, LONGEST_FUNCTION = 450, 60


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        words = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(words[:-1] if words[-1] == "__init__" and len(words) > 2 else words)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in MODULES.items()}


def floor(module: str) -> int:
    return FLOORS[module.split(".")[1]]


def test_every_part_has_a_floor() -> None:
    assert {module.split(".")[1] for module in MODULES} == set(FLOORS)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, *, lazy: bool) -> set[str]:
    """Names that are imported at module level, or with `lazy` anywhere; never those for type checkers only."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if is_type_checking(node) or (not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)
    return found


def own(names: set[str]) -> set[str]:
    return {name for name in names if name in MODULES and name != "sampan"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    package = module.split(".")[1]
    wrong = [
        name
        for name in own(imports(TREES[module], lazy=True))
        if name.split(".")[1] != package and floor(name) >= floor(module)
    ]
    assert not wrong, f"{module} imports {wrong}"


def test_no_relative_imports() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not wrong


def test_no_module_cycle() -> None:
    graph = {module: own(imports(tree, lazy=False)) - {module} for module, tree in TREES.items()}
    while True:
        leaves = [module for module, needs in graph.items() if not needs & graph.keys()]
        if not leaves:
            break
        for module in leaves:
            del graph[module]
    assert not graph, f"these modules import each other: {sorted(graph)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[1] in PURE])
def test_formats_are_pure(module: str) -> None:
    assert not imports(TREES[module], lazy=True) & IMPURE
    calls = {n.func.id for n in ast.walk(TREES[module]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert "open" not in calls


def test_no_vague_names() -> None:
    wrong = [
        str(path) for path in MODULES.values() if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES
    ]
    assert not wrong


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_owns(module: str) -> None:
    if MODULES[module].read_bytes().strip():
        assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("path", [*MODULES.values(), *sorted((ROOT / "helper").glob("*.[ch]"))], ids=lambda p: p.name)
def test_files_are_short(path: pathlib.Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.stem not in ("seccomp_profile", "seccomp_ready", "syscalls", "names"):  # tables of numbers
        assert len(lines) <= LONGEST_FILE


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(TREES[module])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize("module", MODULES)
def test_no_dangerous_calls(module: str) -> None:
    """No fork with threads alive, no shell, no unpickling, no evaluated text, no extraction by a library."""
    source = {"fork", "forkpty", "system", "popen", "chroot", "setns", "extractall", "_extract_member"}
    wrong = []
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and node.attr in source and isinstance(node.value, ast.Name):
            wrong.append(f"{node.value.id}.{node.attr}:{node.lineno}")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("eval", "exec", "compile")
            and not (module == "sampan.lean" and node.func.id == "compile")  # of this package's own sources
        ):
            wrong.append(f"{node.func.id}:{node.lineno}")
        if isinstance(node, ast.keyword) and node.arg == "shell":
            wrong.append(f"shell=:{node.value.lineno}")
    assert not wrong
    allowed = {"marshal"} if module in ("sampan.bundle", "sampan.lean") else set()  # docs/decisions/0007
    assert not imports(TREES[module], lazy=True) & {"pickle", "marshal", "shelve"} - allowed


def test_public_names_are_these() -> None:
    import sampan

    assert sorted(sampan.__all__) == ["Engine", "Result", "SampanError", "__version__"]
