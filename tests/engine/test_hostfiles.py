"""In the host's network a container resolves names as the host does, without one at least localhost."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

import sampan
from sampan.engine import naming
from sampan.engine.library import options
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


def test_a_link_of_the_image_is_left_alone(engine: sampan.Engine, commit: Callable[..., None]) -> None:
    commit(engine, "linked", "mkdir -p /etc; ln -sf /nowhere/at/all /etc/resolv.conf")
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


WITHOUT_HOSTS = {
    "missing": "rm -f /etc/hosts",
    "empty": "mkdir -p /etc; rm -f /etc/hosts; touch /etc/hosts",
    "etcgone": "rm -rf /etc",
    "noetc": "",
}


@pytest.fixture(scope="module")
def images(
    engine: sampan.Engine, commit: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> sampan.Engine:
    """An engine that has images without hosts, with own ones and with a link."""
    own = {
        "own": "mkdir -p /etc; echo 192.0.2.1 own > /etc/hosts",
        "link": "mkdir -p /etc; ln -sf /nowhere /etc/hosts",
        "plainetc": "rm -rf /etc; touch /etc",
    }
    for name, script in {**WITHOUT_HOSTS, **own}.items():
        if script:
            commit(engine, name, script)
    place = tmp_path_factory.mktemp("hosts")
    (place / "Dockerfile").write_text("FROM etcgone AS all\nFROM scratch\nCOPY --from=all / /\n")
    engine.build(str(place), tags=["noetc"])
    return engine


def run_kept(engine: sampan.Engine, image: str, script: str, **fields: Any) -> str:
    """Make a container, start it and give its id."""
    made = engine.containers.create(image, RunOptions(command=["sh", "-c", script], **fields))
    assert engine.containers.start(made, attach=True) == 0
    return made


@pytest.mark.parametrize("image", WITHOUT_HOSTS)
def test_without_hosts_in_the_image_localhost_is_known(images: sampan.Engine, image: str) -> None:
    assert read(images, "none", "cat /etc/hosts", image=image) == naming._LOCAL
    assert read(images, "none", "cat /etc/hosts", image=image, read_only=True) == naming._LOCAL
    added = read(images, "none", "cat /etc/hosts", image=image, add_host=["db:10.1.2.3"])
    assert added == naming._LOCAL + "10.1.2.3\tdb\n"
    words = images.containers.explain(image, options(["true"], None, {"network": "none"}))
    assert "bind the container's copy of /etc/hosts at /etc/hosts (read-write)" in words


def test_what_the_image_has_stays(images: sampan.Engine) -> None:
    assert read(images, "none", "cat /etc/hosts", image="own") == "192.0.2.1 own\n"
    assert "/nowhere" in read(images, "none", "ls -l /etc/hosts", image="link")
    read(images, "none", "test -f /etc && test ! -s /etc", image="plainetc")
    words = "\n".join(images.containers.explain("own", options(["true"], None, {"network": "none"})))
    assert "/etc/hosts" not in words


def test_a_mount_of_the_callers_is_all_that_is_there(images: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "hosts").write_text("")
    mounts = [("bind", str(tmp_path / "hosts"), "/etc/hosts", ["ro"])]
    read(images, "none", "test ! -s /etc/hosts", image="missing", mounts=mounts)
    (tmp_path / "hosts").unlink()
    read(images, "none", "true", image="missing", mounts=[("bind", str(tmp_path), "/etc", [])])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image", WITHOUT_HOSTS)
def test_each_start_has_new_hosts_which_are_no_change(images: sampan.Engine, image: str) -> None:
    script = (
        "set -e; test -s /etc/hosts; while read a b; do test $a != own; done < /etc/hosts; echo own x >> /etc/hosts"
    )
    made = run_kept(images, image, script, network="none")
    compared = run_kept(images, image, "true", network="host")
    try:
        assert images.containers.start(made, attach=True) == 0
        changes = images.containers.diff(made)
        assert [path for _, path in changes if path == "/etc/hosts"] == []
        assert changes == [change for change in images.containers.diff(compared) if change in changes]
        images.containers.commit(made, "committed")
        assert images.containers.inspect(made)["HostsPath"].endswith("/hosts")
        below = images.images.runnable(image).diff_ids
        for added in images.images.runnable("committed").diff_ids[len(below) :]:
            assert not os.path.lexists(images.store.snapshots.path(added) + "/etc/hosts")
        assert read(images, "none", "cat /etc/hosts", image="committed") == naming._LOCAL
    finally:
        images.containers.remove(made)
        images.containers.remove(compared)


@pytest.mark.parametrize("image", ["base", "missing", "noetc"])
def test_who_shares_a_network_shares_its_names(images: sampan.Engine, image: str) -> None:
    """As Docker: hosts, resolv.conf and hostname are those of the container whose network it is."""
    script = "echo 192.0.2.9 peer >> /etc/hosts; echo of-the-owner > /etc/hostname; : > /ready; exec sleep 1000"
    asked = RunOptions(command=["sh", "-c", script], hostname="owner.example", add_host=["db:10.1.2.3"])
    owner = str(images.containers.run(asked, image="base", detach=True))
    network = f"container:{owner}"
    guest = ""
    try:
        while images.containers.exec(owner, ["sh", "-c", "test -e /ready"]):
            pass
        seen = "cat /etc/hosts /etc/hostname /proc/sys/kernel/hostname; echo $HOSTNAME; echo mine >> /etc/hosts"
        wanted = naming._LOCAL + "10.1.2.3\tdb\n192.0.2.9 peer\nof-the-owner\nowner.example\nowner.example\n"
        assert read(images, network, seen, image=image) == wanted
        guest = run_kept(images, image, f"({seen}) >/dev/null", network=network)
        assert images.containers.inspect(guest)["Config"]["Hostname"] == "owner.example"
        assert [path for _, path in images.containers.diff(guest) if path.startswith("/etc/host")] == []
        images.containers.exec(owner, ["sh", "-c", "echo later > /etc/hostname"])
        assert images.containers.start(guest, attach=True) == 0
        assert images.containers.exec(owner, ["sh", "-c", "read a < /etc/hostname; test $a = later"]) == 0
    finally:
        if guest:
            images.containers.remove(guest)
        images.containers.remove(owner, force=True)


def test_a_link_in_the_owner_leads_nowhere_outside(images: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret").write_text("secret of the host")
    script = f"rm -f /etc/hosts; ln -s {tmp_path}/secret /etc/hosts; : > /ready; exec sleep 1000"
    owner = str(images.containers.run(RunOptions(command=["sh", "-c", script]), image="own", detach=True))
    try:
        while images.containers.exec(owner, ["sh", "-c", "test -e /ready"]):
            pass
        assert read(images, f"container:{owner}", "cat /etc/hosts", image="own") == "192.0.2.1 own\n"
    finally:
        images.containers.remove(owner, force=True)


def test_hosts_that_were_copied_in_stay(images: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "hosts").write_text("192.0.2.7 mine\n")
    made = run_kept(images, "missing", "read a b < /etc/hosts; test $a = 127.0.0.1 || test $b = mine", network="none")
    try:
        images.containers.copy_in(made, str(tmp_path / "hosts"), "/etc/hosts")
        assert "/etc/hosts" in [path for _, path in images.containers.diff(made)]
        assert images.containers.start(made, attach=True) == 0
    finally:
        images.containers.remove(made)


# ---- /etc/hostname ----

NAMELESS = {
    "named": "mkdir -p /etc; echo theirs > /etc/hostname",
    "hidden": "mkdir -p /etc; : > /etc/hostname; rm -rf /etc; mkdir /etc",
}


@pytest.fixture(scope="module")
def named(images: sampan.Engine, commit: Callable[..., None]) -> sampan.Engine:
    """An engine that has images with /etc/hostname (also one that is a link), and without one in several ways."""
    for name, script in NAMELESS.items():
        commit(images, name, script)
    commit(images, "removed", "rm /etc/hostname", "named")
    commit(images, "linkedname", "rm /etc/hostname; ln -s /nowhere /etc/hostname", "named")
    return images


NAMED = ("base", "named", "hidden", "removed", "etcgone", "noetc")


@pytest.mark.parametrize("image", NAMED)
def test_the_name_of_a_container_is_in_its_etc_hostname(named: sampan.Engine, image: str) -> None:
    both = "read a < /etc/hostname; read b < /proc/sys/kernel/hostname; test $a = $b && echo $a $HOSTNAME"
    name = read(named, "none", both, image=image).split()
    assert len(name) == 2 and name[0] == name[1] and len(name[0]) == 12
    assert read(named, "none", both, image=image, hostname="db.example") == "db.example db.example\n"
    assert read(named, "none", "cat /etc/hostname", image=image, uts="host") == os.uname().nodename + "\n"
    assert read(named, "none", both, image=image, mounts=[("bind", "/dev", "/dev", ["rbind"])]).split()[0] != "theirs"


@pytest.mark.parametrize("mounts", [[], [("bind", "/dev", "/dev", ["rbind"])]], ids=["own dev", "the host's dev"])
def test_the_name_is_the_containers_to_change_but_in_a_read_only_root(named: sampan.Engine, mounts: Any) -> None:
    assert read(named, "none", "echo x > /etc/hostname; cat /etc/hostname", mounts=mounts) == "x\n"
    wrote = "(echo x > /etc/hostname) 2>/dev/null; test $? != 0 && read a < /etc/hostname && echo $a"
    assert read(named, "none", wrote, mounts=mounts, read_only=True, hostname="db") == "db\n"


def test_nothing_of_the_name_is_to_be_seen_elsewhere(named: sampan.Engine) -> None:
    assert "own" not in read(named, "none", "ls -A /dev")


@pytest.mark.parametrize("image", NAMED)
def test_the_name_is_no_change_of_the_containers(named: sampan.Engine, image: str) -> None:
    made = run_kept(named, image, "echo changed >> /etc/hostname")
    try:
        assert named.containers.start(made, attach=True) == 0
        assert [path for _, path in named.containers.diff(made) if path == "/etc/hostname"] == []
        named.containers.commit(made, "saved")
        below = named.images.runnable(image).diff_ids
        for added in named.images.runnable("saved").diff_ids[len(below) :]:
            assert not os.path.lexists(named.store.snapshots.path(added) + "/etc/hostname")
    finally:
        named.containers.remove(made)


@pytest.mark.parametrize("network", ["none", "host"])
def test_an_image_without_the_files_costs_its_containers_nothing(named: sampan.Engine, network: str) -> None:
    """A mount point that a start made would be in the container's own layer, which Engine.run must then remove."""
    for image in ("base", "named", "noetc"):
        made = run_kept(named, image, "true", network=network)
        changed = named.containers.diff(made)
        named.containers.remove(made)
        assert changed == [], image


def test_what_stands_in_its_place_is_left_alone(named: sampan.Engine, tmp_path: pathlib.Path) -> None:
    assert "/nowhere" in read(named, "none", "ls -l /etc/hostname", image="linkedname")
    (tmp_path / "hostname").write_text("mine\n")
    mounts = [("bind", str(tmp_path / "hostname"), "/etc/hostname", ["ro"])]
    assert read(named, "none", "cat /etc/hostname", mounts=mounts) == "mine\n"
    read(named, "none", "cat /etc/hostname", mounts=[("bind", str(tmp_path), "/etc", [])])
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostname"]
    assert (tmp_path / "hostname").read_text() == "mine\n"


def test_it_can_be_copied_out_and_the_plan_tells_it(named: sampan.Engine, tmp_path: pathlib.Path) -> None:
    made = named.containers.run(RunOptions(command=["sleep", "1000"], hostname="db"), image="named", detach=True)
    named.containers.copy_out(str(made), "/etc/hostname", str(tmp_path / "copy"))
    named.containers.remove(str(made), force=True)
    assert (tmp_path / "copy").read_text() == "db\n"
    words = named.containers.explain("named", options(["true"], None, {"hostname": "db"}))
    assert "bind the name db at /etc/hostname" in words
