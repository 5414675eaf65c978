"""The supervisor and its kin: in reach of no container, whatever namespaces are shared; no odd client upsets it."""

from __future__ import annotations

import _struct
import os
import socket
from collections.abc import Iterator

import pytest
from attackkit import ROOT, command, parent_of
from waiting import until

import sampan
from sampan.engine import restarting


@pytest.fixture
def owner(engine: sampan.Engine) -> Iterator[str]:
    """Make a container whose namespaces are shared."""
    result = command(engine, "run", "-d", "base", "sleep", "600")
    assert result.returncode == 0, result.stderr
    name = result.stdout.decode().strip()
    yield name
    command(engine, "rm", "-f", name)


def namespaces(pid: int | str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "pid_for_children", "net", "user", "mnt")}


def started(engine: sampan.Engine, owner: str, *words: str) -> str:
    shared = (f"--pid=container:{owner}", f"--network=container:{owner}")
    result = command(engine, "run", "-d", *shared, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


def test_a_supervisor_joins_none_of_the_namespaces_that_its_container_shares(engine: sampan.Engine, owner: str) -> None:
    """Its health checks and clean-up would be born in reach of the other container, with the host's files in view."""
    guest = started(engine, owner, "base", "sleep", "600")
    try:
        pid, theirs = engine.containers.get(guest).pid, namespaces(engine.containers.get(owner).pid)
        control = namespaces(pid)
        assert (control["pid"], control["net"], control["user"]) == (theirs["pid"], theirs["net"], theirs["user"])
        assert namespaces(parent_of(pid)) == namespaces("self")
    finally:
        command(engine, "rm", "-f", guest)


def test_who_starts_a_container_again_waits_outside_of_what_it_shares(engine: sampan.Engine, owner: str) -> None:
    guest = started(engine, owner, "--restart=always", "base", "false")
    try:
        home = engine.store.paths.container(guest)

        def seen() -> dict[str, str] | None:
            waiter = restarting.waiter(home, engine.containers.get(guest).boot_id)
            try:
                return namespaces(waiter.pid) if waiter else None
            except OSError:  # its pause was over meanwhile; the next one is longer
                return None

        assert until(seen) == namespaces("self")
    finally:
        command(engine, "rm", "-f", guest)


def test_a_fourth_descriptor_of_a_client_lands_nowhere(engine: sampan.Engine, owner: str) -> None:
    supervisor = parent_of(engine.containers.get(owner).pid)
    before = len(os.listdir(f"/proc/{supervisor}/fd"))
    for count in (4, 8, 2):
        client = socket.socket(socket.AF_UNIX)
        client.connect(engine.containers.socket(owner))
        null = os.open("/dev/null", os.O_RDWR)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _struct.pack(f"{count}i", *[null] * count))
        client.sendmsg([_struct.pack("<HH28s", 0, 0, b"")], [rights])
        os.close(null)
        assert client.recv(1) == b""  # it is turned away
        client.close()
    assert engine.containers.get(owner).status == "running"
    assert parent_of(engine.containers.get(owner).pid) == supervisor
    # It may only now have seen its caller go, and it hangs up before it closes the rest.
    until(lambda: len(os.listdir(f"/proc/{supervisor}/fd")) <= before)


def test_who_may_trace_processes_inside_gets_no_rights_of_what_enters(engine: sampan.Engine, image: str) -> None:
    """An exec's or a health check's helper has all rights and no filter before it is the program."""
    words = ("--cap-add=SYS_PTRACE", "--health-cmd=/attack exit 0", "--health-interval=100ms")
    result = command(engine, "run", "-d", *words, image, "/attack", "trace", "600")
    assert result.returncode == 0, result.stderr
    name = result.stdout.decode().strip()
    try:
        for number in range(300):
            if number >= 12 and len(told := command(engine, "logs", name).stdout.decode().splitlines()) > 1:
                break
            assert command(engine, "exec", name, "/attack", "exit", "3").returncode == 3
            if not ROOT:  # of root's, who traces with the host's own right sees the set-up of what joins (security.md)
                joined = command(engine, "run", "--rm", f"--pid=container:{name}", image, "/attack", "exit", "3")
                assert joined.returncode == 3
        status = open(f"/proc/{engine.containers.get(name).pid}/status", encoding="ascii").readlines()
        own = next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm:"))
    finally:
        command(engine, "rm", "-f", name)
    assert told[0] == "tracing" and len(told) > 1, "nothing was traced: the attack shows nothing"
    assert not [line for line in told if line.startswith("CapPrm:") and int(line.split()[1], 16) & ~own]
    assert {line.split()[1] for line in told[1:] if line.startswith("Seccomp:")} == {"2"}
