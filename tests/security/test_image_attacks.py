"""What an image says of itself is input: it steers neither engine nor helper, and takes nothing of the host's."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
from attackkit import ROOT, Image, command, descendants, resident, table

import sampan
from sampan.errors import SampanError

# ---- 1, 3: the runtime's own files ----


def test_a_script_whose_interpreter_is_the_runtime_starts_nothing_of_it(engine: sampan.Engine, attack: str) -> None:
    """CVE-2019-5736: `#!/proc/self/exe` executes whatever program is just setting the container up."""
    with open(attack, "rb") as source:
        made = Image(attack).add("script", b"#!/proc/self/exe\n", mode=0o755).add("x", source.read(), mode=0o755)
    name = made.link("linked", "/proc/self/exe").load(engine, "selfexe")
    for word in ("/script", "/linked"):
        result = command(engine, "run", "--rm", name, word)
        assert result.returncode in (125, 126, 127) and result.stdout == b"", result
    container = command(engine, "run", "-d", name, "/attack", "sleep", "600").stdout.decode().strip()
    try:
        for word in ("/script", "/linked"):
            result = command(engine, "exec", container, word)
            assert result.returncode in (1, 125, 126, 127) and result.stdout == b"", result
    finally:
        command(engine, "rm", "-f", container)


def test_a_working_directory_that_is_swapped_meanwhile_stays_inside(engine: sampan.Engine, image: str) -> None:
    """CVE-2024-21626: the container exchanges the directory of the next exec for links to descriptors."""
    script = (
        "mkdir -p /w/real; while :; do for n in 3 4 5 6 7 8 9 10; do rm -f /w/x; ln -s /w/real /w/x; "
        "rm -f /w/x; ln -s /proc/self/fd/$n /w/x; done; done"
    )
    container = command(engine, "run", "-d", "base", "sh", "-c", script).stdout.decode().strip()
    try:
        for _ in range(25):
            result = command(engine, "exec", "-w", "/w/x", container, "sh", "-c", "pwd -P; cat /etc/hostname || :")
            assert not result.stdout or result.stdout.splitlines()[0] == b"/w/real", result
    finally:
        command(engine, "rm", "-f", container)


# ---- 20: passwd of an absurd size ----


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_accounts_of_two_gigabytes_are_not_read(engine: sampan.Engine, attack: str, name: str) -> None:
    image = Image(attack).add(f"etc/{name}", b"app:x:0:0::/:\n").load(engine, "huge")
    layer = engine.store.snapshots.path(engine.images.resolve(image).diff_ids[0])
    os.truncate(f"{layer}/etc/{name}", 2 << 30)
    before, began = resident(), time.process_time()
    with pytest.raises(SampanError, match="no such user"):
        engine.run(image, ["/attack", "fds"], user="daemon")
    assert resident() - before < 64 << 20 and time.process_time() - began < 5


# ---- 21, 23: its environment ----


def with_config(engine: sampan.Engine, attack: str, name: str, **config: Any) -> str:
    """Load an image whose configuration says what no builder would write."""
    layer = Image(attack).add("etc/passwd", b"root:x:0:0::/:\n")
    layer.tar.close()
    data = layer.file.getvalue()
    from hashlib import sha256

    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": ["/attack", "fds"], **config},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(data).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": ["layer.tar"]}]
    with tempfile.NamedTemporaryFile() as file:
        with tarfile.open(file.name, "w") as tar:
            for member, content in (
                ("config.json", json.dumps(document).encode()),
                ("layer.tar", data),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        engine.images.load(file.name)
    return name


@pytest.mark.parametrize("entry", ["SAMPAN_CANARY", "*", "SAMPAN_*", "SAMPAN_*=x", "=x", "A\nB=x", "A\0B=x", "A=\0x"])
def test_an_image_with_a_malformed_environment_does_not_run(engine: sampan.Engine, attack: str, entry: str) -> None:
    """CVE-2026-57231: an entry without a value took the host's variable of that name."""
    name = with_config(engine, attack, "env", Env=["PATH=/", entry])
    result = command(engine, "run", "--rm", name, env={**os.environ, "SAMPAN_CANARY": "host-secret"})
    assert result.returncode == 125 and b"host-secret" not in result.stdout + result.stderr, result


