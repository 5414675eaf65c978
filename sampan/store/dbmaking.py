"""The database's file: how it is made and upgraded.

It appears complete or not at all: it is made under a temporary name, then renamed, one process at a time. So is one
that takes the place of a damaged one (`replace`). A log must never be read into another database, nor a database be
read without its log, whenever the power goes: the old one's name goes first, the log's then, and where there is no
database, the one that is ready takes its name.
"""

from __future__ import annotations

import os
import time

from sampan.errors import IntegrityError, NotSupported
from sampan.store import dbfile, files, reserve, schema, walfiles
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEPT = ".damaged-"  # sampan.db.damaged-<unix time>
READY = ".repaired-"  # sampan.db.repaired-<unix time>: what takes the place of a damaged one
MAKING = ".repairing"


def create(paths: Paths) -> None:
    """Make the database, unless another process does it first."""
    import fcntl

    paths.make()
    directory = os.open(paths.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock = os.open(paths.cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the root's own lock is `Paths.hold`
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(paths.database) or _finish(paths):
            return
        _create_file(paths.database + ".new")
        walfiles.forget(paths.database)
        os.rename(paths.database + ".new", paths.database)
        os.fsync(directory)
        reserve.make(paths)
    finally:
        os.close(lock)
        os.close(directory)


def replace(paths: Paths, made: str) -> str:
    """Put a database that is closed, its log folded, in the place of the store's; return where that one is kept.

    The caller has the store alone.
    """
    stamp = str(int(time.time()))
    walfiles.forget(made)
    fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(made, paths.database + READY + stamp)
    files.sync_directory(paths.root)
    _finish(paths)
    return paths.database + KEPT + stamp


def _finish(paths: Paths) -> bool:
    """Go on where `replace` was, if a database is ready; tell whether there was one."""
    base = os.path.basename(paths.database) + READY
    for name in os.listdir(paths.root):
        if name.startswith(base):
            for suffix in ("", "-wal", "-shm"):
                _move(paths, paths.database + suffix, paths.database + KEPT + name.removeprefix(base) + suffix)
            _move(paths, f"{paths.root}/{name}", paths.database)
            return True
    return False


def _move(paths: Paths, source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return
    files.sync_directory(paths.root)


def forget_unfinished(paths: Paths) -> None:
    """Remove what replacements that were cut short had made; the caller has the store alone."""
    for name in os.listdir(paths.root):
        if name.startswith((os.path.basename(paths.database) + READY, os.path.basename(paths.database) + MAKING)):
            files.unlink(f"{paths.root}/{name}")


def _create_file(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):  # left by a process that was killed here
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = dbfile.sqlite().connect(path, timeout=dbfile.BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        _upgrade(connection, 0)
    finally:
        connection.close()


def migrate(connection: Any, path: str, version: int) -> None:
    """Bring the database of an older version to this one; NotSupported, IntegrityError for what is none of ours."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != schema.APPLICATION_ID:
        raise IntegrityError(
            f"cannot open the store: {path} is not a database of sampan",
            "`sampan system check --repair` makes one from the files beside it; SAMPAN_ROOT chooses another store",
        )
    if version > dbfile.VERSION:
        raise NotSupported(
            f"cannot open the store {path}: its version is {version}, this sampan knows {dbfile.VERSION}",
            "use the newer sampan that wrote it, or set SAMPAN_ROOT to another directory",
        )
    _upgrade(connection, version)


def _upgrade(connection: Any, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have upgraded while this one waited for the lock.
        version = max(version, connection.execute("PRAGMA user_version").fetchone()[0])
        for migration in schema.MIGRATIONS[version:]:
            for statement in migration.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={dbfile.VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
