"""The command as a process: the launcher, exit codes, what goes to standard error, and words that are not commands."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from sampan.cli import failure, groups, main, options
from sampan.errors import BuildError, NotFound

ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCHER = ROOT / "bin" / "sampan"


def sampan(
    *words: str, launcher: pathlib.Path = LAUNCHER, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    path = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
    return subprocess.run(
        [str(launcher), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": path, **(env or {})},
    )


def test_every_command_and_alias_leads_to_a_module() -> None:
    for word in (*main.COMMANDS, *groups.GROUPED):
        module = main.load_command(word)
        assert module.OPTIONS.name == word
        assert callable(module.run)
    for alias, full in groups.ALIASES.items():
        word, rest = main.split_command(full.split())
        assert word, alias
        table = main.load_command(word).OPTIONS.options
        options.parse([*rest, "a", "b"], options.Command("x", "", "[ANY...]", table))


def test_every_option_of_a_command_is_written_once() -> None:
    for word in (*main.COMMANDS, *groups.GROUPED):
        table = main.load_command(word).OPTIONS.options
        longs = [name for option in table for name in (option.long, *option.aliases)]
        shorts = [option.short for option in table if option.short]
        assert len(longs) == len(set(longs)), word
        assert len(shorts) == len(set(shorts)), word


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["help"]) == 0
    overview = capsys.readouterr().out
    for word in (*main.COMMANDS, *groups.GROUPED):
        assert f"  {word} " in overview or word.split()[0] in overview
        assert main.main(["help", *word.split()]) == 0
        assert f"sampan {word}" in capsys.readouterr().out
        assert main.main([*word.split(), "--help"]) == 0
        assert f"sampan {word}" in capsys.readouterr().out
    for group in sorted({word.split()[0] for word in groups.GROUPED}):
        assert main.main(["help", group]) == 0
        said = capsys.readouterr()
        assert f"sampan {group} COMMAND" in said.out and not said.err
        for word in ("--help", "-h", "help"):
            assert main.main([group, word]) == 0
            assert capsys.readouterr() == said


@pytest.mark.parametrize(
    ("words", "why", "hint"),
    [
        (["runn"], "there is no command 'runn'", "did you mean run?"),
        (["zzzzzz"], "there is no command 'zzzzzz'", "sampan help"),
        (["container", "lss"], "there is no command 'container lss'", "did you mean container ls?"),
        (["container"], "command container needs another word", "container ls"),
        (["--rooot", "x"], "unknown option --rooot before the command", "sampan help"),
        (["--root="], "--root needs a directory", ""),
        (["version", "--frmat", "x"], "unknown option --frmat of version", "--format"),
        (["help", "nope-nope"], "there is no command 'nope-nope'", ""),
    ],
)
def test_wrong_words_are_answered_with_a_hint(
    words: list[str], why: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == (125 if "option" in why or "--" in why else 1)  # as Docker's
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"sampan: {why}" in printed.err or why in printed.err
    assert hint in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["exec", "nope", "true"], 1),
        (["logs", "nope"], 1),
        (["tag", "nope", "x"], 1),
        (["tag", "x"], 1),
        (["tag", "--frob", "x", "y"], 125),
        (["save", "nope"], 1),
        (["load", "-i", "/nope"], 1),
        (["history", "nope"], 1),
        (["export", "nope"], 1),
        (["create", "nope"], 1),
        (["start", "nope"], 1),
        (["inspect", "nope"], 1),
        (["build", "/nope"], 1),
        (["run", "nope"], 125),
        (["run", "--memory", "1", "nope"], 125),
        (["run", "--frob", "nope"], 125),
        (["run"], 1),
    ],
)
def test_exit_codes_are_dockers(words: list[str], code: int, tmp_path: pathlib.Path) -> None:
    assert main.main(["--root", str(tmp_path / "store"), *words]) == code


def test_launcher_runs_from_a_checkout_and_through_a_link(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(LAUNCHER)
    for launcher in (LAUNCHER, link):
        done = sampan("--version", launcher=launcher)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("sampan 0.")


@pytest.mark.parametrize(
    "site", ["lib/python3.{}/site-packages", "lib/python3.{}/dist-packages", "lib64/python3.{}/site-packages"]
)
def test_launcher_finds_the_package_of_an_installation(tmp_path: pathlib.Path, site: str) -> None:
    directory = tmp_path / site.format(sys.version_info[1])
    directory.mkdir(parents=True)
    (directory / "sampan").symlink_to(ROOT / "sampan")
    (tmp_path / "bin").mkdir()
    shutil.copy(LAUNCHER, tmp_path / "bin" / "sampan")
    done = sampan("--version", launcher=tmp_path / "bin" / "sampan")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_at_the_start_shows_no_traceback(tmp_path: pathlib.Path) -> None:
    """The package is one whose import is interrupted."""
    package = tmp_path / f"lib/python3.{sys.version_info[1]}/site-packages/sampan"
    package.mkdir(parents=True)
    (package / "__main__.py").touch()
    (package / "__init__.py").touch()
    (package / "bundle.py").write_text("import os\nos.kill(os.getpid(), 2)\nfor n in range(1000): pass\n")
    (tmp_path / "bin").mkdir()
    shutil.copy(LAUNCHER, tmp_path / "bin" / "sampan")
    done = sampan("images", launcher=tmp_path / "bin" / "sampan")
    assert (done.returncode, done.stderr) in ((130, ""), (-signal.SIGINT, ""))


def test_an_ignored_interrupt_stays_ignored(tmp_path: pathlib.Path) -> None:
    script = f'trap "" INT; "{LAUNCHER}" --root "{tmp_path}/store" images & sleep 0.02; kill -INT $!; wait $!; echo $?'
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=False)
    assert done.stdout.splitlines()[-1] == b"0"


def test_launcher_without_python_says_so(tmp_path: pathlib.Path) -> None:
    shutil.copy(LAUNCHER, tmp_path / "sampan")
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "sampan")], capture_output=True, env={"PATH": "/nowhere"}, check=False
    )
    assert done.returncode == 125
    assert b"no python3 found" in done.stderr


def test_the_environment_does_not_steer_the_interpreter(tmp_path: pathlib.Path) -> None:
    (tmp_path / "os.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('hijacked')")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere", "PYTHONINSPECT": "1"}
    control = subprocess.run([sys.executable, "-c", "0"], capture_output=True, env=hostile, check=False)
    assert control.returncode != 0
    assert sampan("--version", env=hostile).returncode == 0


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([str(LAUNCHER), "help"], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_one_line_and_a_hint() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(LAUNCHER), "help"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 125
    error, hint = done.stderr.decode().splitlines()
    assert error == "sampan: cannot write to standard output: No space left on device" and hint.startswith("hint: ")


def test_errors_of_ours_show_message_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.report(NotFound("no image x", "load it", exit_code=127), debug=False) == 127
    assert capsys.readouterr().err == "sampan: no image x\nhint: load it\n"


def test_build_errors_show_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    excerpt = "   1 | FROM x\n>> 2 | RNU y"
    error = BuildError("unknown instruction RNU", "did you mean RUN?", file="Dockerfile", line=2, excerpt=excerpt)
    assert failure.report(error, debug=False) == 1
    err = capsys.readouterr().err
    assert "Dockerfile:2\n" in err and ">> 2 | RNU y" in err and "hint: did you mean RUN?" in err


def test_hostile_text_in_an_error_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failure.report(NotFound("no \x1b[31mred\nsampan: fake"), debug=False)
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1
    failure.report(NotFound("no \x1b[31mred"), debug=True)
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("exc", "code", "text"),
    [
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 125, "sampan: out of memory\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            125,
            "sampan: the host refused /x: No space left on device\n"
            "hint: free some space, for example with `sampan rm` and `sampan rmi`\n",
        ),
        (RecursionError(), 125, "sampan: the input is nested too deeply\n"),
        (SystemExit(3), 3, ""),
    ],
)
def test_other_endings(exc: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.report(exc, debug=False) == code
    assert capsys.readouterr().err == text


def test_internal_errors_show_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("x")
    except KeyError as exc:
        caught = exc
    assert failure.report(caught, debug=False) == 125
    err = capsys.readouterr().err
    assert "internal error: KeyError" in err and "--debug" in err and "Traceback" not in err
    assert failure.report(caught, debug=True) == 125
    assert "Traceback" in capsys.readouterr().err
