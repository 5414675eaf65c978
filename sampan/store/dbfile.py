"""The database's file: how it is opened; dbmaking.py makes and upgrades it, dberrors.py says what its errors mean.

`ps`, `stop`, `rm` and `prune` work with no byte free: what they read and write has its space beforehand
(store/walfiles.py), and where the file must grow to take in the log, a reserve is given up for it.
"""

from __future__ import annotations

import sys

from sampan.store import reserve, walfiles
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2  # of the tables: how many MIGRATIONS store/schema.py has
BUSY_SECONDS = 30
# Pages in the log before a commit folds it into the file. A first opener reads the whole log, so it is kept short.
_CHECKPOINT_PAGES = 256
# SQLite's result codes (sqlite.org/rescode.html): the low byte of an extended code.
IOERR, FULL, CANTOPEN = 10, 13, 14


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
        if code(exc) not in (FULL, IOERR, CANTOPEN) or not reserve.release(paths):
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
        if version != VERSION:
            from sampan.store import dbmaking

            dbmaking.migrate(connection, path, version)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    if hasattr(connection, "setconfig"):  # Python >= 3.12: do not fold the log at every exit
        connection.setconfig(sqlite().SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    return connection


def code(exc: Any) -> int:
    """Give the result code of one of SQLite's errors, without its extension."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
