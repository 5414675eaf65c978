"""Mount points that the image chooses: where its links lead, nothing of the host is made, changed or mounted on."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import pytest
from attackkit import Image, command, in_terminal

import sampan
from sampan.errors import SampanError


@pytest.fixture
def canary() -> Iterator[str]:
    """Give a directory of the host's that is no image's, with a file in it."""
    with tempfile.TemporaryDirectory(prefix="sampan-canary-", dir="/var/tmp") as directory:
        with open(directory + "/file", "w", encoding="ascii") as file:
            file.write("alive")
        yield directory


def seen(directory: str) -> list[tuple[str, int, int, bytes]]:
    found = []
    for name in sorted(os.listdir(directory)):
        state = os.lstat(f"{directory}/{name}")
        found.append((name, state.st_mode, state.st_uid, open(f"{directory}/{name}", "rb").read()))
    return found


def naive_mount_point(root: str, target: str, is_file: bool) -> None:
    """Make a mount point by its path, as runtimes did before they resolved below a descriptor of the root."""
    path = os.path.realpath(root + target)
    if is_file:
        with open(path, "a", encoding="ascii"):
            return
    os.makedirs(path, exist_ok=True)


# What the image has at /d, {} being the canary directory: each leads out where the kernel follows it from the host.
LINKS = {
    "absolute": "{}/made",
    "up": "../../../../../../../../../..{}/made",
    "up once": "..{}/made",
    "up after a directory": "etc/../../../..{}/made",
    "up through a link": "up/..{}/made",
    "through proc": "/proc/self/root{}/made",
}
WAYS: dict[str, Callable[[str], list[str]]] = {
    "file": lambda source: ["-v", f"{source}/file:/d"],
    "directory": lambda source: ["-v", f"{source}:/d"],
    "volume": lambda source: ["-v", "/d"],
    "tmpfs": lambda source: ["--tmpfs", "/d"],
    "workdir": lambda source: ["-w", "/d"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("link", LINKS)
def test_a_mount_point_that_is_a_link_is_made_inside_or_refused(
    engine: sampan.Engine, attack: str, canary: str, link: str, way: str
) -> None:
    # The path of the attacked directory does not exist in the image, so that it has to be made somewhere.
    made = Image(attack).link("d", LINKS[link].format(canary)).link("up", "..").add("etc/x")
    before = seen(canary)
    with tempfile.TemporaryDirectory() as source:
        with open(source + "/file", "w", encoding="ascii") as file:
            file.write("mounted")
        command(engine, "run", "--rm", *WAYS[way](source), made.load(engine, "links"), "/attack", "fds")
    assert seen(canary) == before


@pytest.mark.parametrize("link", [link for link in LINKS if link not in ("through proc", "up", "up after a directory")])
def test_the_control_of_links_leads_out(canary: str, link: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        # As deep as "/" is: one level up leaves the root.
        depth = "/".join([".."] * root.count("/"))
        os.symlink(LINKS[link].format(canary).replace("..", depth, 1), root + "/d")
        os.symlink("..", root + "/up")
        before = seen(canary)
        naive_mount_point(root, "/d", is_file=True)
        assert seen(canary) != before


@pytest.mark.parametrize("network", ["none", "host"])
@pytest.mark.parametrize("link", ["absolute", "up", "up once"])
def test_a_step_whose_mount_points_lie_behind_a_link_makes_nothing_outside(
    engine: sampan.Engine, commit: Callable[..., None], canary: str, link: str, network: str
) -> None:
    """A step has resolv.conf, hosts and hostname bound below /etc."""
    commit(engine, "linked", f"rm -rf /etc; ln -s {LINKS[link].format(canary)} /etc")
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write("FROM linked\nRUN : > /seen; echo x > /etc/resolv.conf || true\n")
        before = seen(canary)
        engine.build(context, network=network, no_cache=True)
        assert seen(canary) == before
    engine.images.remove("linked", force=True)


# ---- 10: odd mounts that are right ----

ODD = {
    "space": "a b",
    "newline": "a\nb",
    "backslash": "a\\040b",
    "comma and quotes": "a,b\"c'",
    "not UTF-8": os.fsdecode(b"a\xffb"),
    "hash": "#a",
    "long": "n" * 255,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_mounts_work(engine: sampan.Engine, image: str, tmp_path: object, name: str) -> None:
    source = f"{tmp_path}/{ODD[name]}"
    os.mkdir(source)
    with open(source + "/file", "w", encoding="ascii") as file:
        file.write("inside")
    result = engine.run(
        "base",
        ["cat", f"/mnt/{ODD[name]}/file", f"/one {ODD[name]}"[:250]],
        mounts=[
            ("bind", source, f"/mnt/{ODD[name]}", ["ro"]),
            ("bind", source + "/file", f"/one {ODD[name]}"[:250], []),
        ],
    )
    assert result.stdout == b"insideinside", result


def test_a_destination_with_a_colon_is_possible_with_mount(engine: sampan.Engine, tmp_path: object) -> None:
    os.mkdir(f"{tmp_path}/a:b")
    words = [
        "run",
        "--rm",
        "--mount",
        f"type=bind,source={tmp_path}/a:b,target=/x:y",
        "base",
        "stat",
        "-c",
        "%F",
        "/x:y",
    ]
    assert command(engine, *words).stdout == b"directory\n"


LINKED = {
    "absolute": ("/srv/real", "/srv/real"),
    "relative": ("srv/real", "/srv/real"),
    "dangling absolute": ("/nowhere/real", "/nowhere/real"),
    "dangling relative": ("../nowhere/real", "/nowhere/real"),
    "dangling beside": ("real", "/real"),
    "chain": ("/second", "/third/real"),
}


@pytest.mark.parametrize("kind", ["file", "directory", "tmpfs"])
@pytest.mark.parametrize("link", LINKED)
def test_a_linked_destination_is_mounted_where_it_leads(
    engine: sampan.Engine, tmp_path: object, link: str, kind: str
) -> None:
    target, place = LINKED[link]
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write("FROM base\nCOPY links /\n")
        os.makedirs(context + "/links/srv")
        os.symlink(target, context + "/links/d")
        os.symlink("/third/real", context + "/links/second")
        engine.build(context, tags=["linked"])
    with open(f"{tmp_path}/file", "w", encoding="ascii") as file:
        file.write("mounted")
    source = f"{tmp_path}/file" if kind == "file" else str(tmp_path)
    words = ["--tmpfs", "/d"] if kind == "tmpfs" else ["-v", f"{source}:/d"]
    script = f"while read a b c d place rest; do [ $place = {place} ] && echo mounted; done < /proc/self/mountinfo"
    result = command(engine, "run", "--rm", *words, "linked", "sh", "-c", script)
    assert result.stdout == b"mounted\n", result


def test_a_looped_destination_is_refused(engine: sampan.Engine, attack: str, tmp_path: object) -> None:
    name = Image(attack).link("loop", "loop2").link("loop2", "loop").load(engine, "loop")
    with open(f"{tmp_path}/file", "w", encoding="ascii") as file:
        file.write("x")
    for source in (f"{tmp_path}/file", str(tmp_path)):
        with pytest.raises(SampanError, match="Too many levels"):
            engine.run(name, ["/attack", "fds"], mounts=[("bind", source, "/loop", [])])


def test_mounts_work_on_a_read_only_root(engine: sampan.Engine, tmp_path: object) -> None:
    script = "echo 1 > /made/here/x && echo 2 > /t/x && cat /made/here/x /t/x; echo 3 > /x"
    words = ["run", "--rm", "--read-only", "-v", f"{tmp_path}:/made/here", "--tmpfs", "/t", "base", "sh", "-c", script]
    result = command(engine, *words)
    assert result.stdout == b"1\n2\n" and b"ead-only" in result.stderr, result


def test_a_tmpfs_within_a_volume_is_mounted_after_it(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    words = ["run", "--rm", "--tmpfs", "/data/here", "-v", f"{tmp_path}:/data", "base", "sh", "-c"]
    result = command(engine, *words, "echo x > /data/here/file && ls /data/here")
    assert result.stdout == b"file\n", result
    assert list((tmp_path / "here").iterdir()) == []


# ---- 6, 7, 8: fake devices and a fake /proc ----


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/victim"])
def test_masks_are_the_hosts_null_device_whatever_the_image_has(
    engine: sampan.Engine, attack: str, target: str
) -> None:
    """CVE-2025-31133: what is bound over a masked file must not be the image's idea of /dev/null."""
    name = Image(attack).add("victim", b"kept").add("dev/x").link("dev/null", target).load(engine, "fakenull")
    started = command(engine, "run", "-d", name, "/attack", "sleep", "600").stdout.decode().strip()
    record = engine.containers.get(started)
    try:
        root = f"/proc/{record.pid}/root"
        assert os.stat(f"{root}/dev/null").st_rdev == os.makedev(1, 3)
        with open(f"/proc/{record.pid}/mountinfo", encoding="utf-8") as file:
            masked = [line.split()[3] for line in file if line.split()[4] in ("/proc/keys", "/proc/timer_list")]
        assert masked and set(masked) == {"/null"}
    finally:
        command(engine, "rm", "-f", started)


