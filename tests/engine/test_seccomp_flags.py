"""A user's system call filter, loaded with the flags that its profile asks for."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from test_costs import command, strace

import sampan
from sampan.errors import InvalidArgument

LOG, SPEC = "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"


def profile(path: pathlib.Path, **members: Any) -> str:
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", **members}))
    return f"seccomp={path}"


@pytest.mark.parametrize(
    ("asked", "loaded"),
    [(None, SPEC), ([], "0"), ([LOG], LOG), ([SPEC, LOG], f"{LOG}|{SPEC}"), (["SECCOMP_FILTER_FLAG_TSYNC"], "0")],
)
def test_the_filter_is_loaded_with_the_flags_of_its_profile(
    engine: sampan.Engine, tmp_path: pathlib.Path, asked: list[str] | None, loaded: str
) -> None:
    option = profile(tmp_path / "profile.json", **({} if asked is None else {"flags": asked}))
    words = command(engine, "run", "--rm", "--network", "none", "--security-opt", option, "base", "true")
    lines = strace(tmp_path / "trace", ["-f", "-e", "trace=seccomp"], words)
    (call,) = [line for line in lines if "SECCOMP_SET_MODE_FILTER" in line]
    assert f"SECCOMP_SET_MODE_FILTER, {loaded}, " in call and call.endswith("= 0")


def test_the_default_filter_is_loaded_with_the_flag_that_runc_gives_it(
    engine: sampan.Engine, tmp_path: pathlib.Path
) -> None:
    words = command(engine, "run", "--rm", "--network", "none", "base", "true")
    lines = strace(tmp_path / "trace", ["-f", "-e", "trace=seccomp"], words)
    assert [line for line in lines if f"SECCOMP_SET_MODE_FILTER, {SPEC}, " in line]


def test_a_filter_with_flags_holds(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    option = profile(tmp_path / "profile.json", flags=[LOG, SPEC], syscalls=[rule])
    found = engine.run("base", ["sh", "-c", "mkdir /x && echo made"], security_opt=[option])
    assert found.stdout == b"" and b"not permitted" in found.stderr


@pytest.mark.parametrize(("text", "why"), [("[]", "is not a JSON object"), ("{", "Expecting property name")])
def test_what_is_no_profile_is_refused_with_its_name(
    engine: sampan.Engine, tmp_path: pathlib.Path, text: str, why: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=f"seccomp profile {path}.*{why}"):
        engine.run("base", ["true"], security_opt=[f"seccomp={path}"])


def test_a_flag_that_is_not_known_is_refused_by_name(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    option = profile(tmp_path / "profile.json", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    with pytest.raises(InvalidArgument, match="unknown flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"):
        engine.run("base", ["true"], security_opt=[option])
