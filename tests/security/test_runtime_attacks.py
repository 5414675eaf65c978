"""What a hostile image or container tries, against real containers; docs/security names the advisories behind it.

The attacks are in attack.c, linked statically: it runs in images that hold nothing else.  Where an attack would prove
nothing by failing, it is first seen to work outside of a container.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest
from attackkit import ROOT, Image, answers, command, descendants, gone, in_terminal, resident, status, table

import sampan
from sampan.errors import InvalidArgument, SampanError
from sampan.runtime import cgroup, launch

# ---- 1, 3, 4: the runtime's own program and descriptors ----


def host_files(engine: sampan.Engine) -> list[str]:
    package = os.path.dirname(os.path.abspath(sampan.__file__))
    return [launch.helper_path(), os.path.realpath(sys.executable), os.path.join(package, "runtime", "launch.py")]


def hashes(files: list[str]) -> list[str]:
    return [hashlib.sha256(open(name, "rb").read()).hexdigest() for name in files]


def test_a_container_cannot_overwrite_the_helper(engine: sampan.Engine, image: str, container: str) -> None:
    files = host_files(engine)
    before = hashes(files)
    running = subprocess.Popen(
        engine.command(["exec", container, "/attack", "overwrite", "3000"]), stdout=subprocess.PIPE
    )
    for _ in range(6):
        command(engine, "exec", container, "/proc/self/exe")
    result = engine.run(image, ["/proc/self/exe"])
    running.kill()
    running.communicate()
    assert result.exit_code != 0
    assert hashes(files) == before
    with open(launch.helper_path(), "rb") as helper:
        assert helper.read(4) == b"\x7fELF"


def test_the_helper_runs_from_a_sealed_file(engine: sampan.Engine, container: str) -> None:
    import fcntl

    record = engine.containers.get(container)
    parent = next(
        line.split()[1] for line in open(f"/proc/{record.pid}/status", encoding="ascii") if line.startswith("PPid")
    )
    assert os.readlink(f"/proc/{parent}/exe").startswith("/memfd:")
    fd = os.open(f"/proc/{parent}/exe", os.O_RDONLY)
    seals = fcntl.fcntl(fd, 1034)  # F_GET_SEALS
    os.close(fd)
    assert seals & 0xF == 0xF


def naive_escape(attack: str) -> str:
    """Chroot with a descriptor of the host left open, and start in it: what CVE-2024-21626 used."""
    with tempfile.TemporaryDirectory() as jail:
        shutil.copy(attack, jail + "/attack")
        host = os.open("/", os.O_RDONLY)

        def enter() -> None:
            os.chroot(jail)
            os.fchdir(host)

        try:
            return subprocess.run(
                ["/attack", "where"], preexec_fn=enter, capture_output=True, check=True
            ).stdout.decode()
        finally:
            os.close(host)


@pytest.mark.skipif(not ROOT, reason="the control needs chroot(2)")
def test_the_control_of_leaked_directories_escapes(attack: str) -> None:
    assert naive_escape(attack).startswith("(unreachable)")


@pytest.mark.parametrize("number", [*range(3, 20), 100, 1023])
def test_no_descriptor_leads_a_path_of_the_image_out(engine: sampan.Engine, image: str, number: int) -> None:
    # The program is reached through the descriptor, as are its directory and the host's own file system above it.
    climb = "../" * 14 + os.path.realpath(shutil.which("true") or "/bin/true").lstrip("/")
    with pytest.raises(SampanError, match="no such file|Permission|not found"):
        engine.run(image, [f"/proc/self/fd/{number}/{climb}"])


@pytest.mark.parametrize("place", ["/proc/self/fd/{}", "/proc/thread-self/fd/{}", "/proc/1/fd/{}", "/link{}"])
def test_no_descriptor_is_a_working_directory(engine: sampan.Engine, attack: str, place: str) -> None:
    made = Image(attack)
    for number in range(3, 12):
        made.link(f"link{number}", f"/proc/self/fd/{number}")
    name = made.load(engine, "cwd")
    for number in range(3, 12):
        try:
            result = engine.run(name, ["/attack", "where"], workdir=place.format(number))
        except SampanError as error:
            assert "cannot enter directory" in str(error)
        else:
            assert result.stdout.startswith(b"/") and b"unreachable" not in result.stdout


def test_exec_enters_no_descriptor_either(engine: sampan.Engine, container: str) -> None:
    for number in range(3, 12):
        result = command(engine, "exec", "-w", f"/proc/self/fd/{number}", container, "/attack", "where")
        assert result.returncode != 0 and b"cannot enter directory" in result.stderr


def test_programs_have_three_descriptors_on_every_way_in(engine: sampan.Engine, image: str, container: str) -> None:
    spare = os.open("/", os.O_RDONLY)
    os.set_inheritable(spare, True)
    try:
        words = {
            "run": ["run", "--rm", image, "/attack", "fds"],
            "init": ["run", "--rm", "--init", image, "/attack", "fds"],
            "kept": ["run", image, "/attack", "fds"],
            "tty": ["run", "--rm", "-t", image, "/attack", "fds"],
            "exec": ["exec", container, "/attack", "fds"],
            "exec tty": ["exec", "-t", container, "/attack", "fds"],
        }
        for way, line in words.items():
            result = command(engine, *line, close_fds=False)
            assert result.stdout.split() == [b"0", b"1", b"2"], (way, result)
    finally:
        os.close(spare)


# ---- 6, 7, 8: images with traps in the places of the kernel's file systems ----

CANARY = "/var/tmp/sampan-canary"
TRAPS = {
    "proc link": ("proc", "/etc"),
    "proc link out": ("proc", "../../../.." + CANARY),
    "dev link": ("dev", "/etc"),
    "dev link out": ("dev", CANARY),
    "sys link": ("sys", "/etc"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_link_in_place_of_a_kernel_file_system_is_refused(
    engine: sampan.Engine, attack: str, trap: str, tmp_path: object
) -> None:
    os.makedirs(CANARY, exist_ok=True)
    try:
        name, target = TRAPS[trap]
        made = Image(attack).add("etc", kind=tarfile.DIRTYPE, mode=0o755).link(name, target)
        with pytest.raises(SampanError, match="cannot mount"):
            engine.run(made.load(engine, "trap"), ["/attack", "fds"])
        assert os.listdir(CANARY) == []
    finally:
        shutil.rmtree(CANARY)


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_a_file_in_place_of_a_kernel_file_system_is_refused(engine: sampan.Engine, attack: str, name: str) -> None:
    with pytest.raises(SampanError, match="cannot mount"):
        engine.run(Image(attack).add(name, b"trap").load(engine, "trap"), ["/attack", "fds"])


def newest(engine: sampan.Engine) -> str:
    """Give the snapshot that was made last."""
    return max((name for name in os.listdir(engine.store.paths.snapshots) if name.isdigit()), key=int)


@pytest.mark.parametrize("name", ["pts", "ptmx", "console", "shm", "mqueue", "fd", "stdin", "core", "null"])
def test_links_in_the_images_dev_lead_nowhere(engine: sampan.Engine, attack: str, name: str) -> None:
    victim = "victim"
    made = Image(attack).add(victim, b"as it was", mode=0o600)
    made.add("dev", kind=tarfile.DIRTYPE, mode=0o755).link(f"dev/{name}", "/" + victim)
    result = command(engine, "run", "--rm", "-t", made.load(engine, "dev"), "/attack", "fds")
    assert result.returncode == 0, result
    with open(engine.store.paths.snapshots + "/" + newest(engine) + "/" + victim, "rb") as file:
        assert file.read() == b"as it was" and os.fstat(file.fileno()).st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("where", ["/proc", "/proc/self", "/proc/sys", "/proc/1/attr"])
def test_nothing_is_mounted_over_or_below_proc(engine: sampan.Engine, where: str) -> None:
    with pytest.raises(SampanError):
        engine.run("base", ["true"], tmpfs=[where])
    with pytest.raises(SampanError):
        engine.run("base", ["true"], mounts=[("bind", "/var/tmp", where, [])])


# ---- 13: masked and read-only paths ----


def test_masked_paths_cannot_be_read_and_read_only_ones_not_written(engine: sampan.Engine) -> None:
    masked = ["acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi"]
    script = "".join(f"head -c 1 /proc/{name} 2>/dev/null; ls -A /proc/{name} 2>/dev/null | sort;" for name in masked)
    script = script.replace("ls -A", "[ -d /proc/x ] && ls -A") + "ls -A /sys/firmware /sys/devices/virtual/powercap"
    result = engine.run("base", ["sh", "-c", script + " 2>/dev/null; :"])
    words = [line for line in result.stdout.decode().split() if not line.endswith(":")]
    assert words == [], result
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/0/smp_affinity", "/proc/bus/x"):
        written = engine.run("base", ["sh", "-c", f"(echo h > {path}) 2>&1"])
        assert written.exit_code != 0, path


# ---- 15, 17, 19, 20, 21: who a process is ----


def test_capabilities_are_the_same_for_run_and_exec_and_none_for_a_user(
    many_ids: None, engine: sampan.Engine, container: str
) -> None:
    for user, expected in (("", None), ("1000", 0)):
        words = ["run", "-d", *(("-u", user) if user else ()), "base", "sleep", "60"]
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
    words = ["run", "-d", "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "base", "sleep", "60"]
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
        container = command(engine, "run", "-d", "-u", "app", "--group-add", "77", name, "/attack", "sleep", "60")
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


# ---- 26, 29, 30, 31: what the kernel refuses ----


def test_system_calls_of_the_attacks_are_refused(engine: sampan.Engine, image: str, attack: str) -> None:
    control = table(
        subprocess.run(["unshare", "-m" if ROOT else "-mr", attack, "syscalls"], capture_output=True, check=True).stdout
    )
    assert control["keyctl"] == control["unshare_user"] == control["getpid"] == 0
    assert control["clone3"] != errno.ENOSYS
    for user in ("", "1000") if ROOT else ("",):
        seen = table(engine.run(image, ["/attack", "syscalls"], user=user).stdout)
        assert seen["getpid"] == 0
        assert seen["clone3"] == seen["unknown"] == errno.ENOSYS
        for name in ("keyctl", "add_key", "mount", "bpf", "userfaultfd", "perf_event_open", "unshare_user"):
            assert seen[name] == errno.EPERM, name
        assert seen["io_uring_setup"] in (errno.EPERM, errno.ENOSYS)
        assert seen["open_by_handle_at"] == errno.EPERM
        assert seen["af_alg"] != 0 and seen["af_vsock"] != 0


def test_exec_is_filtered_too(engine: sampan.Engine, container: str) -> None:
    seen = table(command(engine, "exec", container, "/attack", "syscalls").stdout)
    assert seen["keyctl"] == seen["mount"] == seen["unshare_user"] == errno.EPERM and seen["clone3"] == errno.ENOSYS


def test_a_disk_and_the_memory_cannot_be_opened(engine: sampan.Engine, image: str) -> None:
    seen = table(engine.run(image, ["/attack", "device"]).stdout)
    assert errno.EPERM in (seen["mknod"], seen["open"]) or seen["open"] == errno.EACCES
    assert seen["open"] != 0 and seen["open_mem"] != 0


def test_the_old_root_is_gone(engine: sampan.Engine) -> None:
    mounts = engine.run("base", ["cat", "/proc/self/mountinfo"]).stdout.decode()
    assert engine.store.paths.run not in mounts
    tops = [line for line in mounts.splitlines() if line.split()[4] == "/"]
    assert len(tops) == 1
    assert "shared:" not in mounts and "master:" not in mounts


@pytest.mark.skipif(not ROOT, reason="shared mounts of one's own need root")
def test_nothing_is_mounted_on_a_host_whose_mounts_are_shared(engine: sampan.Engine) -> None:
    words = [*engine.command(["run", "--rm", "base", "true"])]
    script = 'mount --make-rshared / && "$@" && cat /proc/self/mountinfo'
    result = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *words], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert engine.store.paths.run.encode() not in result.stdout


@pytest.mark.parametrize("flags", [[], ["-i"], ["--init"]])
def test_nothing_is_typed_into_the_callers_terminal(
    engine: sampan.Engine, image: str, attack: str, flags: list[str]
) -> None:
    if 0 not in answers(in_terminal([attack, "inject"])):
        print("this host's kernel lets nobody type into a terminal (dev.tty.legacy_tiocsti)")
    found = answers(in_terminal(engine.command(["run", "--rm", *flags, image, "/attack", "inject"])))
    assert len(found) == 3 and 0 not in found


# ---- 35: names ----

NAMES = ["..", ".", "a/b", "", "-x", "../../etc", "x" * 4096, "a\0b", "é", "a b", "a\n"]


@pytest.mark.parametrize("name", [name for name in NAMES if name])
def test_hostile_names_are_refused(engine: sampan.Engine, name: str) -> None:
    from sampan.oci.spec import RunOptions

    before = sorted(os.listdir(engine.store.paths.containers))
    with pytest.raises(SampanError):
        engine.containers.create("base", RunOptions(), name=name)
    assert sorted(os.listdir(engine.store.paths.containers)) == before


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_find_nothing(engine: sampan.Engine, name: str) -> None:
    for verb in (engine.containers.get, engine.containers.remove, engine.containers.stop):
        with pytest.raises(SampanError):
            verb(name)


# ---- 118, 119: zombies and the truth about ends ----


def test_orphans_leave_nothing_behind(engine: sampan.Engine, image: str) -> None:
    result = command(engine, "run", "-d", image, "/attack", "orphans", "300", "60")
    name = result.stdout.decode().strip()
    record = engine.containers.get(name)
    deadline = time.monotonic() + 60
    while len(descendants(record.pid)) < 300 and time.monotonic() < deadline:
        time.sleep(0.02)
    zombies = [pid for pid, _ in descendants(record.pid)]
    assert len(zombies) >= 300
    engine.containers.remove(name, force=True)
    assert not [pid for pid in zombies if os.path.exists(f"/proc/{pid}")]
    launch.reap()
    assert not [state for _, state in descendants(os.getpid()) if state == "Z"]


def test_init_reaps_orphans(engine: sampan.Engine, image: str) -> None:
    result = command(engine, "run", "-d", "--init", image, "/attack", "orphans", "300", "60")
    name = result.stdout.decode().strip()
    record = engine.containers.get(name)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
        programs = descendants(record.pid)
        if len(programs) == 1 and len(descendants(programs[0][0])) == 300:
            break
    assert [state for _, state in descendants(record.pid)] == ["S"]
    engine.containers.remove(name, force=True)


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("words", "code"), [(["exit", "0"], 0), (["exit", "7"], 7), (["die", "15"], 143), (["die", "6"], 134)]
)
def test_exit_codes_are_true(engine: sampan.Engine, image: str, words: list[str], code: int, init: bool) -> None:
    assert engine.run(image, ["/attack", *words], init=init).exit_code == code
    flags = ["--init"] if init else []
    assert command(engine, "run", *flags, image, "/attack", *words).returncode == code
    detached = command(engine, "run", "-d", *flags, image, "/attack", *words).stdout.decode().strip()
    assert command(engine, "wait", detached).stdout.split() == [str(code).encode()]


@pytest.mark.parametrize("words", [["exit", "7"], ["die", "9"]])
def test_exit_codes_of_exec_are_true(engine: sampan.Engine, container: str, words: list[str]) -> None:
    code = {"exit": 7, "die": 137}[words[0]]
    assert command(engine, "exec", container, "/attack", *words).returncode == code
    assert command(engine, "exec", container, "/missing").returncode == 127
    assert command(engine, "exec", container, "/proc").returncode == 126
    assert command(engine, "exec", "-w", "/missing", container, "/attack", "fds").returncode == 126
    assert command(engine, "exec", "-u", "nosuch", container, "/attack", "fds").returncode == 126
    assert command(engine, "exec", "nosuch", "/attack", "fds").returncode == 1


def test_a_container_that_cannot_start_has_the_same_exit_code_attached_or_not(engine: sampan.Engine) -> None:
    name = command(engine, "create", "base", "/missing").stdout.decode().strip()
    for words in (["start", name], ["start", "-a", name]):
        done = command(engine, *words)
        assert done.returncode == 1 and b"no such file" in done.stderr
    command(engine, "rm", name)


def test_signals_start_out_as_they_do_in_a_login(engine: sampan.Engine, container: str) -> None:
    seen = status(engine.run("base", ["cat", "/proc/self/status"]).stdout)
    assert int(seen["SigIgn"], 16) == int(seen["SigBlk"], 16) == 0


def test_a_killed_supervisor_takes_its_container_along(engine: sampan.Engine, image: str) -> None:
    name = command(engine, "run", "-d", image, "/attack", "sleep", "60").stdout.decode().strip()
    record = engine.containers.get(name)
    parent = int(open(f"/proc/{record.pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()[1])
    os.kill(parent, 9)
    deadline = time.monotonic() + 60
    while not gone(record.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    now = engine.containers.get(name)
    assert (now.status, now.exit_code) == ("exited", 137)
    assert not cgroup.named(record.id).directories()
    engine.containers.remove(name)
    assert not os.path.exists(engine.store.paths.container(record.id))


def test_a_killed_caller_ends_what_nobody_supervises(engine: sampan.Engine, image: str) -> None:
    for flags in ([], ["--init"]):
        running = subprocess.Popen(
            engine.command(["run", "--rm", *flags, image, "/attack", "sleep", "77"]), stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        helpers: list[tuple[int, str]] = []
        while time.monotonic() < deadline and not (helpers and descendants(helpers[0][0])):
            time.sleep(0.02)
            helpers = descendants(running.pid)
        program = descendants(helpers[0][0])[0][0]
        os.kill(helpers[0][0], 9)
        running.kill()
        running.wait()
        deadline = time.monotonic() + 60
        while not gone(program) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert gone(program), flags


def test_a_full_input_does_not_hold_up_a_signal(engine: sampan.Engine, image: str) -> None:
    """The container never reads; its input is a file, which the supervisor copies."""
    with tempfile.TemporaryFile() as data:
        data.truncate(8 << 20)
        running = subprocess.Popen(
            engine.command(["run", "-i", "--name", "full", image, "/attack", "sleep", "60"]), stdin=data
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if command(engine, "kill", "full").returncode == 0:
                break
        assert running.wait(timeout=60) == 137


def test_starts_at_once_are_one(engine: sampan.Engine, image: str) -> None:
    name = command(engine, "create", image, "/attack", "sleep", "60").stdout.decode().strip()
    words = engine.command(["start", name])
    started = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(6)]
    assert [one.wait() for one in started] == [0] * 6
    record = engine.containers.get(name)
    running = [pid for pid in os.listdir("/proc") if pid.isdigit() and runs_in(pid, engine.store.paths.container(name))]
    engine.containers.remove(name, force=True)
    assert running == [str(record.pid)]


def runs_in(pid: str, home: str) -> bool:
    """Say whether a process has the container's overlay as its root."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            return any(os.path.basename(home) in line for line in file if line.split()[4] == "/")
    except OSError:
        return False


@pytest.mark.skipif(not ROOT, reason="procfs of the host's pid namespace can be mounted by root only")
def test_nothing_survives_in_the_hosts_pid_namespace(engine: sampan.Engine) -> None:
    script = "sleep 61 & echo $!; sleep 0.05"
    for words in (["run", "--rm"], ["run"]):
        pid = int(command(engine, *words, "--pid", "host", "base", "sh", "-c", script).stdout)
        assert gone(pid)
    name = command(engine, "run", "-d", "--pid", "host", "base", "sh", "-c", "sleep 61 & sleep 62").stdout.decode()
    record = engine.containers.get(name.strip())
    deadline = time.monotonic() + 60
    while len(descendants(record.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    rest = [pid for pid, _ in descendants(record.pid)]
    engine.containers.remove(record.id, force=True)
    assert len(rest) == 2 and all(gone(pid) for pid in rest)