@pytest.mark.parametrize("descriptor", range(6, 16))
def test_links_in_a_dev_that_is_a_volume_lead_nowhere(
    engine: sampan.Engine, attack: str, canary: str, descriptor: int
) -> None:
    """While the root is made ready a descriptor leads to the host; a device's mode must not be set through a link."""
    os.chmod(canary + "/file", 0o600)
    made = Image(attack)
    for name in ("null", "zero", "full", "random", "urandom", "tty", "console"):
        made.link(f"dev/{name}", f"/proc/self/fd/{descriptor}{canary}/file")
    before = seen(canary)
    made.load(engine, "devices", ("VOLUME /dev",))
    for words in ([], ["-t"]):
        command(engine, "run", "--rm", *words, "devices", "/attack", "fds")
    assert seen(canary) == before


def test_what_is_mounted_at_dev_is_taken_as_it_is_with_our_own_below_it(
    engine: sampan.Engine, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "mine").touch()
    words = ["run", "--rm", "-t", "-v", f"{tmp_path}:/dev", "base"]
    script = "ls /dev; while read a b c d place rest; do echo $place; done < /proc/self/mountinfo"
    shown = in_terminal(engine.command([*words, "sh", "-c", script])).decode().split()
    assert {"mine", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console"} <= set(shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["console", "mine", "mqueue", "pts", "shm"]


def test_a_volume_of_the_image_below_proc_is_refused(engine: sampan.Engine, attack: str) -> None:
    for place in ("/proc", "/proc/self/attr", "/proc/sys/kernel"):
        name = Image(attack).load(engine, "volume", (f"VOLUME {place}",))
        with pytest.raises(SampanError, match="inside /proc"):
            engine.run(name, ["/attack", "fds"])


@pytest.mark.parametrize("kind", ["directory", "file inside"])
def test_settings_reach_the_real_procfs(engine: sampan.Engine, kind: str) -> None:
    """CVE-2019-16884, 2025-52881: the image has files where procfs will be; sysctls and scores must not end in them."""
    with tempfile.TemporaryDirectory() as context:
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write("FROM base\nCOPY proc /proc\n" if kind == "file inside" else "FROM base\n")
        os.makedirs(context + "/proc/self")
        os.makedirs(context + "/proc/sys/net/ipv4")
        for fake in ("proc/self/oom_score_adj", "proc/sys/net/ipv4/ip_forward"):
            with open(f"{context}/{fake}", "w", encoding="ascii") as file:
                file.write("fake")
        engine.build(context, tags=["fakeproc"])
    words = ["--sysctl", "net.ipv4.ip_forward=1", "--oom-score-adj", "500"]
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj"
    result = command(engine, "run", "--rm", *words, "fakeproc", "sh", "-c", script)
    assert result.stdout == b"1\n500\n", result


@pytest.mark.parametrize("network", ["none", "host"])
def test_the_hosts_processes_are_shown_masked(engine: sampan.Engine, network: str) -> None:
    """A user's container with --pid host has the host's procfs bound: masks and read-only paths hold there."""
    script = "cat /proc/keys /proc/timer_list; (echo x > /proc/sys/kernel/core_pattern) 2>&1; ls /proc"
    result = command(engine, "run", "--rm", "--pid", "host", "--network", network, "base", "sh", "-c", script)
    assert str(os.getpid()).encode() in result.stdout.split()
    assert b"ead-only file system" in result.stdout, result


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/null"])
def test_a_device_may_have_another_name(engine: sampan.Engine, source: str) -> None:
    words = ["run", "--rm", "--device", f"{source}:/dev/below/other", "base", "stat", "-c", "%t:%T", "/dev/below/other"]
    assert command(engine, *words).stdout == (b"1:5\n" if source == "/dev/zero" else b"1:3\n")
