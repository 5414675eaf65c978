"""Golden cases: every cases/*.dockerfile is read into the text of the .golden file next to it.

After a wanted change, write them anew with UPDATE_GOLDEN=1 and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.dockerfile.commands import Instruction, Run
from sampan.dockerfile.heredoc import Heredoc
from sampan.dockerfile.instructions import stages
from sampan.dockerfile.lexer import parse
from sampan.errors import BuildError

CASES = sorted((Path(__file__).parent / "cases").glob("*.dockerfile"))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Heredoc):
        return f"<<{value.name} expand={value.expand} text={value.text()!r}>>"
    return repr(value)


def _instruction(one: Instruction) -> list[str]:
    rows = [f"{one.line}-{one.end_line} {one.keyword} {one.text!r}"]
    names = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()) if name != "node"]
    for name in sorted(names):
        value = getattr(one, name)
        if value or isinstance(value, list):
            rows.append(f"    {name} = {_value(value)}")
    if isinstance(one, Run) and one.heredocs:
        rows.append(f"    command() = {one.command()!r}")
        rows.append(f"    script() = {_value(one.script())}")
    return rows


def dump(data: bytes) -> str:
    """Return what is read from a Dockerfile, or the error, as text."""
    try:
        file = parse(data)
        global_args, found = stages(file)
    except BuildError as error:
        place = f"{error.file}:{error.line}-{error.end_line}"
        return f"error at {place}\nerror: {error}\nhint: {error.hint}\n{error.excerpt}\n"
    rows = [f"directive {key} = {value!r}" for key, value in file.directives.items()]
    for arg in global_args:
        rows += _instruction(arg)
    for stage in found:
        rows += ["", f"stage {stage.index}", *_instruction(stage.from_)]
        for one in stage.instructions:
            rows += _instruction(one)
    return "\n".join(rows).strip() + "\n"


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path) -> None:
    golden = path.with_suffix(".golden")
    actual = dump(path.read_bytes())
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(actual, encoding="utf-8")
    assert actual == golden.read_text(encoding="utf-8")
    assert actual.startswith("error") is path.stem.startswith("error")


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 70
