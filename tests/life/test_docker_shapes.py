"""Small things that scripts written for Docker rely on, as its client 28 and daemon 20.10 print them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lifesupport import Run

import sampan
from sampan.engine import ending, restarting
from sampan.errors import InvalidArgument
from sampan.oci.options import RunOptions
from sampan.store import files


def test_ps_quotes_words_of_a_command(engine: sampan.Engine, sampan_run: Run) -> None:
    name = sampan_run("create", "base", "sh", "-c", 'echo "a\\b"; exit 3').stdout.strip()
    try:
        shown = sampan_run("ps", "-a", "--no-trunc", "--filter", f"id={name}", "--format", "{{.Command}}").stdout
        assert shown == '"sh -c \'echo \\"a\\\\b\\"; exit 3\'"\n'
        text = sampan_run("ps", "-a", "--filter", f"id={name}", "--format", "{{json .}}").stdout
        assert list(json.loads(text)) == sorted(json.loads(text))
    finally:
        engine.containers.remove(name)


def test_logs_details_are_a_space_where_there_are_none(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("echo out; echo err >&2")
    sampan_run("wait", name)
    done = sampan_run("logs", "--details", name)
    assert (done.stdout, done.stderr) == (" out\n", " err\n")


def test_stats_call_a_container_as_it_was_called(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    words = ("stats", "--no-stream", "--format", "{{.Container}} {{.ID}}")
    assert sampan_run(*words, name[:5]).stdout == f"{name[:5]} {name[:12]}\n"
    assert f"{name[:12]} {name[:12]}\n" in sampan_run(*words).stdout


def test_a_stop_with_kill_is_no_special_case(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    done = sampan_run("stop", "-s", "KILL", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, name + "\n", "")
    assert sampan_run("wait", name).stdout == "137\n"


def test_a_forced_removal_tells_of_its_kill(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    assert sampan_run("rm", "-f", name).returncode == 0
    words = ("events", "--since", "1m", "--until", "0s", "-f", f"container={name}", "--format", "{{.Action}}")
    assert sampan_run(*words).stdout.split()[-3:] == ["kill", "die", "destroy"]


def test_a_stop_signal_is_checked_when_asked_for_and_falls_back_when_an_image_names_nonsense(
    engine: sampan.Engine,
) -> None:
    with pytest.raises(InvalidArgument, match="FOO"):
        engine.containers.create("base", RunOptions(command=["true"], stop_signal="FOO"))
    record = engine.containers.get(engine.containers.create("base", RunOptions(command=["true"])))
    try:
        record.config["spec"]["annotations"] = {"sampan.stop_signal": "NONSENSE"}
        assert ending.stop_signal(record) == 15
    finally:
        engine.containers.remove(record.id)


def test_more_cpus_than_there_are_are_refused(sampan_run: Run) -> None:
    count = os.cpu_count() or 1
    done = sampan_run("run", "--rm", "--cpus", str(count + 1), "base", "true")
    assert done.returncode == 125 and f"the {count} of this host" in done.stderr


def test_a_directory_that_somebody_else_removed_is_empty(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    fd = os.open(tmp_path / "gone", os.O_RDONLY)
    try:
        (tmp_path / "gone").rmdir()
        assert files.names(fd) == []
        assert files._move_up(fd, "nothing", fd) == []
    finally:
        os.close(fd)


def test_a_stop_of_what_is_being_removed_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "restart").touch()
    home = str(tmp_path)
    restarting.forbid(home)
    assert restarting.is_forbidden(home)
    restarting.forbid(str(tmp_path / "gone"))


LAUNCHER = Path(__file__).parent.parent.parent / "bin" / "sampan"
AS_A_USER = """
run() { choom -n 300 -- "$LAUNCHER" --root "$HOME/store" "$@" 2>&1 | grep -v 'only your own id is mapped'; }
run load -q -i "$HOME/base.tar"
run run -d --name one base sleep 60 >/dev/null
run exec one cat /proc/self/oom_score_adj
run rm -f one
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: becomes a user without a range of ids")
def test_exec_of_an_ordinary_user_says_nothing_of_its_own(engine: sampan.Engine) -> None:
    """Such a user may no longer write to the files in /proc of a process that has joined a container."""
    user = 54321
    with tempfile.TemporaryDirectory(prefix="sampan-life-") as home:
        subprocess.run(engine.command(["save", "-o", f"{home}/base.tar", "base"]), check=True)
        for path in (home, f"{home}/base.tar"):
            os.chown(path, user, user)
        path = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
        done = subprocess.run(
            ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "sh", "-c", AS_A_USER],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": path, "HOME": home, "LAUNCHER": str(LAUNCHER)},
        )
    assert done.stdout.splitlines()[1:] == ["0", "one"], done.stdout + done.stderr


def test_removals_beside_each_other_are_nobodys_error(engine: sampan.Engine, sampan_run: Run) -> None:
    """`ps` and the end of a --rm container both take its socket away; each may find it gone."""
    for _ in range(5):
        names = [sampan_run("run", "-d", "--rm", "base", "true").stdout.strip() for _ in range(4)]
        with subprocess.Popen(engine.command(["ps", "-a"]), stderr=subprocess.PIPE, text=True) as one:
            done = sampan_run("rm", "-f", *names)
            assert one.stderr is not None and one.stderr.read() == ""
        assert "internal" not in done.stderr


def test_a_terminal_of_a_pipe_is_refused_as_dockers_client_does(started: Callable[..., str], sampan_run: Run) -> None:
    name = started("sleep 60")
    for words in (["run", "--rm", "-it", "base", "true"], ["exec", "-it", name, "true"]):
        done = sampan_run(*words)
        assert done.returncode == 1 and "the input device is not a TTY" in done.stderr


def test_a_signal_lets_a_paused_container_go_on_where_no_stop_signal_was_chosen(
    started: Callable[..., str], sampan_run: Run
) -> None:
    for options, state in (((), "running"), (("--stop-signal", "TERM"), "paused")):
        name = started("trap : USR1; echo ready; while :; do sleep 0.02; done", *options)
        if sampan_run("pause", name).returncode:
            pytest.skip("needs a freezer")
        assert sampan_run("kill", "-s", "USR1", name).returncode == 0
        assert sampan_run("ps", "--filter", f"id={name}", "--format", "{{.State}}").stdout == f"{state}\n"
