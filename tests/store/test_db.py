"""The database: made once, shared by threads and processes, durable or not, and clear about what is wrong."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from storekit import ROOT, Spawn, Store, finish, killed

from sampan.errors import Conflict, IntegrityError, InvalidArgument, NotSupported, Unavailable
from sampan.store import dbfile, schema
from sampan.store.db import Database
from sampan.store.paths import Paths

INSERT = "INSERT INTO volumes VALUES (?, 0, 0, '{}')"


def count(store: Store) -> int:
    row = store.db.one("SELECT count(*) FROM volumes")
    assert row is not None
    return int(row[0])


def test_nothing_is_made_before_the_first_query(tmp_path: Path) -> None:
    db = Database(Paths(str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()
    assert db.query("SELECT * FROM images") == []


def test_a_transaction_happens_as_a_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.db.transaction():
        store.db.execute(INSERT, ("a",))
        raise ZeroDivisionError
    assert count(store) == 0
    with store.db.transaction():
        store.db.execute(INSERT, ("a",))
        with store.db.transaction():
            store.db.execute(INSERT, ("b",))
    assert count(store) == 2


def test_an_inner_transaction_is_undone_with_the_outer(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.db.transaction():
        with store.db.transaction():
            store.db.execute(INSERT, ("a",))
        raise ZeroDivisionError
    assert count(store) == 0


def test_writing_outside_of_a_transaction_is_a_bug(store: Store) -> None:
    with pytest.raises(RuntimeError):
        store.db.execute(INSERT, ("a",))


def test_durable_transactions_sync_fully_and_others_do_not(store: Store) -> None:
    for durable, level in ((True, 2), (False, 1), (True, 2)):
        with store.db.transaction(durable=durable):
            assert store.db.one("PRAGMA synchronous") == (level,)


def test_the_file_is_in_wal_mode_with_foreign_keys_and_its_version(store: Store) -> None:
    assert store.db.one("PRAGMA journal_mode") == ("wal",)
    assert store.db.one("PRAGMA foreign_keys") == (1,)
    assert store.db.one("PRAGMA user_version") == (dbfile.VERSION,) == (len(schema.MIGRATIONS),)
    assert store.db.one("PRAGMA application_id") == (schema.APPLICATION_ID,)


def test_directories_and_files_are_closed_to_other_users(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path / "made" / "store"))
    old = os.umask(0)
    try:
        Database(paths).query("SELECT 1")
    finally:
        os.umask(old)
    modes = {name: stat.S_IMODE(os.stat(f"{paths.root}/{name}").st_mode) for name in os.listdir(paths.root)}
    assert {mode for name, mode in modes.items() if os.path.isdir(f"{paths.root}/{name}")} == {0o700}
    assert modes["sampan.db"] == 0o600
    assert stat.S_IMODE(os.stat(paths.root).st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


def test_a_broken_constraint_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict), store.db.transaction():
        store.db.execute(INSERT, ("a",))
        store.db.execute(INSERT, ("a",))
    assert count(store) == 0


def test_threads_share_one_connection(store: Store) -> None:
    def work(number: int) -> None:
        for step in range(20):
            with store.db.transaction(durable=False):
                before = count(store)
                store.db.execute(INSERT, (f"{number}-{step}",))
                assert count(store) == before + 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(store) == 160


def test_processes_that_all_make_the_store_agree_on_one(spawn: Spawn, store: Store) -> None:
    code = f"""
    for step in range(20):
        with store.db.transaction(durable=False):
            store.db.execute({INSERT!r}, (f"{{os.getpid()}}-{{step}}",))
    """
    for process in [spawn(code) for _ in range(6)]:
        finish(process)
    assert count(store) == 120
    assert store.db.one("PRAGMA integrity_check") == ("ok",)


def _in_child(store: Store, queue: Any) -> None:
    with store.db.transaction():
        store.db.execute(INSERT, ("child",))
    queue.put(count(store))


def test_a_forked_child_opens_its_own_connection(store: Store) -> None:
    with store.db.transaction():
        store.db.execute(INSERT, ("parent",))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(store, queue))
    child.start()
    assert queue.get(timeout=60) == 2
    child.join()
    assert count(store) == 2


def test_kill_in_the_middle_of_transactions_loses_only_the_last(spawn: Spawn, store: Store) -> None:
    code = f"""
    print("begun", flush=True)
    step = 0
    while True:
        with store.db.transaction(durable=False):
            store.db.execute({INSERT!r}, (f"{{os.getpid()}}-{{step}}-a",))
            store.db.execute({INSERT!r}, (f"{{os.getpid()}}-{{step}}-b",))
        step += 1
    """
    for attempt in range(8):
        killed(spawn(code), "begun", 0.01 * attempt)
        names = {name for (name,) in store.db.query("SELECT name FROM volumes")}
        assert {name[:-1] + "b" for name in names} == {name[:-1] + "b" for name in names if name.endswith("b")}
        assert all(name[:-1] + "a" in names for name in names)
        assert store.db.one("PRAGMA integrity_check") == ("ok",)


def test_kill_while_the_store_is_made_leaves_none_or_a_whole_one(spawn: Spawn, tmp_path: Path) -> None:
    for attempt in range(10):
        root = str(tmp_path / f"store{attempt}")
        killed(spawn('print("begun", flush=True)\nstore.db.query("SELECT 1")', root=root), "begun", 0.002 * attempt)
        assert Store(root).db.query("SELECT * FROM images") == []


def test_a_durable_commit_is_seen_after_the_writer_was_killed(spawn: Spawn, store: Store) -> None:
    process = spawn(f"""
    with store.db.transaction():
        store.db.execute({INSERT!r}, ("kept",))
    print("done", flush=True)
    time.sleep(60)
    """)
    killed(process, "done")
    assert count(store) == 1


def test_a_newer_store_is_refused_and_left_alone(store: Store) -> None:
    store.db.query("SELECT 1")
    store.db.close()
    raw = sqlite3.connect(store.paths.database)
    raw.execute(f"PRAGMA user_version={dbfile.VERSION + 1}")
    raw.close()
    with pytest.raises(NotSupported, match=f"version is {dbfile.VERSION + 1}"):
        Database(store.paths).query("SELECT 1")


def test_another_programs_database_is_refused(store: Store) -> None:
    store.paths.make()
    raw = sqlite3.connect(store.paths.database)
    raw.execute("CREATE TABLE t (x)")
    raw.close()
    with pytest.raises(IntegrityError, match="not a database of sampan"):
        store.db.query("SELECT 1")


def test_an_older_store_is_upgraded_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.db.query("SELECT 1")
    store.db.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE added (x);"))
    monkeypatch.setattr(dbfile, "VERSION", dbfile.VERSION + 1)
    for _ in range(2):
        upgraded = Database(store.paths)
        assert upgraded.query("SELECT * FROM added") == []
        upgraded.close()


def test_a_damaged_file_is_named(store: Store) -> None:
    store.db.query("SELECT 1")
    store.db.close()
    with open(store.paths.database, "r+b") as file:
        file.write(b"\0" * 4096)
    with pytest.raises(IntegrityError, match=r"sampan\.db is (damaged|not a database of sampan)") as caught:
        Database(store.paths).query("SELECT * FROM images")
    assert "system check --repair" in caught.value.hint


def test_a_lock_that_stays_names_its_holder(spawn: Spawn, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    process = spawn(f"""
    with store.db.transaction():
        store.db.execute({INSERT!r}, ("a",))
        print("locked", flush=True)
        time.sleep(60)
    """)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr(dbfile, "BUSY_SECONDS", 0.2)
    waiting = Database(store.paths)
    assert waiting.query("SELECT * FROM volumes") == []  # readers do not wait
    with pytest.raises(Unavailable, match=f"process {process.pid} has held its lock"), waiting.transaction():
        pytest.fail("got the lock")
    os.kill(process.pid, signal.SIGCONT)


def test_opening_costs_little(store: Store) -> None:
    store.db.query("SELECT 1")
    store.db.close()
    code = f"""
