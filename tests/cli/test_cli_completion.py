"""Completion in real shells: what stands on the command line after a press of the Tab key."""

from __future__ import annotations

import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

import sampan
from sampan.cli import completion_tables
from sampan.oci.options import RunOptions

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "bin" / "sampan"


@pytest.fixture(scope="module")
def home() -> Iterator[pathlib.Path]:
    """Make a store with containers, an image and a volume, and the scripts of the shells."""
    with tempfile.TemporaryDirectory(prefix="sampan-tab-") as text:
        root = pathlib.Path(text)
        root.chmod(0o711)
        engine = sampan.Engine(str(root / "store"))
        engine.bootstrap("host", "tabimage", ["true", "sleep"])
        engine.containers.create("tabimage", RunOptions(command=["true"]), name="resting")
        running = RunOptions(command=["sleep", "300"])
        engine.containers.run(running, image="tabimage", name="working", detach=True)
        engine.store.volumes.create("tabvolume")
        for shell in ("bash", "zsh", "fish"):
            (root / shell).write_text(completion_tables.script(shell))
        (root / "somefile.tar").write_text("")
        yield root
        for row in engine.containers.ls(all=True):
            engine.containers.remove(row["ID"], force=True)
        engine.close()


def environment(home: pathlib.Path) -> dict[str, str]:
    path = f"{LAUNCHER.parent}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    own = {"PATH": path, "SAMPAN_ROOT": str(home / "store"), "HOME": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    return {**own, "PS1": "$ "}


# Shows the words that the shell would have run; what completion itself asks goes to the real one.
SHOW = 'sampan() { case "$*" in *--names*) command sampan "$@" ;; *) printf \'<%s>\' "$@"; echo; echo END ;; esac; }'


class Shell:
    """A shell on a pseudo-terminal."""

    def __init__(self, words: list[str], home: pathlib.Path, setup: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execvpe(words[0], words, environment(home))
        self.type("\r".join([*setup, SHOW, "echo rea''dy\r"]))
        self.until("ready\r\n")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, mark: str, key: str = "") -> str:
        """Read until there is a mark; press a key whenever the shell has been silent for a while."""
        seen, deadline = "", time.monotonic() + 60
        while mark not in seen:
            assert time.monotonic() < deadline, f"no {mark!r} in {seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                seen += os.read(self.fd, 65536).decode(errors="replace")
            else:
                self.type(key)
        return seen

    def tab(self, line: str) -> str:
        """Return the words that are run when Tab and Enter are pressed after a line."""
        self.type(line + "\t")
        seen = self.until("END\r\n", "\r")  # a shell may drop a key that comes while it completes
        return seen[seen.rindex("\n<") + 1 : seen.rindex(">") + 1] if "\n<" in seen else seen

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


CASES = [
    ("sampan renam", "<rename>"),
    ("sampan container unp", None),
    ("sampan run --hostn", "<run><--hostname>"),
    ("sampan --root store ru", "<--root><store><run>"),
    ("sampan run --ipc shar", "<run><--ipc><shareable>"),
    ("sampan run --ipc=shar", "<run><--ipc=shareable>"),
    ("sampan run --rm tabi", "<run><--rm><tabimage:latest>"),
    ("sampan run -it -e A=b --network no", "<run><-it><-e><A=b><--network><none>"),
    ("sampan stop wo", "<stop><working>"),
    ("sampan start re", "<start><resting>"),
    ("sampan rm working re", "<rm><working><resting>"),
    ("sampan container stop wo", "<container><stop><working>"),
    ("sampan image rm tabi", "<image><rm><tabimage:latest>"),
    ("sampan ps -f sta", "<ps><-f><status=>"),
    ("sampan kill -s US", None),
    ("sampan kill -s WIN", "<kill><-s><WINCH>"),
    ("sampan run --volumes-from wor", "<run><--volumes-from><working>"),
    ("sampan load -i some", "<load><-i><somefile.tar>"),
    ("sampan run -v tabv", "<run><-v><tabvolume:>"),
    ("sampan run --cap-add NET_R", "<run><--cap-add><NET_RAW>"),
    ("sampan completion fi", "<completion><fish>"),
]


