"""What SQLite's errors mean: translated here and nowhere else (sqlite.org/rescode.html)."""

from __future__ import annotations

import os

from sampan.errors import Conflict, Denied, IntegrityError, SampanError, Unavailable
from sampan.store import dbfile, reserve
from sampan.store.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PERM, _BUSY, _LOCKED, _READONLY, _CORRUPT, _CONSTRAINT, _NOTADB = 3, 5, 6, 8, 11, 19, 26


def translate(exc: Any, paths: Paths, action: str) -> SampanError:
    """Return our error for one of SQLite's."""
    code = dbfile.code(exc)
    what = f"cannot {action} {paths.root}"
    if code in (_BUSY, _LOCKED):
        return Unavailable(f"{what}: {_holder(paths.database)} has held its lock for {dbfile.BUSY_SECONDS} s")
    if code == dbfile.FULL or (code in (dbfile.IOERR, dbfile.CANTOPEN) and reserve.is_full(paths.root)):
        return Unavailable(f"{what}: {reserve.fault(paths.root)}", reserve.HINT)
    if code in (_CORRUPT, _NOTADB):
        return IntegrityError(f"{what}: {paths.database} is damaged ({exc})", "run `sampan system check --repair`")
    if code == _CONSTRAINT:
        return Conflict(f"{what}: {exc}")
    from sampan.store import files

    if code in (_READONLY, dbfile.CANTOPEN) and files.is_read_only(paths.root):
        return Denied(f"{what}: its file system is mounted read-only", files.READ_ONLY)
    if code in (_PERM, _READONLY, dbfile.CANTOPEN):
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