MANY = 70_000  # more than 16 bits count
LARGE = {
    "arguments": ({"Cmd": ["/attack", "fds", *["a"] * MANY]}, b""),
    "variables": ({"Env": ["PATH=/", *[f"V{number}=" for number in range(MANY)]]}, b""),
    "one place many times": ({"Env": ["PATH=" + ":" * MANY + "/"]}, b""),
    "a place with too long a name": ({"Env": [f"PATH=/{'x' * 300}:/"]}, b""),
    "places": ({"Env": ["PATH=" + ":".join(map(str, range(MANY // 4)))]}, b"PATH has 17500 directories"),
    "a long name": ({"Env": ["PATH=" + ":" * MANY + "/"], "Cmd": ["x" * 100_000]}, b"File name too long"),
}


@pytest.mark.parametrize("what", LARGE)
def test_many_words_of_an_image_are_run_or_refused(engine: sampan.Engine, attack: str, what: str) -> None:
    config, error = LARGE[what]
    result = command(
        engine, "run", "--rm", with_config(engine, attack, "large", **{"Cmd": ["attack", "fds"], **config})
    )
    assert (result.returncode != 0) == bool(error) and error in result.stderr, result.stderr[-300:]
    assert b"internal error" not in result.stderr


def test_an_image_with_an_environment_of_megabytes_does_not_run(engine: sampan.Engine, attack: str) -> None:
    name = with_config(engine, attack, "env", Env=[f"A{n}=" + "x" * 100_000 for n in range(39)])
    result = command(engine, "run", "--rm", name)
    assert result.returncode == 125 and b"bytes" in result.stderr and len(result.stderr) < 1000


STEERING = [
    *("LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/", "LD_AUDIT=/evil.so", "GCONV_PATH=/", "PYTHONPATH=/", "PYTHONHOME=/"),
    *(
        "PATH=/",
        "HOME=/evil",
        "XDG_RUNTIME_DIR=/evil",
        "XDG_DATA_HOME=/evil",
        "HTTPS_PROXY=http://evil",
        "TMPDIR=/evil",
    ),
    *("SAMPAN_ROOT=/evil", "BASH_ENV=/evil", "ENV=/evil", "IFS=x", "GLIBC_TUNABLES=x=y"),
]


def environment(pid: int) -> list[bytes]:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return [entry for entry in file.read().split(b"\0") if entry]


def test_the_environment_of_an_image_reaches_its_programs_only(engine: sampan.Engine, attack: str) -> None:
    """CVE-2025-23266: LD_PRELOAD of an image was in the environment of a helper with the host's rights."""
    name = with_config(engine, attack, "steering", Env=STEERING, Cmd=["/attack", "sleep", "600"])
    container = command(engine, "run", "-d", "--init", name).stdout.decode().strip()
    try:
        record = engine.containers.get(container)
        program = descendants(record.pid)[0][0]
        with open(f"/proc/{record.pid}/stat", encoding="ascii") as file:
            helper = int(file.read().rsplit(")", 1)[1].split()[1])
        assert set(STEERING) <= {entry.decode() for entry in environment(program)}  # the control
        assert not ROOT or environment(helper) == []
        if ROOT:  # --init is the helper too, which nobody else may look into
            assert environment(record.pid) == []
    finally:
        command(engine, "rm", "-f", container)


# ---- 25: its labels ----

RESERVED = {
    "run.oci.keep_original_groups": "1",
    "run.oci.hooks.stderr": "/etc/evil",
    "io.podman.annotations.privileged": "TRUE",
    "io.podman.annotations.seccomp": "unconfined",
    "io.kubernetes.cri-o.Devices": "/dev/sda",
    "org.opencontainers.image.base.name": "x",
    "io.containers.capabilities": "SYS_ADMIN",
    "com.docker.security.apparmor": "unconfined",
    "sampan.stop_signal": "KILL",
    "sampan.init": "1",
    "sampan.seccomp": "unconfined",
    "sampan.rm": "1",
}


def test_labels_of_an_image_change_nothing(engine: sampan.Engine, attack: str) -> None:
    from sampan.oci.spec import RunOptions

    specs = []
    for labels in ({}, RESERVED):
        name = with_config(engine, attack, "labels", Labels=labels)
        record = engine.containers.get(engine.containers.create(name, RunOptions()))
        text = json.dumps(record.config["spec"], sort_keys=True).replace(record.id, "ID").replace(record.id[:12], "ID")
        specs.append(text)
        assert record.labels == labels and not record.auto_remove
        engine.containers.remove(record.id)
    assert specs[0] == specs[1] and not [key for key in RESERVED if f'"{key}"' in specs[1]]


# ---- 32: keys ----


def kernel(name: str) -> int:
    return {"x86_64": {"add_key": 248, "keyctl": 250}, "aarch64": {"add_key": 217, "keyctl": 219}}[os.uname().machine][
        name
    ]


@pytest.fixture
def secret() -> Iterator[int]:
    """Give the number of a key in this session's keyring."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = libc.syscall(kernel("add_key"), b"user", b"sampan-secret", b"host-secret", 11, -3)
    if key < 0:
        pytest.skip("this host lets no one add a key")
    yield key
    libc.syscall(kernel("keyctl"), 9, key, -3)  # KEYCTL_UNLINK


def test_keys_of_the_host_cannot_be_read(engine: sampan.Engine, image: str, attack: str, secret: int) -> None:
    ours = subprocess.run([attack, "session", str(secret)], capture_output=True, check=True).stdout
    assert table(ours)["read"] == 0  # the control: what shares the session's keyring reads it
    words = ["run", "--rm", "--security-opt", "seccomp=unconfined", image, "/attack", "session", str(secret)]
    inside = table(command(engine, *words).stdout)
    assert inside["read"] != 0 and inside["session"] != table(ours)["session"]


@pytest.mark.skipif(ROOT, reason="root's quota of keys is a million; an ordinary user's is 200")
def test_without_a_free_key_a_container_starts_and_says_so(engine: sampan.Engine, image: str, attack: str) -> None:
    words = [attack, "without-keys", *engine.command(["run", "--rm", image, "/attack", "exit", "7"])]
    result = subprocess.run(words, capture_output=True, check=False)
    assert result.returncode == 7 and b"keyring" in result.stderr, result


# ---- 33: sockets of the engine ----


def sockets(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it closes what the start needed
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:"):
                found.add(target[8:-1])
    return found


def test_no_container_can_reach_a_socket_of_the_engine(engine: sampan.Engine, image: str) -> None:
    """CVE-2020-15257: an abstract socket is reachable from every container that shares the host's network."""
    container = (
        command(engine, "run", "-dt", "--network", "host", image, "/attack", "sleep", "600").stdout.decode().strip()
    )
    try:
        record = engine.containers.get(container)
        with open(f"/proc/{record.pid}/stat", encoding="ascii") as file:
            helper = int(file.read().rsplit(")", 1)[1].split()[1])
        with open("/proc/net/unix", encoding="utf-8") as file:
            rows = [line.split() for line in file][1:]
        bound = {row[6]: row[7] for row in rows if len(row) > 7}
        named = [bound[inode] for inode in sockets(helper) if inode in bound]
        assert named, "the supervisor listens nowhere?"
        for path in named:
            assert path.startswith("/")  # an abstract one is shown with "@"
            full = os.path.join(engine.store.paths.run, "attach", os.path.basename(path))
            assert stat.S_IMODE(os.stat(full).st_mode) & 0o077 == 0
            assert stat.S_IMODE(os.stat(os.path.dirname(full)).st_mode) == 0o700
    finally:
        command(engine, "rm", "-f", container)


# ---- 35, 45: names, and what other users of the host reach ----


@pytest.mark.parametrize("name", ["..", ".", "a/b", "-x", "../../etc", "x" * 4096, "é", "a b", "a\n"])
def test_hostile_names_of_volumes_are_refused(engine: sampan.Engine, name: str) -> None:
    before = sorted(os.listdir(engine.store.paths.volumes))
    result = command(engine, "run", "--rm", "--mount", f"type=volume,source={name},target=/v", "base", "true")
    assert result.returncode == 125 and b"Traceback" not in result.stderr
    assert sorted(os.listdir(engine.store.paths.volumes)) == before


def test_other_users_reach_no_file_of_an_image(engine: sampan.Engine, attack: str) -> None:
    """CVE-2021-41091, 2021-41103: set-uid programs and device nodes lie in directories that others may enter."""
    with open(attack, "rb") as source:
        name = Image(attack).add("setuid", source.read(), mode=0o4755).load(engine, "setuid")
    path = engine.store.snapshots.path(engine.images.resolve(name).diff_ids[0]) + "/setuid"
    assert os.stat(path).st_mode & 0o4001 == 0o4001  # the control: its own mode would let anyone run it
    for directory in ("snapshots", "containers", "volumes", "oci", "ingest"):
        assert stat.S_IMODE(os.stat(f"{engine.store.paths.root}/{directory}").st_mode) & 0o077 == 0
    if ROOT:
        done = subprocess.run(["cat", path], user=65534, group=65534, capture_output=True, check=False)
        assert done.returncode != 0 and b"Permission denied" in done.stderr
