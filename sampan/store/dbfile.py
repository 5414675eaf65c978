"""The database's file: how it is made, opened and upgraded, and what its errors mean.

The file appears complete or not at all: it is made under a temporary name, then renamed, one process at a time.
SQLite's errors are translated here and nowhere else. `ps`, `stop`, `rm` and `prune` work with no byte free: what they
read and write has its space beforehand (store/walfiles.py), and where the file must grow to take in the log, a reserve
is given up for it.
"""

from __future__ import annotations

import os
import sys

from sampan.errors import Conflict, Denied, IntegrityError, NotSupported, SampanError, Unavailable
from sampan.store import reserve, schema, walfiles
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUSY_SECONDS = 30
# Pages in the log before a commit folds it into the file. A first opener reads the whole log, so it is kept short.
_CHECKPOINT_PAGES = 256
# SQLite's result codes (sqlite.org/rescode.html): the low byte of an extended code.
_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN = 3, 5, 6, 8, 10, 11, 13, 14
_CONSTRAINT, _NOTADB = 19, 26


def sqlite() -> Any:
    """Return SQLite's C module, imported on first use."""
    global _module
    if _module is None:
        _module = _import_with_stand_in() if "functools" not in sys.modules else _import()
    return _module


_module: Any = None


def _import() -> Any:
    import _sqlite3

    return _sqlite3


def _import_with_stand_in() -> Any:
    # _sqlite3 wants functools.lru_cache, whose core is C already; the rest of functools would cost another 3 ms.
    import _functools  # type: ignore[import-not-found,unused-ignore]

    stand_in: Any = type(sys)("functools")
    stand_in.lru_cache = lambda maxsize: lambda call: _functools._lru_cache_wrapper(call, maxsize, False, tuple)
    sys.modules["functools"] = stand_in
    try:
        return _import()
    finally:
        del sys.modules["functools"]


def connect(paths: Paths) -> Any:
    """Open the database; where its files beside it are not there and the disk is full, give up the reserve for them."""
    try:
        return _held_connect(paths.database)
    except sqlite().Error as exc:
        if _code(exc) not in (_FULL, _IOERR, _CANTOPEN) or not reserve.release(paths):
            raise
    return _held_connect(paths.database)


def disconnect(connection: Any, paths: Paths) -> None:
    """Close a connection; its files stay as they are."""
    connection.close()
    walfiles.release(paths.database)


def _held_connect(path: str) -> Any:
    walfiles.hold(path)
    try:
        return _connect(path)
    except BaseException:
        walfiles.release(path)
        raise


def _connect(path: str) -> Any:
    connection = sqlite().connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != schema.VERSION:
            _migrate(connection, path, version)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    if hasattr(connection, "setconfig"):  # Python >= 3.12: do not fold the log at every exit
        connection.setconfig(sqlite().SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    return connection


def create(paths: Paths) -> None:
    """Make the database, unless another process does it first."""
    import fcntl

    paths.make()
    directory = os.open(paths.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock = os.open(paths.cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the root's own lock is `Paths.hold`
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(paths.database):
            return
        _create_file(paths.database + ".new")
        walfiles.forget(paths.database)
        os.rename(paths.database + ".new", paths.database)
        os.fsync(directory)
        reserve.make(paths)
    finally:
        os.close(lock)
        os.close(directory)


def _create_file(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):  # left by a process that was killed here
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite().connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        _upgrade(connection, 0)
    finally:
        connection.close()


def _migrate(connection: Any, path: str, version: int) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != schema.APPLICATION_ID:
        raise IntegrityError(f"cannot open the store: {path} is not a database of sampan")
    if version > schema.VERSION:
        raise NotSupported(
            f"cannot open the store {path}: its version is {version}, this sampan knows {schema.VERSION}",
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
        connection.execute(f"PRAGMA user_version={schema.VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _code(exc: Any) -> int:
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def translate(exc: Any, paths: Paths, action: str) -> SampanError:
    """Return our error for one of SQLite's."""
    code = _code(exc)
    what = f"cannot {action} {paths.root}"
    if code in (_BUSY, _LOCKED):
        return Unavailable(f"{what}: {_holder(paths.database)} has held its lock for {BUSY_SECONDS} s")
    if code == _FULL or (code in (_IOERR, _CANTOPEN) and reserve.is_full(paths.root)):
        return Unavailable(f"{what}: {reserve.fault(paths.root)}", reserve.HINT)
    if code in (_CORRUPT, _NOTADB):
        return IntegrityError(f"{what}: {paths.database} is damaged ({exc})", "run `sampan system check --repair`")
    if code == _CONSTRAINT:
        return Conflict(f"{what}: {exc}")
    if code in (_PERM, _READONLY, _CANTOPEN):
        return Denied(f"{what}: {exc}", f"check who owns {paths.root}, or set SAMPAN_ROOT")
    return Unavailable(f"{what}: {exc}")


def _holder(database: str) -> str:
    """Name the process with the write lock: byte 120 of the log's index (sqlite.org/walformat.html, "WAL Locks")."""
    try:
        inode = os.stat(database + "-shm").st_ino
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if (
                    fields[-3].endswith(f":{inode}")
                    and fields[-4].isdecimal()
                    and int(fields[-2]) <= 120 <= int(fields[-1])
                ):
                    return f"process {fields[-4]}"
    except (OSError, ValueError, IndexError):
        return "another process"
    return "another process"
