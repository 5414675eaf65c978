"""A power cut at any moment of any command that changes something: what was acknowledged is there, and it is whole.

`make test-faults` makes 500 cuts (SAMPAN_FAULTS) of three stores, `make test` a few of one. The controls run the same
with a library that takes syncfs, or all syncing, away from the commands: a test that did not catch them would prove
nothing. A disk on which something was wrong is kept as work/wrong.img.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CUTS = int(os.environ.get("SAMPAN_FAULTS", "72")) // 3  # of each store
SHIM = """
int syncfs(int fd) { (void)fd; return 0; }
#ifdef EVERYTHING
int fsync(int fd) { (void)fd; return 0; }
int fdatasync(int fd) { (void)fd; return 0; }
#endif
"""
MISSING = [program for program in ("mkfs.ext4", "mount", "losetup", "cc") if not shutil.which(program)]
if os.geteuid() != 0:
    MISSING.append("root")
if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
    MISSING.append("/dev/fuse and /dev/loop-control")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"a disk that records its writes needs {', '.join(MISSING)}")


def cut(directory: Path, store: str, cuts: int, seed: int, preload: str = "") -> dict[str, Any]:
    work = directory / "work"
    work.mkdir()
    arguments = [str(work), store, str(cuts), str(seed), *([preload] if preload else [])]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "power_cut.py"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, said = process.communicate(timeout=900 + 6 * cuts)  # a few minutes, but not beside much other work
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # with its registry and its disk
        process.communicate()
        raise
    assert process.returncode == 0, said[-4000:]
    found: dict[str, Any] = json.loads(out)
    return found


def shim(directory: Path, *flags: str) -> str:
    source, library = directory / "shim.c", directory / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", str(library), str(source)], check=True)
    return str(library)


@pytest.mark.parametrize("store", ["used", "worn", "new"] if "SAMPAN_FAULTS" in os.environ else ["worn"])
def test_a_power_cut_leaves_whole_images_or_none(tmp_path: Path, store: str) -> None:
    found = cut(tmp_path, store, CUTS, 20240601)
    assert not found["wrong"], "\n".join(found["wrong"][:40])
    assert found["cuts"] >= CUTS and found["flushes"] > 20
    # The cuts met states before, between and after the commands.
    assert {int(state.split()[0]) for state in found["seen"]} == set(range(found["steps"] + 1))
    assert found["steps"] == 21 + 2 * bool(shutil.which("docker-registry")) + 2 * (store == "new")


HELD = """
import subprocess, sys, threading
from pathlib import Path
from power_cut import private_mounts
from disks import mounted

private_mounts()
directory, let_go = Path(sys.argv[1]), threading.Event()
with mounted(directory / "disk", directory / "point"):
    words = ["unshare", "--mount", "sh", "-c", "echo; read end"]  # as a container's supervisor that is about to end
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    threading.Timer(1, lambda: (let_go.set(), holder.stdin.close())).start()
print(let_go.is_set())
"""


def test_a_disk_that_another_namespace_has_mounted_is_waited_for(tmp_path: Path) -> None:
    """Written anew below such a mount, the next cut would be seen as this one was."""
    (tmp_path / "disk").write_bytes(bytes(4 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(tmp_path / "disk")], check=True)
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-c", HELD, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_control_without_syncfs_files_are_lost(tmp_path: Path) -> None:
    found = cut(tmp_path, "worn", 8, 1, shim(tmp_path))
    assert any("the files of layer" in text for text in found["wrong"])


def test_control_without_any_sync_acknowledged_images_are_lost(tmp_path: Path) -> None:
    found = cut(tmp_path, "worn", 8, 1, shim(tmp_path, "-DEVERYTHING"))
    assert any("is lost" in text or "blob" in text for text in found["wrong"])
