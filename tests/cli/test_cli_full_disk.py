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
mount -t tmpfs -o size=24m,mode=755 none "$1"
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
mount -t tmpfs -o size=24m,mode=755 none "$1"
sampan() { "$LAUNCHER" --root "$DISK" "$@"; }
DISK=$1
sampan bootstrap -t base host sh dd true
sampan run --name full base dd if=/dev/zero of=/big bs=1M count=4
rm "$DISK/.reserve"
dd if=/dev/zero of="$DISK/fill" bs=512 2>/dev/null || true
sampan rm full
sampan ps -a --format '{{.Names}}'
"""

# What a full disk refuses is refused in one line, with a hint, before anything has begun; the rest works.
REFUSED = """
mount $2 "$1" || exit 1
DISK=$1 TMPDIR=$3
SAMPAN_ROOT=$1/store
export SAMPAN_ROOT
mkdir "$TMPDIR/context"
printf 'FROM base\\nCOPY big /big\\n' > "$TMPDIR/context/Dockerfile"
head -c 300000 /dev/urandom > "$TMPDIR/context/big"
"$LAUNCHER" bootstrap -t base host sh true echo sleep || exit 1
"$LAUNCHER" save -o "$TMPDIR/base.tar" base
tar -cC "$TMPDIR" context > "$TMPDIR/files.tar"
"$LAUNCHER" run -d --name up base sleep 1000 || exit 1
"$LAUNCHER" run --name old base true || exit 1
"$LAUNCHER" rmi base 2>/dev/null
rm -f "$SAMPAN_ROOT/.reserve"
for round in 1 2 3; do
    dd if=/dev/zero bs=64k >> "$DISK/fill" 2>/dev/null
    dd if=/dev/zero bs=512 >> "$DISK/fill" 2>/dev/null
    sync -f "$DISK"
done
try() {
    code=0
    "$LAUNCHER" "$@" > "$TMPDIR/out" 2> "$TMPDIR/err" || code=$?
    echo "$1 $2: $code, $(wc -c < "$TMPDIR/out") bytes, $(grep -c ^sampan: "$TMPDIR/err") error," \\
        "$(grep -c '^hint: free some space' "$TMPDIR/err") hint, $(grep -c Traceback "$TMPDIR/err") traceback"
}
try run --rm base echo hi
try run -d base true
try create base true
try commit up made
try tag base made
try volume create made
try cp "$TMPDIR/context" up:/made
try build -t made "$TMPDIR/context"
try load -i "$TMPDIR/base.tar"
try import "$TMPDIR/files.tar" made
echo "check $("$LAUNCHER" system check | grep -c 'must be unpacked once more')"
echo "left $("$LAUNCHER" images -q | wc -l) images, $("$LAUNCHER" ps -aq | wc -l) containers," \\
    "$("$LAUNCHER" volume ls -q | wc -l) volumes"
"$LAUNCHER" exec up echo in && "$LAUNCHER" stop -t 0 up && "$LAUNCHER" rm up old || echo "not freed"
rm -r "$DISK"/fill
"$LAUNCHER" system check
"$LAUNCHER" run --rm base echo again
"$LAUNCHER" build -q -t made "$TMPDIR/context" >/dev/null && echo built
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("mkfs.ext4"), reason="mounts a small disk"
)
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_what_a_full_disk_refuses_is_told_in_one_line(tmp_path: pathlib.Path, kind: str) -> None:
    image, scratch = tmp_path / "image", tmp_path / "tmp"
    image.touch()
    os.truncate(image, 40 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True, timeout=60)
    scratch.mkdir()
    options = f"-o loop {image}" if kind == "ext4" else "-t tmpfs -o size=24m none"
    done = _on_a_small_disk(tmp_path, REFUSED, options, str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout[done.stdout.index("run --rm:") :].splitlines()
    refused = {"run --rm": 125, "run -d": 125, "create base": 1, "commit up": 1, "tag base": 1, "volume create": 1}
    refused |= {f"cp {scratch}/context": 1, "build -t": 1, "load -i": 1, f"import {scratch}/files.tar": 1}
    wanted = [f"{words}: {code}, 0 bytes, 1 error, 1 hint, 0 traceback" for words, code in refused.items()]
    wanted += ["check 1", "left 1 images, 2 containers, 0 volumes", "in", "up", "up", "old"]
    wanted += ["checked 3 blobs, 1 layer, 0 containers, 0 volumes: all is well", "again", "built"]
    assert said == wanted, done.stderr


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


def _on_a_small_disk(tmp_path: pathlib.Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    disk = tmp_path / "disk"
    disk.mkdir()
    env = {"PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"], "LAUNCHER": str(LAUNCHER)}
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(disk), *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env,
    )
