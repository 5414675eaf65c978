"""Ids of an ordinary user's containers come from its own ranges, and never from anyone else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.runtime import idmap

ROOT = str(Path(idmap.__file__).parents[2])


def test_ranges_are_found_by_name_and_by_number() -> None:
    text = "root:1:9\nann:100000:65536\n# ann:5:5\n1000:200000:1000\nannie:7:7\n"
    text += "ann:x:1\nann:0:10\nann:9:0\nann:4294967290:9\n"  # not numbers, root, empty, above the last id
    assert idmap.parse_ranges(text, "ann", 1000) == [(100000, 65536), (200000, 1000)]
    assert idmap.parse_ranges(text, "bob", 1001) == []


def test_lines_leave_no_gaps() -> None:
    assert idmap.lines(1000, [(100000, 65536), (300000, 10)]) == ["0 1000 1", "1 100000 65536", "65537 300000 10"]


def test_a_tool_without_privilege_is_of_no_use(tmp_path: Path) -> None:
    tool = tmp_path / "newuidmap"
    assert idmap.find_tool("newuidmap", (str(tmp_path),))[1] == "newuidmap is not installed"
    tool.write_text("")
    tool.chmod(0o755)
    assert "neither setuid" in idmap.find_tool("newuidmap", (str(tmp_path),))[1]
    if os.geteuid() == 0:
        tool.chmod(0o4755)
        assert idmap.find_tool("newuidmap", (str(tmp_path),)) == (str(tool), "")


def as_user(code: str) -> str:
    """Run code as an ordinary user and return what it prints."""
    if os.geteuid():
        pytest.skip("needs root, to become an ordinary user")
    # Everything is imported before: the interpreter's own files may be root's alone.
    head = f"import os, pwd, sys; sys.path.insert(0, {ROOT!r}); from sampan.runtime import idmap\n"
    head += "os.setgid(54321); os.setuid(54321)\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True).stdout


def test_full_map_with_range_and_tools(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/tmp") and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("54321:600000:65536\n")
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o4755)
    code = f"m = idmap.detect({str(tmp_path)!r}, ({str(tmp_path)!r},)); "
    code += "print(m.uid_lines, m.gid_lines, m.single, m.notes, m.newuidmap)"
    nameless = as_user(code)  # newuidmap: Cannot determine your user name
    assert nameless.startswith("['0 54321 1'] ['0 54321 1'] True") and "has no entry in" in nameless
    code = "idmap.user_name = lambda uid: 'somebody'; " + code
    want = f"['0 54321 1', '1 600000 65536'] ['0 54321 1', '1 600000 65536'] False [] {tmp_path}/newuidmap\n"
    assert as_user(code) == want


def test_single_id_where_something_is_missing(tmp_path: Path) -> None:
    out = as_user(
        f"m = idmap.detect({str(tmp_path)!r}, ())\n"
        "print(m.uid_lines, m.gid_lines, m.single, m.newuidmap == '', *m.notes)"
    )
    assert out.startswith("['0 54321 1'] ['0 54321 1'] True True only your own id is mapped")
    assert "newuidmap is not installed" in out


def test_root_needs_no_map() -> None:
    if os.geteuid():
        pytest.skip("needs root")
    found = idmap.detect()
    assert found.uid_lines == [] and not found.single and found.notes == []


def test_a_new_range_begins_above_those_given_away() -> None:
    assert idmap.free_range("") == 100000
    assert idmap.free_range("a:100000:65536\n# b:1:2\nb:165536:10\nodd:x:5\n") == 165546
