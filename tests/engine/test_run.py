"""Real containers: what a program sees, how it ends, what is left."""

from __future__ import annotations

import os
import pathlib
import select
import subprocess
import sys
import threading
import time

import pytest
from waiting import until

import sampan
from sampan.errors import Conflict, InvalidArgument, NotFound, NotSupported, SampanError
from sampan.runtime import launch
from sampan.runtime import plan as p
from sampan.runtime.plan import Plan
from sampan.store import files


def out(engine: sampan.Engine, *args: str, **settings: object) -> str:
    result = engine.run("base", list(args), **settings)  # type: ignore[arg-type]
    assert result.exit_code == 0, result
    return result.stdout.decode()


def test_output_and_exit_code_are_the_programs(engine: sampan.Engine) -> None:
    result = engine.run("base", ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_a_signal_ends_as_128_plus_its_number(engine: sampan.Engine) -> None:
    # PID 1 takes no KILL from inside its namespace, its child does.
    assert engine.run("base", ["sh", "-c", "(kill -9 $$; :) & sh -c 'kill -9 $$'; exit $?"]).exit_code == 137


def test_input_is_passed(engine: sampan.Engine) -> None:
    data = b"x" * 300_000
    assert engine.run("base", ["cat"], input=data).stdout == data


def test_timeout_kills(engine: sampan.Engine) -> None:
    result = engine.run("base", ["sleep", "60"], timeout=0.3)
    assert result.timed_out and result.exit_code == 137


def test_the_program_is_alone(engine: sampan.Engine) -> None:
    text = out(
        engine, "sh", "-c", "echo $$; ls /proc | head -3; ls /sys/class/net; id -u; cat /proc/sys/kernel/hostname"
    )
    lines = text.split()
    assert lines[0] == "1" and "lo" in lines and "0" in lines
    assert os.uname().nodename not in lines


def test_a_container_with_limits_sees_its_own_groups_as_the_root(engine: sampan.Engine) -> None:
    """Its cgroup namespace is made within its groups, on v1 too: nothing of the host's tree is seen."""
    try:
        text = out(engine, "cat", "/proc/self/cgroup", pids_limit=50)
    except NotSupported as lack:
        pytest.skip(f"this user may not make cgroups: {lack}")
    assert {line.split(":", 2)[2] for line in text.splitlines()} == {"/"}


def test_default_capabilities_are_dockers(engine: sampan.Engine) -> None:
    status = out(engine, "cat", "/proc/self/status")
    table = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    host = int(next(line for line in open("/proc/self/status") if line.startswith("CapBnd")).split()[1], 16)
    expected = 0xA80425FB & (host if os.geteuid() == 0 else ~0)
    assert int(table["CapEff"], 16) == int(table["CapBnd"], 16) == expected
    assert int(table["CapInh"], 16) == int(table["CapAmb"], 16) == 0
    assert table["Seccomp"].strip() == "2"


def test_only_three_descriptors_are_open(engine: sampan.Engine) -> None:
    listing = out(engine, "sh", "-c", "ls /proc/1/fd").split()
    assert listing == ["0", "1", "2"]


def test_image_and_host_environment_do_not_mix(engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_CANARY", "host")
    text = out(engine, "env", env={"ASKED": "yes"})
    assert "ASKED=yes" in text and "CANARY" not in text and "HOME=/root" in text


def test_masked_paths_are_empty_and_proc_sys_is_read_only(engine: sampan.Engine) -> None:
    text = out(
        engine,
        "sh",
        "-c",
        "cat /proc/keys /proc/timer_list; ls /sys/firmware; echo 1 2>&1 > /proc/sys/kernel/domainname; :",
    )
    assert text.strip() == "" or "nonexistent" in text or "Read-only" in text
    assert os.path.getsize("/proc/version") == 0


def test_unknown_image_names_it(engine: sampan.Engine) -> None:
    with pytest.raises(NotFound, match="nothere"):
        engine.run("nothere", ["true"])


def test_missing_program_is_127(engine: sampan.Engine) -> None:
    with pytest.raises(SampanError, match="no-such-program") as caught:
        engine.run("base", ["no-such-program"])
    assert caught.value.exit_code == 127


def test_directory_as_program_is_126(engine: sampan.Engine) -> None:
    with pytest.raises(SampanError) as caught:
        engine.run("base", ["/etc"])
    assert caught.value.exit_code == 126


def test_unknown_user_is_refused(engine: sampan.Engine) -> None:
    with pytest.raises(InvalidArgument, match="nosuchuser"):
        engine.run("base", ["true"], user="nosuchuser")


@pytest.mark.parametrize("user", ["4294967295", "2147483648", "99999999999", "-1"])
def test_ids_out_of_range_never_become_root(engine: sampan.Engine, user: str) -> None:
    with pytest.raises(InvalidArgument):
        engine.run("base", ["true"], user=user)


@pytest.mark.parametrize("written", ["", "upper/file", "upper/directory/", "work/work/incompat/else"])
def test_a_home_goes_at_once_only_if_nothing_was_written(tmp_path: pathlib.Path, written: str) -> None:
    home = tmp_path / "home"
    for name in ("upper", "work/work/incompat/volatile"):
        (home / name).mkdir(parents=True)
    (home / "work/work/incompat/volatile/dirty").touch()
    if written.endswith("/"):
        (home / written).mkdir()
    elif written:
        (home / written).touch()
    assert files.remove_untouched_home(str(home)) is not bool(written)
    assert (home / written).exists() == bool(written)
    assert files.remove_untouched_home(str(tmp_path / "missing"))


def test_nothing_is_left_behind(engine: sampan.Engine) -> None:
    def counts() -> tuple[int, int, int]:
        fds = len(os.listdir("/proc/self/fd"))
        mounts = sum(1 for _ in open("/proc/self/mountinfo"))
        return fds, mounts, len(os.listdir(engine.store.paths.containers))

    engine.run("base", ["true"])
    before = counts()
    for _ in range(20):
        engine.run("base", ["true"])
    assert counts() == before
    assert engine.containers.ls(all=True) == []


def children() -> set[str]:
    return set(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def groups_of(ids: list[str]) -> list[str]:
    words = ["find", "/sys/fs/cgroup", "-type", "d", "-name", "sampan-*"]
    found = subprocess.run(words, capture_output=True, text=True).stdout.split()
    return [path for path in found if any(path.endswith(container_id) for container_id in ids)]


@pytest.mark.parametrize(
    ("image", "settings"),
    [
        ("base", {"security_opt": ["seccomp=/nonexistent/profile"]}),
        ("base", {"mounts": [("bind", "/tmp", f"/m{number}", []) for number in range(260)]}),
        ("base", {"user": "nobody-knows"}),
        ("base", {"hostname": "-"}),
        ("nothing", {}),
    ],
    ids=["filter", "mounts", "user", "hostname", "image"],
)
def test_what_fails_while_the_helper_is_at_work_leaves_nothing(
    engine: sampan.Engine, image: str, settings: dict[str, object]
) -> None:
    """The helper is started first, and makes the namespaces while the rest of the plan is compiled."""
    launch.reap()
    began, before, homes = time.time(), children(), os.listdir(engine.store.paths.containers)
    with pytest.raises(SampanError):
        engine.run(image, ["true"], **settings)  # type: ignore[arg-type]
    assert os.listdir(engine.store.paths.containers) == homes
    assert engine.containers.ls(all=True) == []
    ids = [event["Actor"]["ID"] for event in engine.events(since=began, until=time.time())]

    def is_clean() -> bool:
        launch.reap()
        return children() <= before and not groups_of(ids)

    until(is_clean)


@pytest.mark.parametrize("sent", [0, 9, 30])
def test_a_helper_ends_with_its_caller_before_it_has_the_whole_plan(sent: int) -> None:
    plan = Plan()
    plan.add(p.STDIO, "", 0, 0, "", flags=p.NULL_OUT)
    plan.add(p.CLONE, flags=p.NAMESPACES["uts"] | (p.NAMESPACES["user"] if os.geteuid() else 0))
    rest = Plan()
    rest.add(p.HOSTNAME, "half")
    child = launch.start(plan, -1, -1, -1)
    os.write(child.control, rest.encode()[:sent])
    watch = os.pidfd_open(child.helper_pid)
    try:
        assert not select.select([watch], [], [], 0.2)[0]  # control: it waits for the rest
        child.close()
        assert select.select([watch], [], [], 60)[0]
    finally:
        os.close(watch)
    launch.reap()


SPAWN = """
import itertools, os, sys
sys.path.append(sys.argv[1])
from sampan.runtime import launch
for number in range(8):
    os.dup2(os.memfd_create(f"file-{number}"), number) if number != 2 else None
name = lambda pid, fd: os.readlink(f"/proc/{pid}/fd/{fd}")
for order in itertools.permutations((0, 1, 2, 5, 6)):
    child = launch.spawn(*order)
    own = [name("self", fd) for fd in order]
    given = [name(child.helper_pid, fd) for fd in (0, 1, 2, 5, 6)]
    pipes = [name(child.helper_pid, fd) for fd in (3, 4)]
    assert given == own, (order, given, own)
    assert pipes == [name("self", child.control), name("self", child.reports)], (order, pipes)
    child.close()
"""


def test_the_helper_gets_its_descriptors_whatever_numbers_they_have() -> None:
    words = [sys.executable, "-c", SPAWN, str(pathlib.Path(sampan.__file__).parent.parent)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_several_threads_run_at_once(engine: sampan.Engine) -> None:
    results: list[bytes] = []

    def work(number: int) -> None:
        for _ in range(3):
            results.append(engine.run("base", ["sh", "-c", f"echo {number}"]).stdout)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{i}\n".encode() for i in range(4) for _ in range(3))


def detached(engine: sampan.Engine, *args: str, name: str = "", **settings: object) -> str:
    from sampan.engine.library import options

    created = engine.containers.run(options(list(args), None, dict(settings)), image="base", name=name, detach=True)
    assert isinstance(created, str)
    return created


def test_detached_life(engine: sampan.Engine, capfd: pytest.CaptureFixture[str]) -> None:
    container = detached(
        engine, "sh", "-c", "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.05; done", name="life"
    )
    assert engine.containers.get("life").status == "running"
    with pytest.raises(Conflict):
        engine.containers.remove("life")
    with pytest.raises(Conflict):
        detached(engine, "true", name="life")
    assert engine.containers.exec("life", ["sh", "-c", "echo inside > /tmp/mark; exit 4"]) == 4

    def says_hello() -> bool:
        engine.containers.logs(container[:12])
        return "hello" in capfd.readouterr().out

    until(says_hello)
    engine.containers.stop("life")
    assert engine.containers.get("life").status == "exited"
    assert engine.containers.get("life").exit_code == 3
    engine.containers.logs("life")
    assert capfd.readouterr().out == "hello\nbye\n"
    engine.containers.start("life")
    assert engine.containers.exec("life", ["cat", "/tmp/mark"]) == 0
    assert capfd.readouterr().out == "inside\n"
    engine.containers.remove("life", force=True)
    with pytest.raises(NotFound):
        engine.containers.get("life")


def test_stop_kills_what_does_not_listen(engine: sampan.Engine) -> None:
    detached(engine, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done", name="deaf")
    engine.containers.stop("deaf", timeout=0.2)
    assert engine.containers.get("deaf").exit_code == 137
    engine.containers.remove("deaf")


def test_wait_gives_the_code(engine: sampan.Engine) -> None:
    detached(engine, "sh", "-c", "sleep 0.1; exit 9", name="waited")
    assert engine.containers.wait("waited") == 9
    engine.containers.remove("waited")


def test_killed_supervisor_is_told_truly(engine: sampan.Engine) -> None:
    detached(engine, "sleep", "60", name="orphan")
    record = engine.containers.get("orphan")
    parent = int(open(f"/proc/{record.pid}/stat").read().rsplit(")", 1)[1].split()[1])
    os.kill(parent, 9)
    assert engine.containers.wait("orphan") == 137
    assert engine.containers.get("orphan").status == "exited"
    engine.containers.remove("orphan")


def test_explain_runs_nothing(engine: sampan.Engine) -> None:
    from sampan.engine.library import options

    words = "\n".join(engine.containers.explain("base", options(["true"], None, {})))
    for expected in ("create namespaces", "pivot_root", "mask /proc/kcore", "system call filter", "execute true"):
        assert expected in words
    assert engine.containers.ls(all=True) == []


def test_explain_says_what_was_asked_in_words(engine: sampan.Engine) -> None:
    from sampan.engine.library import options

    asked = {"memory": "64m", "cpus": 0.5, "pids_limit": 9, "network": "host", "devices": ["/dev/zero:/dev/other"]}
    chosen = options(["true"], None, asked)
    chosen.mounts = [("volume", "named", "/n", []), ("volume", "", "/a", ["nocopy"])]
    words = engine.containers.explain("base", chosen)
    expected = ["bind volume named at /n (read-write)", "bind a new volume at /a (read-write)"]
    expected += ["limit memory to 67108864 bytes", "limit CPU time to 0.5 CPUs", "limit processes to 9"]
    expected += ["start in a cgroup of its own", "bind the container's copy of /etc/hosts at /etc/hosts (read-write)"]
    expected.append("bind the host's /dev/zero at /dev/other" if os.geteuid() else "create device /dev/other (1:5)")
    assert [text for text in expected if text not in words] == []
    assert [text for text in words if text.startswith("allow devices: ")] or os.geteuid()
    assert os.listdir(engine.store.paths.volumes) == []


def test_read_only_root(engine: sampan.Engine) -> None:
    assert engine.run("base", ["touch", "/x"], read_only=True).exit_code != 0
    assert engine.run("base", ["touch", "/x"]).exit_code == 0


def test_memory_limit_bites(engine: sampan.Engine) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a delegated memory controller")
    result = engine.run(
        "base", ["dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1"], memory="20m", memory_swap="20m"
    )
    assert result.exit_code != 0 and result.oom_killed


def test_bind_mounts_follow_the_callers_directory(engine: sampan.Engine, tmp_path: object) -> None:
    directory = str(tmp_path)
    os.chmod(directory, 0o777)
    mounts = [("bind", directory, "/data", ["rbind"])]
    assert engine.run("base", ["sh", "-c", "echo hi > /data/file"], mounts=mounts).exit_code == 0
    with open(directory + "/file") as file:
        assert file.read() == "hi\n"
    readonly = [("bind", directory, "/data", ["rbind", "ro"])]
    assert engine.run("base", ["sh", "-c", "echo no > /data/file"], mounts=readonly).exit_code != 0
