"""Files that a command reads or writes for the caller: `-o FILE`, `-i FILE`, or the standard streams.

A file appears under its name only when it is whole and on disk. Archives are never written to a terminal.
"""

from __future__ import annotations

import os
import sys

from sampan.errors import InvalidArgument, NotFound, Unavailable
from sampan.store.wholefile import WholeFile


class Output(WholeFile):
    """`-o FILE`: a whole file, or standard output for `-` and an empty path, but never a terminal."""

    instead = "use -o FILE"

    def __enter__(self) -> int:
        if self.path not in ("", "-"):
            return super().__enter__()
        if os.isatty(1):
            raise InvalidArgument(
                f"cannot write {self.what} to a terminal", f"{self.instead}, or send the output elsewhere"
            )
        return 1


def open_input(path: str, what: str) -> int:
    """Return a descriptor to read an archive from: a file's, or standard input for `-` and an empty path."""
    if path in ("", "-"):
        if os.isatty(0):
            raise InvalidArgument(f"cannot read {what} from a terminal", "name a file, or send it to standard input")
        return standard_input(what)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise NotFound(f"cannot read {what} from {path}: there is no such file") from exc
    except OSError as exc:
        raise Unavailable(f"cannot read {what} from {path}: {exc.strerror}") from exc


def standard_input(what: str) -> int:
    """Return the descriptor 0, if it can be read from."""
    import fcntl

    if "stdin" in sys._xoptions:  # bin/sampan: the interpreter would not start with it
        fault = "is a directory"
    elif fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        fault = "is open for writing only"
    else:
        return 0
    raise InvalidArgument(f"cannot read {what} from standard input: it {fault}", "send a file or a pipe there")


def write_text(path: str, text: str, what: str) -> None:
    """Write a small file, whole or not at all."""
    with Output(path, what) as fd:
        data = text.encode()
        if os.write(fd, data) != len(data):
            raise Unavailable(f"cannot write {what} to {path}: only a part was written")
