"""Who a process in a container is: its capabilities, ids, groups and environment, whatever the image says of them."""

from __future__ import annotations

import os
import tarfile
import tempfile
import time

import pytest
from attackkit import ROOT, Image, command, resident, status

import sampan
from sampan.errors import InvalidArgument

# ---- 15, 17, 19, 20, 21: who a process is ----


def test_capabilities_are_the_same_for_run_and_exec_and_none_for_a_user(
    many_ids: None, engine: sampan.Engine, container: str
) -> None:
    for user, expected in (("", None), ("1000", 0)):
        words = ["run", "-d", *(("-u", user) if user else ()), "base", "sleep", "600"]
        name = command(engine, *words).stdout.decode().strip()
        first = status(open(f"/proc/{engine.containers.get(name).pid}/status", "rb").read())
        other = status(command(engine, "exec", name, "cat", "/proc/self/status").stdout)
        command(engine, "rm", "-f", name)
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
            assert first[key] == other[key], key
        assert int(other["CapInh"], 16) == int(other["CapAmb"], 16) == 0
        if expected is not None:
            assert int(other["CapEff"], 16) == expected
        assert other["Seccomp"].strip() == "2"


def test_no_new_privileges_is_kept_by_exec(engine: sampan.Engine) -> None:
    words = ["run", "-d", "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "base", "sleep", "600"]
    name = command(engine, *words).stdout.decode().strip()
    first = status(open(f"/proc/{engine.containers.get(name).pid}/status", "rb").read())
    other = status(command(engine, "exec", name, "cat", "/proc/self/status").stdout)
    command(engine, "rm", "-f", name)
    for key in ("CapBnd", "CapEff", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
        assert first[key] == other[key], key
    assert other["NoNewPrivs"].strip() == "1" and int(other["CapBnd"], 16) == 0


def test_an_unknown_capability_is_refused(engine: sampan.Engine) -> None:
    with pytest.raises(InvalidArgument):
        engine.run("base", ["true"], cap_add=["SYS_ALMIGHTY"])


IDS = ["2147483648", "4294967295", "4294967296", "9223372036854775808", "-1", "0x0", "+0", "99999999999999999999"]


@pytest.mark.parametrize("user", IDS)
def test_an_id_out_of_range_is_no_one_even_when_it_is_a_name(engine: sampan.Engine, attack: str, user: str) -> None:
    lines = "".join(f"{name}:x:0:0::/:\n" for name in IDS if name != "0x0").encode()
    name = Image(attack).add("etc/passwd", lines).load(engine, "ids")
    with pytest.raises(InvalidArgument):
        engine.run(name, ["/attack", "fds"], user=user)
    with pytest.raises(InvalidArgument):
        engine.run(name, ["/attack", "fds"], user=f"0:{user}")


def test_a_numeric_name_does_not_redirect_a_number(many_ids: None, engine: sampan.Engine) -> None:
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write('FROM base\nRUN echo "1000:x:0:0::/:" >> /etc/passwd\n')
        engine.build(context, tags=["numeric"])
    assert engine.run("numeric", ["id", "-u"], user="1000").stdout == b"1000\n"


def test_supplementary_groups_are_exact(many_ids: None, engine: sampan.Engine, image: str, attack: str) -> None:
    made = (
        Image(attack).add("etc/passwd", b"app:x:1000:1000::/:\n").add("etc/group", b"app:x:1000:\nextra:x:2000:app\n")
    )
    name = made.load(engine, "groups")
    with tempfile.TemporaryDirectory():
        container = command(engine, "run", "-d", "-u", "app", "--group-add", "77", name, "/attack", "sleep", "600")
    try:
        record = engine.containers.get(container.stdout.decode().strip())
        seen = status(open(f"/proc/{record.pid}/status", "rb").read())
        if ROOT:
            assert seen["Uid"].split() == ["1000"] * 4 and seen["Gid"].split() == ["1000"] * 4
            assert seen["Groups"].split() == ["77", "1000", "2000"]
        else:
            assert len(seen["Groups"].split()) == 3
    finally:
        command(engine, "rm", "-f", container.stdout.decode().strip())


def test_a_group_that_may_not_read_does_not(many_ids: None, engine: sampan.Engine) -> None:
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write("FROM base\nCOPY --chown=0:3000 --chmod=0604 denied /denied\n")
        with open(context + "/denied", "w", encoding="ascii") as file:
            file.write("secret")
        engine.build(context, tags=["denied"])
    assert engine.run("denied", ["cat", "/denied"], user="1000:1000").stdout == b"secret"
    refused = engine.run("denied", ["cat", "/denied"], user="1000:1000", group_add=["3000"])
    assert refused.exit_code != 0 and refused.stdout == b""


@pytest.mark.parametrize(
    "kind",
    ["fifo", "directory", "link out", "link to a descriptor", "device", "long line", "many lines", "nul", "bytes"],
)
def test_traps_in_place_of_passwd_are_quick_and_read_nothing(engine: sampan.Engine, attack: str, kind: str) -> None:
    made = Image(attack)
    if kind == "fifo":
        made.add("etc/passwd", kind=tarfile.FIFOTYPE)
    elif kind == "directory":
        made.add("etc/passwd", kind=tarfile.DIRTYPE)
    elif kind == "link out":
        made.link("etc/passwd", "../../../../../../../../etc/passwd").link("etc/group", "/proc/1/root/etc/group")
    elif kind == "link to a descriptor":
        made.link("etc/passwd", "/proc/self/fd/9/../../../../../etc/passwd").link("etc/group", "/proc/self/fd/3")
    elif kind == "device":
        made.link("etc/passwd", "/dev/zero").link("etc/group", "/dev/tty")
    elif kind == "long line":
        made.add("etc/passwd", b"a" * (6 << 20))
    elif kind == "many lines":
        made.add("etc/passwd", b"a:x:1:1::\n" * 600_000).add("etc/group", b"\n" * (5 << 20))
    elif kind == "nul":
        made.add("etc/passwd", b"daemon\0:x:0:0::/:\ndaemon:x:\0:0::/:\n")
    else:
        made.add("etc/passwd", b"\xff\xfe\x80:\xff:\n" * 100)
    name = made.load(engine, "passwd")
    begun, before = time.process_time(), resident()
    # daemon is in every host's file, and in none of these.
    with pytest.raises(InvalidArgument, match="no such user"):
        engine.run(name, ["/attack", "fds"], user="daemon")
    if engine.host.counts()[0] > 12345:
        assert engine.run(name, ["/attack", "fds"], user="12345").exit_code == 0
    assert time.process_time() - begun < 5
    assert resident() - before < 64 << 20


@pytest.mark.parametrize("number", range(3, 16))
def test_no_descriptor_leads_to_the_hosts_accounts(engine: sampan.Engine, attack: str, number: int) -> None:
    out = f"/proc/self/fd/{number}" + "/.." * 14
    made = Image(attack).link("etc/passwd", out + "/etc/passwd").link("etc/group", out + "/etc/group")
    with pytest.raises(InvalidArgument, match="no such user"):
        engine.run(made.load(engine, "accounts"), ["/attack", "fds"], user="daemon")


def test_a_link_inside_the_image_to_passwd_works(engine: sampan.Engine, attack: str) -> None:
    made = Image(attack).add("nix/passwd", b"app:x:0:0::/:\n").link("etc/passwd", "/nix/passwd")
    assert engine.run(made.load(engine, "nix"), ["/attack", "fds"], user="app").exit_code == 0


@pytest.mark.parametrize("entry", ["SAMPAN_CANARY", "*", "SAMPAN_*", "SAMPAN_*=x", "=x", "A\nB=x", "A\0B=x"])
def test_a_malformed_environment_is_refused(engine: sampan.Engine, entry: str) -> None:
    from sampan.oci.spec import RunOptions

    options = RunOptions()
    options.env = [entry]
    with pytest.raises(InvalidArgument):
        engine.containers.create("base", options)


def test_nothing_of_the_hosts_environment_is_seen(engine: sampan.Engine, container: str) -> None:
    host = {**os.environ, "SAMPAN_CANARY": "host-secret", "LD_PRELOAD": ""}
    for words in (["run", "--rm", "base", "env"], ["run", "--rm", "-e", "OTHER=1", "base", "env"]):
        result = command(engine, *words, env=host)
        assert result.returncode == 0 and b"host-secret" not in result.stdout
