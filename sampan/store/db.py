"""The store's database: one SQLite file in WAL mode, opened on first use; its tables are drawn in store/schema.py.

Rules:
- Writing happens inside `transaction()`. It takes the write lock at once (BEGIN IMMEDIATE): it never fails half-way on
  a lock that another process took meanwhile.
- A durable transaction is on the disk when it returns (synchronous=FULL); others may be lost to a power cut, not torn.
- One connection, guarded by a lock, serves all threads of a process; a forked child opens its own.
- Closing folds no log into the file: that costs two fsyncs, and a later commit does it when the log has become long.
- On a full disk the log is folded before each transaction, so that it stays within the space that it has; where the
  file cannot grow for that, only transactions that free something go on.
"""

from __future__ import annotations

import os
from _thread import RLock

from sampan.errors import SampanError, Unavailable
from sampan.store import dbfile, reserve
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any

    Row = tuple[Any, ...]


class Database:
    """The database of one store; nothing is opened before the first query."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._connection: Any = None
        self._pid = os.getpid()
        self._lock = RLock()
        self._depth = 0
        self._synchronous = ""
        self._abandoned: list[Any] = []
        self._after: list[Callable[[], None]] = []

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT."""
        return self._run(sql, args)[0]

    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a SELECT, or None."""
        rows = self.query(sql, args)
        return rows[0] if rows else None

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Perform one INSERT, UPDATE or DELETE inside a transaction; return how many rows it touched."""
        if not self._depth:
            raise RuntimeError("Database.execute() outside of transaction()")
        return self._run(sql, args)[1]

    def insert(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Perform one INSERT inside a transaction; return the new row's number."""
        self.execute(sql, args)
        row = self.one("SELECT last_insert_rowid()")
        assert row is not None
        return int(row[0])

    def transaction(self, *, durable: bool = True, frees: bool = False) -> Transaction:
        """Return a context in which writes happen together; `frees` says that they only make room or record state.

        Such a transaction works on a full disk, at need by giving up the store's reserve. A nested one joins the outer
        one.
        """
        return Transaction(self, durable, frees)

    def afterwards(self, call: Callable[[], None]) -> None:
        """Have something done when the transaction that is under way has been committed; not if it fails."""
        self._after.append(call)

    def close(self) -> None:
        """Close the connection, if any."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                dbfile.disconnect(self._connection, self.paths)
            self._connection = None

    def open(self) -> Any:
        """Return the connection, opening it if this process has none."""
        if self._pid != os.getpid():
            # Inherited through fork: closing it would fold and unlink a log that the parent is using.
            self._abandoned.append(self._connection)
            self._connection, self._lock, self._depth, self._pid = None, RLock(), 0, os.getpid()
        if self._connection is None:
            with self._lock:
                if self._connection is None:
                    self._connection = self._open()
                    self._synchronous = ""
        return self._connection

    def _open(self) -> Any:
        sqlite = dbfile.sqlite()
        try:
            if not os.path.exists(self.paths.database):
                from sampan.store import dbmaking

                dbmaking.create(self.paths)
            return dbfile.connect(self.paths)
        except sqlite.Error as exc:
            raise self._error(exc, "open the store") from exc
        except OSError as exc:
            raise Unavailable(f"cannot open the store {self.paths.root}: {exc.strerror}") from exc

    def _run(self, sql: str, args: Sequence[Any]) -> tuple[list[Row], int]:
        self.open()
        with self._lock:
            try:
                cursor = self._connection.execute(sql, args)
                return cursor.fetchall(), cursor.rowcount
            except dbfile.sqlite().Error as exc:
                raise self._error(exc, "use the store") from exc

    def _error(self, exc: Any, action: str) -> SampanError:
        from sampan.store import dberrors

        return dberrors.translate(exc, self.paths, action)

    def _begin(self, durable: bool, frees: bool) -> None:
        if self._depth == 0:
            if reserve.is_full(self.paths.root):
                self._fold(frees)
            elif frees and not reserve.is_whole(self.paths) and not reserve.is_full(self.paths.root, 4):
                reserve.make(self.paths)  # given up some time ago, and there is room again
            level = "FULL" if durable else "NORMAL"
            if self._synchronous != level:
                self._run(f"PRAGMA synchronous={level}", ())
                self._synchronous = level
            self._run("BEGIN IMMEDIATE", ())
        self._depth += 1

    def prepare(self) -> None:
        """Raise Unavailable where a transaction that frees nothing would be refused: the disk is full."""
        if self._depth == 0 and reserve.is_full(self.paths.root):
            self._fold(False)

    def _fold(self, frees: bool) -> None:
        """Make room in the log. Where the file must grow for it and cannot, what frees something gives up the reserve,
        and goes on with what room the log has left; anything else is refused.
        """
        given = False
        while True:
            try:
                self._run("PRAGMA wal_checkpoint(PASSIVE)", ())
                break
            except Unavailable:
                if not frees:
                    raise
                if not reserve.release(self.paths):
                    break
                given = True
        if given:
            reserve.make(self.paths)  # of what is left

    def _end(self, failed: bool) -> None:
        self._depth -= 1
        if self._depth:
            return
        calls, self._after = self._after, []
        if failed:
            self._rollback()
            return
        try:
            self._run("COMMIT", ())
        except SampanError:
            self._rollback()
            raise
        for call in calls:
            call()

    def _rollback(self) -> None:
        # A failed COMMIT or a full disk may have ended the transaction already.
        if self._connection.in_transaction:
            self._run("ROLLBACK", ())


class Transaction:
    """Writes that happen together or not at all; raising inside undoes them."""

    __slots__ = ("_db", "_durable", "_frees", "_lock")

    def __init__(self, db: Database, durable: bool, frees: bool) -> None:
        self._db = db
        self._durable = durable
        self._frees = frees

    def __enter__(self) -> Database:
        self._db.open()
        self._lock = self._db._lock
        self._lock.acquire()
        try:
            self._db._begin(self._durable, self._frees)
        except BaseException:
            self._lock.release()
            raise
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._db._end(kind is not None)
        finally:
            self._lock.release()
