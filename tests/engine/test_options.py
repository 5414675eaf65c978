"""Options of run that are about names and about other containers, in real containers."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sampan
from sampan.engine import naming
from sampan.errors import Conflict, InvalidArgument, NotFound, NotSupported, SampanError
from sampan.oci.options import RunOptions


def out(engine: sampan.Engine, script: str, image: str = "base", **settings: Any) -> str:
    result = engine.run(image, ["sh", "-c", script], **settings)
    assert result.exit_code == 0, result
    return result.stdout.decode()


def test_hosts_without_a_network_are_localhost_and_what_was_added(engine: sampan.Engine) -> None:
    text = out(engine, "cat /etc/hosts", add_host=["db:10.1.2.3", "six=[2001:db8::1]"])
    assert "127.0.0.1\tlocalhost\n" in text
    assert text.endswith("10.1.2.3\tdb\n2001:db8::1\tsix\n")


def test_hosts_in_the_hosts_network_are_the_hosts_and_what_was_added(engine: sampan.Engine) -> None:
    text = out(engine, "cat /etc/hosts", add_host=["db:10.1.2.3"], network="host")
    assert text == pathlib.Path("/etc/hosts").read_text() + "10.1.2.3\tdb\n"


def test_added_hosts_are_there_at_the_second_start_too(engine: sampan.Engine) -> None:
    made = engine.containers.create(
        "base", RunOptions(command=["sh", "-c", "test -s /etc/hosts"], add_host=["a:1.2.3.4"])
    )
    try:
        assert engine.containers.start(made, attach=True) == 0
        assert engine.containers.start(made, attach=True) == 0
    finally:
        engine.containers.remove(made)


def test_resolver(engine: sampan.Engine) -> None:
    text = out(
        engine, "cat /etc/resolv.conf", dns=["192.0.2.1", "2001:db8::2"], dns_search=["a.org"], dns_option=["ndots:2"]
    )
    assert text == "nameserver 192.0.2.1\nnameserver 2001:db8::2\nsearch a.org\noptions ndots:2\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dns": ["9.9.9.9"]}, "nameserver 9.9.9.9\nsearch lan\noptions rotate\n"),
        ({"dns_search": ["."]}, "nameserver 1.1.1.1\noptions rotate\n"),
        ({"dns_option": ["debug"]}, "nameserver 1.1.1.1\nsearch lan\noptions debug\n"),
    ],
    ids=str,
)
def test_what_was_not_asked_for_is_the_hosts(options: dict[str, Any], expected: str) -> None:
    base = "# comment\nnameserver 1.1.1.1 # x\ndomain old\nsearch lan\noptions rotate\nsortlist 1.2.3.4\n"
    assert naming.resolver(base.replace("domain old\n", ""), options) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"add_host": ["nothing"]}, "NAME:ADDRESS"),
        ({"add_host": ["a b:1.2.3.4"]}, "NAME:ADDRESS"),
        ({"add_host": ["a:1.2.3"]}, "not an IP address"),
        ({"add_host": ["a:1.2.3.4\n"]}, "not an IP address"),
        ({"add_host": ["a:host-gateway"]}, "host-gateway"),
        ({"dns": ["dns.example.org"]}, "not an IP address"),
        ({"dns_search": ["a b"]}, "not a domain"),
        ({"dns_option": ["a\nnameserver 6.6.6.6"]}, "--dns-option"),
        ({"domainname": "a_b"}, "--domainname"),
        ({"domainname": "a", "uts": "host"}, "--uts host"),
        ({"add_host": ["a:1.2.3.4"], "tmpfs": ["/etc/hosts"]}, "another mount"),
        ({"volumes_from": ["no-such-container"]}, "no-such-container"),
        ({"ipc": "container:x"}, "--ipc"),
        ({"cgroupns": "x"}, "--cgroupns"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told(engine: sampan.Engine, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidArgument, NotFound, NotSupported)) as caught:
        engine.containers.create("base", RunOptions(command=["true"], **settings))
    assert message in caught.value.message


def test_a_link_of_the_image_where_a_name_should_go(engine: sampan.Engine, commit: Callable[..., None]) -> None:
    commit(engine, "linkedhosts", "mkdir -p /etc; ln -sf /elsewhere /etc/hosts")
    with pytest.raises(InvalidArgument, match="symbolic link"):
        engine.run("linkedhosts", ["true"], add_host=["a:1.2.3.4"])


def test_domain_name(engine: sampan.Engine) -> None:
    assert out(engine, "cat /proc/sys/kernel/domainname", domainname="ex.org") == "ex.org\n"


def test_ipc_none_has_no_shared_memory(engine: sampan.Engine) -> None:
    assert out(engine, "ls -d /dev/shm 2>/dev/null || echo none", ipc="none") == "none\n"
    assert out(engine, "ls -d /dev/shm", ipc="shareable") == "/dev/shm\n"


def test_cgroup_namespace_of_the_host(engine: sampan.Engine) -> None:
    if os.geteuid():
        pytest.skip("an ordinary user's container has a namespace of its own always")
    own = os.readlink("/proc/self/ns/cgroup")
    engine.bootstrap("host", "linkbase", ["readlink"])
    assert engine.run("linkbase", ["readlink", "/proc/self/ns/cgroup"], cgroupns="host").stdout.decode().strip() == own
    assert engine.run("linkbase", ["readlink", "/proc/self/ns/cgroup"]).stdout.decode().strip() != own


def test_volumes_from(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("shared\n")
    tmp_path.chmod(0o755)
    mounts = [("volume", "", "/data", ["rw"]), ("bind", str(tmp_path), "/t", ["ro"]), ("volume", "", "/mine", ["rw"])]
    first = engine.containers.create("base", RunOptions(command=["true"], mounts=mounts), name="lender")
    try:
        assert out(engine, "echo x > /data/f; cat /t/f", volumes_from=["lender"]) == "shared\n"
        own = [("bind", str(tmp_path), "/mine", ["ro"])]
        script = "cat /data/f /mine/f; touch /data/g 2>/dev/null || echo read-only"
        assert out(engine, script, volumes_from=["lender:ro"], mounts=own) == "x\nshared\nread-only\n"
        with pytest.raises(InvalidArgument, match="ro or rw"):
            engine.run("base", ["true"], volumes_from=["lender:rx"])
        # What was borrowed without a name stays with its owner.
        assert out(engine, "cat /data/f", volumes_from=["lender"]) == "x\n"
    finally:
        engine.containers.remove(first, volumes=True)


def test_borrowed_volumes_are_in_use(engine: sampan.Engine) -> None:
    lender = engine.containers.create("base", RunOptions(command=["true"], mounts=[("volume", "borrowed", "/v", [])]))
    borrower = engine.containers.create("base", RunOptions(command=["true"], volumes_from=[lender]))
    engine.containers.remove(lender)
    with pytest.raises(SampanError, match="uses it"):
        engine.store.volumes.remove("borrowed")
    engine.containers.remove(borrower)
    engine.store.volumes.remove("borrowed")


@pytest.fixture(scope="module")
def linked(engine: sampan.Engine) -> Iterator[str]:
    """Make a running container whose namespaces can be compared."""
    engine.bootstrap("host", "sharing", ["sh", "readlink", "sleep", "cat"])
    yield str(engine.containers.run(RunOptions(command=["sleep", "300"]), image="sharing", name="owner", detach=True))
    engine.containers.remove("owner", force=True)
    engine.images.remove("sharing", force=True)


def namespaces(pid: int) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt", "user")}


def test_namespaces_of_another_container(engine: sampan.Engine, linked: str) -> None:
    """They are shared where asked, by exec too, and no others; as a user the user namespace that owns them is."""
    options = RunOptions(command=["sleep", "300"], pid="container:owner", network="container:" + linked[:12])
    guest = str(engine.containers.run(options, image="sharing", detach=True))
    try:
        mine, theirs = (namespaces(engine.containers.get(name).pid) for name in (guest, linked))
        same = {name for name in mine if mine[name] == theirs[name]}
        assert same == {"pid", "net", "user"}
        assert (
            engine.containers.exec(guest, ["sh", "-c", f"test $(readlink /proc/self/ns/net) = '{theirs['net']}'"]) == 0
        )
        host = engine.containers.inspect(guest)["HostConfig"]
        assert (host["PidMode"], host["NetworkMode"]) == (f"container:{linked}", f"container:{linked}")
        engine.containers.stop(guest)
        assert engine.containers.get(guest).exit_code == 143  # no PID 1: the signal just ends it
        assert engine.containers.get(linked).status == "running"
    finally:
        engine.containers.remove(guest, force=True)


def test_only_standard_streams_are_open_in_a_shared_namespace(engine: sampan.Engine, linked: str) -> None:
    script = "for fd in /proc/self/fd/*; do readlink $fd >/dev/null && echo ${fd##*/}; done"
    found = engine.run("sharing", ["sh", "-c", script], pid="container:owner").stdout.split()
    assert set(found) <= {b"0", b"1", b"2", b"3"}  # 3 is the shell's own, of the listing


def test_a_guest_ends_with_the_owner_of_its_process_namespace(engine: sampan.Engine) -> None:
    owner = str(engine.containers.run(RunOptions(command=["sleep", "300"]), image="base", detach=True))
    options = RunOptions(command=["sleep", "300"], pid=f"container:{owner}")
    guest = str(engine.containers.run(options, image="base", detach=True))
    try:
        engine.containers.remove(owner, force=True)
        assert engine.containers.wait(guest) == 137
        with pytest.raises(NotFound):
            engine.containers.start(guest)
    finally:
        engine.containers.remove(guest, force=True)


def test_a_shared_namespace_needs_its_owner_running(engine: sampan.Engine) -> None:
    owner = engine.containers.create("base", RunOptions(command=["true"]), name="asleep")
    try:
        with pytest.raises(Conflict, match="asleep, which does not run"):
            engine.run("base", ["true"], pid="container:asleep")
        with pytest.raises(InvalidArgument, match="--hostname and --network"):
            engine.run("base", ["true"], network="container:asleep", hostname="x")
    finally:
        engine.containers.remove(owner)
    with pytest.raises(NotFound, match="no-such"):
        engine.run("base", ["true"], network="container:no-such")
