"""What docs/library.md shows is run as it stands there; and what callers get wrong is told before anything starts."""

from __future__ import annotations

import ast
import importlib
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import sampan
from sampan.engine import containers, elsewhere
from sampan.errors import InvalidArgument

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "library.md"


def examples() -> list[str]:
    """Give the page's examples, each on the line that it has there, so that a failure shows the page's line."""
    text, found = PAGE.read_text(), []
    for number, part in enumerate(text.split("```")):
        if number % 2:
            before = text[: text.index(part)].count("\n")
            found.append("\n" * before + part.removeprefix("python"))
    return found


def test_the_page(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_ROOT", f"{tmp_path}/store")
    monkeypatch.setenv("SAMPAN_RUN", f"{tmp_path}/run")
    with sampan.Engine() as engine:
        engine.bootstrap("host", "base", ["sh", "echo", "cat", "sleep"])
    *programs, last = examples()
    assert len(programs) >= 5 and "fixture" in last
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for program in programs:
            exec(compile(program, PAGE, "exec"), names)  # noqa: S102
    finally:
        names["engine"].close()


def test_the_page_s_fixture(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_page.py").write_text("import sampan\n" + examples()[-1])
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t", "test_page.py"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("SAMPAN_")}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_text_is_no_command_and_no_input(engine: sampan.Engine) -> None:
    with pytest.raises(InvalidArgument, match="one text") as caught:
        engine.run("base", "echo hello")  # type: ignore[arg-type]
    assert "list" in caught.value.hint
    with pytest.raises(InvalidArgument, match="no setting 'tag'") as caught:
        engine.build(".", tag="x")
    assert "tags" in caught.value.hint
    with pytest.raises(InvalidArgument, match="text as input"):
        engine.run("base", ["cat"], input="text")  # type: ignore[arg-type]


def test_what_is_elsewhere_is_there_and_typed() -> None:
    """For type checkers the operations stand a second time: both lists are the same, and each is a function."""
    tree = ast.parse(pathlib.Path(elsewhere.__file__).read_text())
    (typed,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Elsewhere")
    said = {ast.unparse(one.targets[0]): ast.unparse(one.value) for one in typed.body if isinstance(one, ast.Assign)}
    assert said == {name: f"_Of({module.rpartition('.')[2]}.{name})" for name, module in containers.MODULES.items()}
    assert all(callable(getattr(importlib.import_module(m), name)) for name, m in containers.MODULES.items())


def test_a_path_object_is_a_context_and_one_text_is_one_tag(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nENV A=1\n")
    image = engine.build(tmp_path, tags="pathlike:1")
    try:
        assert engine.images.inspect("pathlike:1")["Id"] == image
    finally:
        engine.images.remove("pathlike:1", force=True)
