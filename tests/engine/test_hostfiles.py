"""In the host's network a container resolves names as the host does."""

from __future__ import annotations

import pathlib
from typing import Any

import sampan
from sampan.oci.options import RunOptions
from sampan.runtime import hostfiles


def read(engine: sampan.Engine, network: str, script: str, image: str = "base", **settings: Any) -> str:
    done = engine.run(image, ["sh", "-c", script], network=network, **settings)
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def test_the_hosts_files_are_there_and_the_containers_to_change(engine: sampan.Engine) -> None:
    there = [name for name in hostfiles.NAMES if pathlib.Path("/etc", name).is_file()]
    assert "hosts" in there
    for name in there:
        before = pathlib.Path("/etc", name).read_text()
        assert read(engine, "host", f"cat /etc/{name}; echo '# own' >> /etc/{name}") == before
        assert pathlib.Path("/etc", name).read_text() == before
    assert read(engine, "none", "cat /etc/hosts 2>/dev/null; true") != pathlib.Path("/etc/hosts").read_text()


def test_a_bind_of_the_callers_wins(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "hosts").write_text("mine\n")
    mounts = [("bind", str(tmp_path / "hosts"), "/etc/hosts", ["ro"])]
    assert read(engine, "host", "cat /etc/hosts", mounts=mounts) == "mine\n"


def test_a_read_only_root_and_a_second_start(engine: sampan.Engine) -> None:
    options = RunOptions()
    options.command, options.network, options.read_only = ["cat", "/etc/hosts"], "host", True
    made = engine.containers.create("base", options)
    assert engine.containers.start(made, attach=True) == 0
    assert engine.containers.start(made, attach=True) == 0
    engine.containers.remove(made)


def test_a_link_of_the_image_is_left_alone(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN mkdir -p /etc && ln -sf /nowhere/at/all /etc/resolv.conf\n")
    engine.build(str(tmp_path), tags=["linked"])
    done = engine.run("linked", ["sh", "-c", "ls -l /etc/resolv.conf"], network="host")
    assert done.exit_code == 0 and b"/nowhere/at/all" in done.stdout, done.stderr


def test_a_step_in_the_hosts_network_has_them_and_the_layer_has_not(
    engine: sampan.Engine, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN cat /etc/hosts > /seen; rm -f /etc/added\n")
    engine.build(str(tmp_path), tags=["networked"], network="host")
    assert read(engine, "none", "cat /seen", image="networked") == pathlib.Path("/etc/hosts").read_text()
    plain = read(engine, "none", "cat /etc/hosts 2>&1; true")
    assert read(engine, "none", "cat /etc/hosts 2>&1; true", image="networked") == plain
