"""A container that fills the store's disk: what it did is told, and it can be removed."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "bin" / "sampan"

SCRIPT = """
set -e
mount -t tmpfs -o size=24m none "$1"
sampan() { "$LAUNCHER" --root "$DISK" "$@"; }
DISK=$1
sampan bootstrap -t base host sh dd true
fill='dd if=/dev/zero of=/big bs=1M'
sampan run --rm base sh -c "$fill" || true
for round in 1 2; do
    code=0
    sampan run --name full base sh -c "$fill" || code=$?
    echo "ended $code"
    sampan ps -a --format '{{.Names}} {{.Status}}'
    sampan rm full
    sampan run --rm base true
    test -s "$DISK/.reserve" && echo "reserve is back"
done
"""

WITHOUT_RESERVE = """
set -e
mount -t tmpfs -o size=24m none "$1"
sampan() { "$LAUNCHER" --root "$DISK" "$@"; }
DISK=$1
sampan bootstrap -t base host sh dd true
sampan run --name full base dd if=/dev/zero of=/big bs=1M count=4
rm "$DISK/.reserve"
dd if=/dev/zero of="$DISK/fill" bs=512 2>/dev/null || true
sampan rm full
sampan ps -a --format '{{.Names}}'
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small tmpfs")
def test_what_is_removed_makes_the_room_that_its_removal_needs(tmp_path: pathlib.Path) -> None:
    done = _on_a_small_disk(tmp_path, WITHOUT_RESERVE)
    assert done.returncode == 0 and done.stdout.endswith("\nfull\n"), done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small tmpfs")
def test_a_full_disk_still_lists_and_removes(tmp_path: pathlib.Path) -> None:
    done = _on_a_small_disk(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ended 1\n") == 2, done.stdout + done.stderr
    assert done.stdout.count("full Exited (1)") == 2, done.stdout
    assert done.stdout.count("reserve is back") == 2, done.stdout


def _on_a_small_disk(tmp_path: pathlib.Path, script: str) -> subprocess.CompletedProcess[str]:
    disk = tmp_path / "disk"
    disk.mkdir()
    env = {"PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"], "LAUNCHER": str(LAUNCHER)}
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(disk)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
