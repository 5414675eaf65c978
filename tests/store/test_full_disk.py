"""A disk without a free byte: the store opens, is read, and what frees something is written; what SQLite's own handling
of its files would break is tried here, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from storekit import ROOT, Spawn, Store, descriptors, finish

from sampan.store import walfiles
from sampan.store.db import Database

INSERT = "INSERT INTO volumes VALUES (?, 0, 0, '{}')"

COMMON = """
import os, subprocess, sys
from sampan.errors import Unavailable
from sampan.store.db import Database
from sampan.store.paths import Paths
paths, ballast = Paths(sys.argv[1] + "/store"), sys.argv[1] + "/ballast"
db = Database(paths)
INSERT = "INSERT INTO volumes VALUES (?, 0, 0, ?)"

def fill():
    with open(ballast, "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue

def count():
    return db.one("SELECT count(*) FROM volumes")[0]

def insert(name, size=1):
    with db.transaction():
        db.execute(INSERT, (name, "x" * size))

def remove(name):
    with db.transaction(frees=True):
        assert db.execute("DELETE FROM volumes WHERE name = ?", (name,)) == 1

def child(code):
    return subprocess.Popen([sys.executable, "-c", sys.argv[2] + code, *sys.argv[1:3]])
"""

FULL = """
for number in range(50):
    insert(str(number), 4000)   # the file must grow for them when the log is folded
db.close()
fill()
for number in range(20):        # each a first opener
    child(f"assert count() == {50 - number}; remove('{number}')").wait() == 0 or sys.exit("alone")
both = [child(f"count(); remove('{number}')") for number in range(20, 30)]
assert [one.wait() for one in both] == [0] * 10, "at once"
assert 0 < os.stat(paths.reserve).st_size < 1 << 20  # what was left of it when the file had grown
os.unlink(paths.reserve)
fill()
refused = 0
for number in range(100, 1100):
    try:
        insert(str(number), 4000)
    except Unavailable as error:
        refused += 1
        assert "the disk is full" in error.message and "\\n" not in error.message and error.hint, error
        break
assert refused, "the log's room is for removals"
child("for number in range(30, 50): remove(str(number))").wait() == 0 or sys.exit("removals")
os.unlink(ballast)
insert("last")
assert db.one("PRAGMA integrity_check") == ("ok",)
remove("last")
assert os.stat(paths.reserve).st_size == 1 << 20
"""

NO_INODE = """
import itertools
insert("a")
db.close()
for number in itertools.count():
    try:
        os.close(os.open(f"{ballast}-{number}", os.O_CREAT | os.O_WRONLY))
    except OSError:
        break
assert number > 2
assert count() == 1
remove("a")
"""

NO_FILES = """
insert("a")
db.query("PRAGMA wal_checkpoint(TRUNCATE)")
db.close()
for suffix in ("-wal", "-shm"):
    os.unlink(paths.database + suffix)
fill()
assert count() == 1
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small tmpfs")
@pytest.mark.parametrize(
    ("script", "options"), [(FULL, "size=8m"), (NO_INODE, "size=8m,nr_inodes=64"), (NO_FILES, "size=8m")]
)
def test_a_store_on_a_full_disk(tmp_path: Path, script: str, options: str) -> None:
    mount = 'mount -t tmpfs -o "$1" none "$2" && shift && exec "$PYTHON" -c "$3$4" "$1" "$2"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", options, str(tmp_path), COMMON, COMMON, script],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def sizes(store: Store) -> tuple[int, int]:
    log, index = (os.stat(store.paths.database + suffix) for suffix in ("-wal", "-shm"))
    return log.st_blocks * 512, index.st_blocks * 512


def test_the_space_of_log_and_index_is_kept(store: Store, spawn: Spawn) -> None:
    store.db.query("SELECT 1")
    assert sizes(store) >= (walfiles.LOG_BYTES, walfiles.INDEX_BYTES)
    store.db.close()
    assert sizes(store) >= (walfiles.LOG_BYTES, walfiles.INDEX_BYTES)
    finish(spawn("store.db.query('SELECT 1'); store.db.close()"))
    assert sizes(store) >= (walfiles.LOG_BYTES, walfiles.INDEX_BYTES)


def index_of(store: Store) -> bytes:
    """Read the index in another process: closing it in this one would end SQLite's locks."""
    return subprocess.run(["cat", store.paths.database + "-shm"], check=True, capture_output=True).stdout


def test_an_index_of_before_a_crash_is_not_believed(store: Store) -> None:
    with store.db.transaction():
        store.db.execute(INSERT, ("a",))
    before = index_of(store)
    with store.db.transaction():
        store.db.execute(INSERT, ("b",))
    store.db.close()
    Path(store.paths.database + "-shm").write_bytes(before)  # as a power cut may leave it
    assert store.db.one("SELECT count(*) FROM volumes") == (2,)


def test_an_index_in_use_is_left_alone(store: Store, spawn: Spawn) -> None:
    with store.db.transaction():
        store.db.execute(INSERT, ("a",))
    header = index_of(store)[:96]
    assert any(header)
    code = "from sampan.store import walfiles; walfiles.hold(store.paths.database)"
    finish(spawn(code))
    assert index_of(store)[:96] == header
    other = Database(store.paths)
    other.query("SELECT 1")
    other.close()  # which must not end the locks of the first one
    finish(spawn(code))
    assert index_of(store)[:96] == header
    store.db.close()
    finish(spawn(code))
    assert not any(index_of(store)[:96])


def test_connections_leave_no_descriptor(store: Store) -> None:
    before = descriptors()
    others = [Database(store.paths) for _ in range(3)]
    for other in others:
        other.query("SELECT 1")
    for other in others:
        other.close()
    assert descriptors() == before


def test_files_that_vanish_are_made_again(store: Store) -> None:
    store.db.query("SELECT 1")
    held = Database(store.paths)
    held.query("SELECT 1")
    store.db.close()
    os.unlink(store.paths.database + "-shm")  # by a foreign program
    walfiles.hold(store.paths.database)
    walfiles.release(store.paths.database)
    held.close()
    assert store.db.one("SELECT 1") == (1,)
