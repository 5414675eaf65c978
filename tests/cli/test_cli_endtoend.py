"""The command as users have it: a real store, real containers, an image from this host's programs."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest
from waiting import until

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "bin" / "sampan"


class Sampan:
    """Run the command on one store."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.env = {"PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"], "CALLER": "from-caller"}

    def words(self, *words: str) -> list[str]:
        return [str(LAUNCHER), "--root", self.root, *words]

    def __call__(self, *words: str, code: int = 0, **how: object) -> str:
        done = subprocess.run(
            self.words(*words), capture_output=True, text=True, timeout=60, check=False, env=self.env, **how
        )  # type: ignore[call-overload]
        assert done.returncode == code, done.stderr
        return str(done.stdout if code == 0 else done.stdout + done.stderr)


@pytest.fixture(scope="module")
def sampan() -> Iterator[Sampan]:
    with tempfile.TemporaryDirectory(prefix="sampan-cli-") as root:
        os.chmod(root, 0o711)
        command = Sampan(root)
        command("bootstrap", "-t", "base", "host", "sh", "cat", "sleep", "env", "true", "id", "touch", "ls")
        yield command
        for name in command("ps", "-aq").split():
            command("rm", "-f", name)


def test_exit_codes_are_the_programs_own(sampan: Sampan) -> None:
    assert sampan("run", "--rm", "base", "sh", "-c", "echo out; exit 0") == "out\n"
    assert sampan("run", "--rm", "base", "sh", "-c", "exit 42", code=42) == ""
    assert "no-such-program" in sampan("run", "--rm", "base", "no-such-program", code=127)
    sampan("run", "--rm", "base", "/etc", code=126)
    assert "hint:" in sampan("run", "--rm", "no-such-image", code=125)
    assert sampan("ps", "-aq") == ""


def test_input_environment_directory_and_user(sampan: Sampan, tmp_path: pathlib.Path) -> None:
    assert sampan("run", "--rm", "-i", "base", "cat", input="through") == "through"
    env = sampan("run", "--rm", "-e", "A=1 2", "-e", "CALLER", "-e", "ABSENT", "base", "env")
    assert "A=1 2\n" in env and "CALLER=from-caller\n" in env and "ABSENT" not in env
    assert sampan("run", "--rm", "-w", "/usr", "base", "sh", "-c", "pwd") == "/usr\n"
    (tmp_path / "file").write_text("shared")
    assert sampan("run", "--rm", "-v", "./file:/f:ro", "base", "cat", "/f", cwd=tmp_path) == "shared"
    assert sampan("run", "--rm", "--entrypoint", "sh", "base", "-c", "echo $0 $1", "a", "b") == "a b\n"
    sampan("run", "--rm", "--read-only", "base", "touch", "/x", code=1)


def test_life_of_a_detached_container(sampan: Sampan, tmp_path: pathlib.Path) -> None:
    cid = tmp_path / "cid"
    program = "trap 'exit 5' TERM; echo started; while :; do sleep 0.05; done"
    whole = sampan("run", "-d", "--name", "web", "-l", "tier=front", "--cidfile", str(cid), "base", "sh", "-c", program)
    assert whole.strip() == cid.read_text()
    assert sampan("ps", "--format", '{{.Names}} {{.State}} {{.Label "tier"}}') == "web running front\n"
    assert "web" in sampan("ps", "-f", "label=tier=front")
    assert sampan("exec", "web", "sh", "-c", "echo inside") == "inside\n"
    sampan("exec", "web", "sh", "-c", "exit 3", code=3)
    assert sampan("inspect", "-f", "{{.Name}} {{.State.Running}}", "web") == "/web true\n"
    until(lambda: sampan("logs", "web") == "started\n")
    assert sampan("stop", "web") == "web\n"
    assert sampan("wait", "web") == "5\n"
    assert "Exited (5)" in sampan("ps", "-a")
    assert sampan("ps", "-q") == ""
    assert sampan("rm", "web") == "web\n"
    sampan("inspect", "web", code=1)


def test_created_then_started(sampan: Sampan) -> None:
    sampan("create", "--name", "job", "base", "sh", "-c", "echo done; exit 6")
    assert sampan("ps", "-a", "--format", "{{.Status}}") == "Created\n"
    assert "done" in sampan("start", "-a", "job", code=6)
    sampan("rm", "job")


def test_images_move_as_archives(sampan: Sampan, tmp_path: pathlib.Path) -> None:
    archive = str(tmp_path / "base.tar")
    sampan("tag", "base", "moved:1")
    sampan("save", "-o", archive, "moved:1")
    assert "Untagged: moved:1" in sampan("rmi", "moved:1")
    assert sampan("load", "-i", archive) == "Loaded image: moved:1\n"
    assert sampan("images", "-q", "moved") == sampan("images", "-q", "base")
    assert json.loads(sampan("inspect", "moved:1"))[0]["Os"] == "linux"
    assert "bootstrap" in sampan("history", "--no-trunc", "moved:1")


def test_a_root_where_no_directory_can_be_made() -> None:
    said = Sampan("/proc/none/store")("images", code=1)
    assert said.startswith("sampan: cannot make the store /proc/none/store: No such file or directory\nhint: ")


def test_explain_makes_nothing(sampan: Sampan) -> None:
    text = sampan("run", "--explain", "--rm", "base", "true")
    assert "pivot_root" in text
    assert sampan("ps", "-aq") == ""


def test_an_interrupt_reaches_the_program(sampan: Sampan) -> None:
    program = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"
    words = sampan.words("run", "--rm", "base", "sh", "-c", program)
    child = subprocess.Popen(words, stdout=subprocess.PIPE, env=sampan.env)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 9
    child.stdout.close()


def test_a_third_interrupt_kills_and_the_second_says_so(sampan: Sampan) -> None:
    """As with Docker's client, for a first process that can never receive one."""
    words = sampan.words("run", "--rm", "base", "sh", "-c", "echo ready; exec sleep 1000")
    screen, inside = os.openpty()
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=inside, env=sampan.env)
    os.close(inside)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    while child.poll() is None:  # two that come at once are one
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert child.returncode == 137
    assert os.read(screen, 1000).split() == b"sampan: the program goes on: once more kills it".split()
    os.close(screen)
    child.stdout.close()
