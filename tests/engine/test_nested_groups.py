"""Containers with control groups of their own below theirs, as one with systemd makes: joined all the same."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

import sampan
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup

Box = Callable[..., tuple[str, Path]]


@pytest.fixture
def box(engine: sampan.Engine) -> Iterator[Box]:
    """Start a container with its process in `init` and a controller on beside it; give its name and `init`."""
    found = []

    def start(**settings: Any) -> tuple[str, Path]:
        layout = cgroup.detect()
        controller = next(iter(sorted(layout.v2_controllers() & {"memory", "io", "hugetlb", "misc"})), "")
        if not controller:
            pytest.skip("needs cgroup2 with a controller that is open to this user")
        options = RunOptions(command=["sh", "-c", "echo ready; sleep 1000; :"], **settings)
        name = str(engine.containers.run(options, image="base", detach=True))
        found.append(name)
        group = Path(cgroup.named(name).v2_dir)
        for directory in (group.parent.parent, group.parent):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        (group / "init").mkdir()

        def is_empty() -> bool:
            try:
                for pid in (group / "cgroup.procs").read_text().split():
                    (group / "init/cgroup.procs").write_text(pid)
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as error:  # one has ended, or a check has begun
                assert error.errno in (errno.ESRCH, errno.EBUSY), error
                return False
            return True

        until(is_empty)
        return name, group / "init"

    yield start
    for name in found:
        engine.containers.remove(name, force=True)
        assert not cgroup.named(name).v2_dir


def test_exec_goes_where_the_first_process_is(
    engine: sampan.Engine, box: Box, capfd: pytest.CaptureFixture[str]
) -> None:
    name, _ = box()
    capfd.readouterr()
    assert engine.containers.exec(name, ["cat", "/proc/self/cgroup"]) == 0
    assert "0::/init\n" in capfd.readouterr().out


def test_health_checks_too(engine: sampan.Engine, box: Box) -> None:
    check = 'case "$(cat /proc/self/cgroup)" in *0::/init*) exit 0;; esac; exit 1'
    name, _ = box(health_cmd=check, health_interval=0.3)
    until(lambda: [one["ExitCode"] for one in engine.containers.inspect(name)["State"]["Health"]["Log"]][-1:] == [0])


def test_a_pause_holds_all_of_them(engine: sampan.Engine, box: Box) -> None:
    name, init = box()
    engine.containers.pause(name)
    assert "frozen 1" in (init / "cgroup.events").read_text()
    engine.containers.unpause(name)
    assert "frozen 0" in (init / "cgroup.events").read_text()
