"""Words that scripts give and take, where Docker's client 28 and daemon 20.10 say what comes of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lifesupport import Run

import sampan


def test_an_empty_filter_asks_for_nothing_and_spaces_around_a_value_do_not_count(
    started: Callable[..., str], sampan_run: Run
) -> None:
    name = started("sleep 60")
    assert sampan_run("ps", "-q", "--filter", "", "-f", f"id= {name} ").stdout == name[:12] + "\n"
    assert sampan_run("container", "prune", "-f", "--filter", "", "--filter", "until=9999h").returncode == 0


def test_quiet_wins_over_a_format_and_says_so(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    done = sampan_run("ps", "-q", "--format", "json", "-f", f"id={name}")
    assert done.stdout == name[:12] + "\n"
    assert "--format is not used" in done.stderr


def test_an_empty_signal_is_the_default_one(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    assert sampan_run("kill", "-s", "", name).returncode == 0
    assert sampan_run("wait", name).stdout == "137\n"


def test_exec_refuses_a_relative_directory(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    done = sampan_run("exec", "-w", "tmp", name, "pwd")
    assert (done.returncode, done.stdout) == (126, "")
    assert "invalid --workdir 'tmp'" in done.stderr


@pytest.mark.usefixtures("memory")
def test_a_limit_of_nothing_leaves_what_there_is(engine: sampan.Engine, sampan_run: Run) -> None:
    name = sampan_run("create", "-m", "64m", "--memory-swap", "96m", "base", "true").stdout.strip()
    try:
        assert sampan_run("update", "-m", "0", "--memory-swap", "0", "--cpuset-cpus", "", name).stdout == name + "\n"
        shown = engine.containers.inspect(name)["HostConfig"]
        assert (shown["Memory"], shown["MemorySwap"], shown["CpusetCpus"]) == (64 << 20, 96 << 20, "")
    finally:
        engine.containers.remove(name)


def test_wrong_detach_keys_are_told_without_a_terminal_too(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    for words in (("exec", "--detach-keys=no", name, "true"), ("run", "--rm", "--detach-keys=no", "base", "true")):
        done = sampan_run(*words)
        assert done.returncode
        assert "no is not a key" in done.stderr


@pytest.mark.parametrize(("program", "shown"), [("no such", "'no such'"), ("/no such/x", "'/no such/x'"), ("", "''")])
def test_a_program_with_spaces_is_named_whole(sampan_run: Run, program: str, shown: str) -> None:
    done = sampan_run("run", "--rm", "base", program, "arg")
    assert done.returncode == 127
    assert f"cannot execute {shown}: " in done.stderr


def test_a_size_below_nothing_is_refused(sampan_run: Run) -> None:
    done = sampan_run("run", "--rm", "--shm-size", "-1", "base", "true")
    assert (done.returncode, done.stderr) == (125, "sampan: invalid --shm-size -1: a size is 0 at least\n")


def test_inspect_of_an_image_has_the_fields_that_the_image_lacks(engine: sampan.Engine, sampan_run: Run) -> None:
    text = "{{.Config.Entrypoint}} {{json .Config.Labels}} {{.Config.User}}|{{range .Config.OnBuild}}x{{end}}"
    assert not {"Entrypoint", "Labels", "User"} & set(engine.images.resolve("base").config.get("config") or {})
    assert sampan_run("inspect", "--type", "image", "-f", text, "base").stdout == "[] null |\n"
    assert json.loads(sampan_run("image", "inspect", "base").stdout)[0]["Config"]["Volumes"] is None


@pytest.mark.parametrize("words", [("run", "--rm"), ("run", "--rm", "-t"), ("run", "--name", "full_disk"), ("exec",)])
def test_output_that_is_lost_is_no_success(
    started: Callable[..., str], sampan_run: Run, words: tuple[str, ...]
) -> None:
    box = started("sleep 60") if words == ("exec",) else "base"
    with open("/dev/full", "wb") as full:
        for code, shown in ((0, 1), (7, 7)):
            done = sampan_run(
                *words,
                box,
                "sh",
                "-c",
                f"echo out; exit {code}",
                capture_output=False,
                stdout=full,
                stderr=subprocess.PIPE,
            )
            sampan_run("rm", "-f", "full_disk")
            assert done.returncode == shown
            assert "cannot write all of the output: No space left on device" in done.stderr


def test_output_that_is_lost_is_told_by_attach_and_start_too(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("head -n 1; echo out", "-i")
    with open("/dev/full", "wb") as full:
        streams = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        done = sampan_run("attach", name, stdin=None, input="go\n", **streams)
        assert (done.returncode, "No space left on device" in done.stderr) == (1, True)
        done = sampan_run("start", "-a", name, **streams)
        assert (done.returncode, "No space left on device" in done.stderr) == (1, True)
    assert sampan_run("logs", name).stdout.count("out\n") == 2


def test_a_directory_that_is_gone_is_told_where_it_is_needed(
    engine: sampan.Engine, started: Callable[..., str], sampan_run: Run, tmp_path: Path
) -> None:
    name, gone = started("sleep 60"), tmp_path / "gone"
    words = (("exec", name, "true"), ("cp", f"{name}:/bin/sh", "."), ("run", "-v", "./x:/x", "base", "true"))
    for command, code in zip(words, (0, 1, 125), strict=True):
        gone.mkdir()
        script = ["sh", "-c", f'cd {gone}; rmdir {gone}; exec "$@"', "sh", *engine.command(list(command))]
        done = subprocess.run(script, capture_output=True, text=True, timeout=60)
        assert done.returncode == code
        assert code == 0 or "sampan: the current directory is gone\n" in done.stderr


def test_inspect_shows_the_variables_that_were_asked_for(sampan_run: Run, engine: sampan.Engine) -> None:
    image = engine.images.resolve("base").config["config"].get("Env") or []
    for words, more in (((), []), (("-e", "A=1", "-e", "HOSTNAME=mine"), ["A=1", "HOSTNAME=mine"])):
        name = sampan_run("create", *words, "base", "true").stdout.strip()
        try:
            shown = sampan_run("inspect", "-f", "{{json .Config.Env}}", name).stdout
            assert sorted(json.loads(shown)) == sorted([*image, *more])
        finally:
            engine.containers.remove(name)


def test_names_as_scripts_have_them(sampan_run: Run) -> None:
    assert sampan_run("create", "--name", "/slashed", "-h", "my_host", "base", "true").returncode == 0
    try:
        assert sampan_run("inspect", "-f", "{{.Name}} {{.Config.Hostname}}", "slashed").stdout == "/slashed my_host\n"
        assert sampan_run("start", "-a", "slashed").returncode == 0
        assert sampan_run("create", "-h", "a/b", "base", "true").returncode == 1
    finally:
        sampan_run("rm", "-f", "slashed")


def test_a_tmpfs_may_be_a_part_of_the_memory(sampan_run: Run) -> None:
    assert sampan_run("run", "--rm", "--tmpfs", "/tmp:size=1%", "base", "true").returncode == 0
    assert sampan_run("run", "--rm", "--tmpfs", "/tmp:mode=1%", "base", "true").returncode == 125
