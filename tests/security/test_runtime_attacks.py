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

import pytest
from attackkit import ROOT, Image, answers, command, in_terminal, table

import sampan
from sampan.errors import SampanError
from sampan.runtime import launch

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


@pytest.mark.parametrize("mode", ["0", "111", "7777"])
@pytest.mark.parametrize("seal", [launch._F_SEAL_EXEC, 0], ids=["sealed", "before Linux 6.3"])
def test_no_container_keeps_the_helper_from_others(
    engine: sampan.Engine, image: str, monkeypatch: pytest.MonkeyPatch, mode: str, seal: int
) -> None:
    """Whoever is root inside owns the file behind /proc/1/exe; what a program starts later comes from it too."""
    monkeypatch.setattr(launch, "_F_SEAL_EXEC", seal)
    monkeypatch.setattr(launch, "_helper_fd", -1)
    settings = {"cap_add": ["SYS_PTRACE"]} if ROOT else {}
    for _ in range(2):
        changed = engine.run(image, ["/attack", "chmod", "/proc/1/exe", mode], init=True, **settings)
        if mode != "0" or not seal:
            assert table(changed.stdout) == {"chmod": 0}  # else this shows nothing
        assert engine.run("base", ["true"]).exit_code == 0


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

CANARY = f"/var/tmp/sampan-canary-{os.getpid()}"


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
