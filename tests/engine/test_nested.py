"""sampan inside a container: what works there, and what each refusal says. The outer engine is sampan too.

What the outer one grants is as Docker grants it: root with fourteen capabilities, covered paths in /proc and /sys, a
filter of system calls, unless an option says otherwise.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan import rights
from sampan.runtime import idmap

SOURCE = Path(sampan.__file__).resolve().parent.parent
OPEN = ("--security-opt", "seccomp=unconfined")
BARE = ("--security-opt", "systempaths=unconfined")
SINGLE = idmap.detect().single
Inside = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def inside(engine: sampan.Engine, tmp_path: Path) -> Inside:
    """Run a script in a container that has sampan and this host's programs; the store is in a volume, /volume."""
    volume = tmp_path / "volume"
    volume.mkdir()
    prefix = Path(sys.base_prefix).resolve()
    trees = {str(Path(place).resolve()) for place in ("/usr", "/lib", "/lib64", "/bin") if os.path.isdir(place)}
    trees |= {str(SOURCE), str(prefix)}
    shown = sorted(tree for tree in trees if not any(tree.startswith(f"{other}/") for other in trees))

    def run(script: str, *flags: str, root: str = "/volume/store") -> subprocess.CompletedProcess[str]:
        binds = [word for tree in shown for word in ("-v", f"{tree}:{tree}:ro")]
        python = Path(sys.executable).resolve()
        start = f'sampan() {{ {shlex.quote(str(python))} -m sampan "$@"; }}; '
        words = ["run", "--rm", *flags, *binds, "-v", f"{volume}:/volume", "-e", f"SAMPAN_ROOT={root}"]
        words += ["-e", "SAMPAN_RUN=/volume/run", "-e", "HOME=/volume", "-e", f"PYTHONPATH={SOURCE}"]
        words += ["-e", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "-e", "PYTHONDONTWRITEBYTECODE=1"]
        words += ["base", "sh", "-c", start + script]
        return subprocess.run(engine.command(words), capture_output=True, text=True, timeout=120, check=False)

    return run


BASE = "sampan bootstrap -t inner host sh id cat touch chown stat >/dev/null && "