def known(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.fixture(scope="module")
def bash(home: pathlib.Path) -> Iterator[Shell]:
    words = [known("bash"), "--norc", "--noprofile", "-i"]
    shell = Shell(words, home, ["bind 'set enable-bracketed-paste off'", f". {home}/bash"])
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def zsh(home: pathlib.Path) -> Iterator[Shell]:
    setup = ["unset zle_bracketed_paste", "autoload -U compinit", "compinit -D -u", f". {home}/zsh"]
    shell = Shell([known("zsh"), "-f", "-i"], home, setup)
    yield shell
    shell.close()


@pytest.mark.parametrize(("line", "expected"), [case for case in CASES if case[1]])
def test_bash(bash: Shell, line: str, expected: str) -> None:
    assert bash.tab(line) == expected


@pytest.mark.parametrize(("line", "expected"), [case for case in CASES if case[1]])
def test_zsh(zsh: Shell, line: str, expected: str) -> None:
    assert zsh.tab(line) == expected


@pytest.mark.parametrize(("line", "expected"), [case for case in CASES if case[1]])
def test_fish(home: pathlib.Path, line: str, expected: str) -> None:
    code = f"source {home}/fish; complete -C '{line}'"
    words = [known("fish"), "--no-config", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(home), cwd=home, check=True)
    found = [text.split("\t")[0] for text in done.stdout.splitlines()]
    last = expected.rpartition("<")[2].removesuffix(">")
    assert last in found, done.stdout + done.stderr


def test_fish_offers_each_thing_once_and_where_it_belongs(home: pathlib.Path) -> None:
    def offered(line: str) -> list[str]:
        code = f"source {home}/fish; complete -C '{line}'"
        words = [known("fish"), "--no-config", "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, env=environment(home), cwd=home, check=True)
        assert done.stderr == ""
        return [text.split("\t")[0] for text in done.stdout.splitlines()]

    assert offered("sampan stop ") == ["working"]
    assert offered("sampan start ") == ["resting"]
    assert offered("sampan rename working ") == []
    assert len(offered("sampan ")) == len(set(offered("sampan ")))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_scripts_are_sound(home: pathlib.Path, shell: str) -> None:
    subprocess.run([known(shell), "-n", str(home / shell)], check=True)


def test_static_words_start_nothing(home: pathlib.Path) -> None:
    """Only names are asked for: with a sampan that cannot be started, options are completed all the same."""
    words = [known("bash"), "--norc", "--noprofile", "-c"]
    code = f". {home}/bash; _sampan_table run; COMP_LINE='sampan run --hostn'; COMP_POINT=${{#COMP_LINE}}"
    code += "; COMP_WORDS=(sampan run --hostn); COMP_CWORD=2; _sampan; echo ${COMPREPLY[@]}"
    done = subprocess.run([*words, code], capture_output=True, text=True, env={"PATH": "/nowhere"}, check=True)
    assert done.stdout == "--hostname\n"


def test_names_do_not_make_a_store(tmp_path: pathlib.Path) -> None:
    engine = sampan.Engine(str(tmp_path / "none"))
    from sampan.engine import completing

    assert completing.names(engine, "containers") == []
    assert not (tmp_path / "none").exists()


def test_every_command_and_option_is_in_the_tables() -> None:
    """Also those of two words; what is refused is not offered."""
    from sampan.cli import groups, main

    lines = {line.words: line for line in completion_tables.lines()}
    assert set(lines) == {*main.COMMANDS, *groups.GROUPED}
    run = [row.long for row in lines["run"].rows]
    assert "--memory" in run and "--gpus" not in run