import sys
sys.path.append({str(ROOT)!r})
from sampan.store import dbfile
from sampan.store.db import Database
from sampan.store.paths import Paths
dbfile.sqlite()
calls = 0
def count(frame, event, what):
    global calls
    calls += event in ("call", "c_call")
for _ in range(2):
    calls = 0
    sys.setprofile(count)
    db = Database(Paths({store.paths.root!r}))
    db.one("SELECT id FROM images WHERE id = 'x'")
    sys.setprofile(None)
heavy = {{"functools", "collections", "re", "json", "sqlite3", "datetime", "typing"}} & set(sys.modules)
print(calls, *heavy)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    calls, *heavy = done.stdout.split()
    assert not heavy
    assert int(calls) < 60


def test_locate_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from sampan.store.paths import locate

    for name in ("SAMPAN_ROOT", "SAMPAN_RUN", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)

    def found() -> tuple[str, str]:
        paths = locate()
        return paths.root, paths.run

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert found() == ("/var/lib/sampan", "/run/sampan")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    assert found() == ("/home/u/.local/share/sampan", "/home/u/.local/share/sampan/run")
    monkeypatch.setenv("HOME", "/")
    assert found()[0] == "/.local/share/sampan"
    monkeypatch.setattr(os, "geteuid", lambda: 65534 if os.getuid() else 1)
    account = pwd.getpwuid(os.geteuid()).pw_dir
    for none in ("", "relative"):
        monkeypatch.setenv("HOME", none)
        assert found()[0] == f"{account}/.local/share/sampan"
    monkeypatch.delenv("HOME")
    assert found()[0] == f"{account}/.local/share/sampan"
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(InvalidArgument, match="no home directory"):
        found()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert found() == ("/home/u/.local/share/sampan", "/run/user/1000/sampan")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert found() == ("/data/sampan", "/run/user/1000/sampan")
    monkeypatch.setenv("SAMPAN_ROOT", "/s")
    assert found() == ("/s", "/s/run")
    monkeypatch.setenv("SAMPAN_RUN", "/r")
    assert found() == ("/s", "/r")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b", "x" * 256, ".active"])
def test_a_name_that_is_no_directory_name_has_no_path(name: str, tmp_path: Path) -> None:
    from sampan.errors import InvalidArgument

    paths = Paths(str(tmp_path))
    for compute in (paths.container, paths.snapshot, paths.volume, paths.volume_data, paths.blob):
        with pytest.raises(InvalidArgument):
            compute(name)