def test_root_without_privilege_has_its_own_ids(inside: Inside) -> None:
    """Root of a container that has no CAP_SYS_ADMIN, as of a pod: a user namespace, in which all its ids are."""
    script = BASE + "cat /proc/self/uid_map; sampan run --rm inner sh -c 'cat /proc/self/uid_map; id -u'"
    done = inside(script, *OPEN, *BARE)
    assert done.returncode == 0, done.stderr
    *lines, uid = done.stdout.splitlines()
    outer, inner = (lines[: len(lines) // 2], lines[len(lines) // 2 :])
    assert uid == "0" and [line.split()[0::2] for line in outer] == [line.split()[0::2] for line in inner]
    assert all(line.split()[0] == line.split()[1] for line in inner)
    assert done.stderr.count("only your own id") == SINGLE, done.stderr  # the outer one says it


@pytest.mark.skipif(SINGLE, reason="needs a range of ids (subuid(5), newuidmap)")
def test_it_builds_with_owners_and_runs_as_a_user(inside: Inside) -> None:
    file = "FROM inner\\nRUN touch /f && chown 7:8 /f\\nUSER 5:6\\n"
    script = BASE + f"mkdir /volume/c && printf '{file}' >/volume/c/Dockerfile && "
    script += (
        "sampan build -q -t made /volume/c >/dev/null && sampan run --rm made sh -c 'id -u; id -g; stat -c %u:%g /f'"
    )
    done = inside(script, *OPEN, *BARE)
    assert done.stdout.split() == ["5", "6", "7:8"], done.stderr


def test_covered_paths_need_the_outer_processes(inside: Inside) -> None:
    """The kernel mounts procfs and sysfs in a user namespace only where nothing of the old ones is covered."""
    done = inside(BASE + "sampan run --rm inner id", *OPEN)
    assert done.returncode == 125 and "cannot mount proc" in done.stderr and "--pid host" in done.stderr
    script = BASE + (
        "sampan run --rm --pid host inner sh -c 'id -u; cat /proc/self/mounts; touch /sys/x; cat /proc/kcore'; "
        "mkdir /volume/c; printf 'FROM inner\\nRUN id\\n' >/volume/c/Dockerfile; "
        "sampan build -q -t made --pid host /volume/c >/dev/null && echo built"
    )
    done = inside(script, *OPEN)
    first, *mounts, last = done.stdout.splitlines()
    kinds = [(line.split()[1], line.split()[2], line.split()[3].split(",")[0]) for line in mounts]
    assert first == "0" and ("/sys", "sysfs", "ro") in kinds and ("/proc", "proc", "rw") in kinds
    assert last == "built", done.stderr
    assert "Read-only file system" in done.stderr and "built" not in done.stderr


def test_a_filter_is_named(inside: Inside) -> None:
    done = inside(BASE + "sampan run --rm inner id")
    assert done.returncode == 1 and "seccomp=unconfined" in done.stderr and "cannot create namespaces" in done.stderr
    doctor = inside("sampan doctor")
    assert doctor.returncode == 1 and "seccomp=unconfined" in doctor.stdout


def test_root_that_may_give_no_ids(inside: Inside) -> None:
    done = inside(BASE + "sampan run --rm inner id", *OPEN, *BARE, "--cap-drop", "SETFCAP")
    assert done.returncode == 1 and "CAP_SETFCAP" in done.stderr


def test_an_overlay_cannot_hold_the_store(inside: Inside) -> None:
    """/tmp of the outer container lies on its root file system; the volume is what helps."""
    done = inside(BASE + "sampan run --rm inner id", *OPEN, *BARE, root="/tmp/store")
    assert done.returncode and "overlay" in done.stderr and "export SAMPAN_ROOT=/volume/sampan" in done.stderr
    assert "export SAMPAN_ROOT=/volume/sampan" in inside("sampan doctor", *OPEN, *BARE, root="/tmp/store").stdout


@pytest.mark.skipif(not rights.holds(rights.CAP_SYS_ADMIN), reason="needs root")
def test_sys_admin_alone_runs_without_a_user_namespace(inside: Inside) -> None:
    script = BASE + "sampan run --rm inner sh -c 'cat /proc/self/uid_map'"
    done = inside(script, *OPEN, "--cap-add", "SYS_ADMIN")
    assert done.stdout.split()[:2] == ["0", "0"] and "loopback" in done.stderr, done.stderr
    done = inside(script, "--privileged")
    assert done.returncode == 0 and "loopback" not in done.stderr
    done = inside(script, "--cap-add", "SYS_ADMIN")  # Docker's filter knows pivot_root(2) for nobody
    assert done.returncode and "seccomp=unconfined" in done.stderr


# ---- other sandboxes: of namespaces, and of a process that may gain nothing ----


def wrapped(tmp_path: Path, *words: str, flags: str = "") -> subprocess.CompletedProcess[str]:
    """Make a base image and start a container, both below `words`."""
    store = sampan.Engine(str(tmp_path / "store"))
    script = 'set -e; "$@" bootstrap -t inner host sh id cat >/dev/null; '
    script += f'"$@" run --rm {flags} inner sh -c "id -u; cat /proc/self/uid_map"'
    line = [*words, "sh", "-c", script, "sh", *store.command([])]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare(1)")
def test_root_of_a_user_namespace(tmp_path: Path) -> None:
    """He has all capabilities, but can make no device and no control group of cgroup v1: no root for a container."""
    done = wrapped(tmp_path, "unshare", "--user", "--map-root-user")
    assert done.stdout.split() == ["0", "0", "0", "1"], done.stderr


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv(1)")
def test_a_process_that_may_gain_no_privileges(tmp_path: Path) -> None:
    done = wrapped(tmp_path, "setpriv", "--no-new-privs")
    assert done.stdout.split()[0] == "0", done.stderr
    if os.geteuid():
        assert done.stdout.split()[1:] == ["0", str(os.geteuid()), "1"] and "only your own id is mapped" in done.stderr


@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap")
def test_in_bubblewrap(tmp_path: Path) -> None:
    """As sandboxes of agents are: namespaces of every kind, no privileges to gain, a /proc and a /dev of its own.

    Where root started it, it covers what root could write in /proc.
    """
    sandbox = ("bwrap", "--unshare-all", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    if os.geteuid() == 0:
        assert "--pid host" in wrapped(tmp_path, *sandbox).stderr
    done = wrapped(tmp_path, *sandbox, flags="" if os.geteuid() else "--pid host")
    assert done.stdout.split() == ["0", "0", str(os.geteuid()), "1"], done.stderr
