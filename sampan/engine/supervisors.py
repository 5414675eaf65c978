"""The supervisor of a container, as others see it: who it is, what it has still to tell, and how it is told to hurry.

Who it is, the kernel tells: it answers a connection to the attach socket with the identity of the listener
(SO_PEERCRED, unix(7)). The exit record appears moments after the process is gone, once the cgroup is removed, so a
reader waits for it as long as the supervisor lives.
"""

from __future__ import annotations

import os
import time

from sampan.engine import outcome
from sampan.engine.outcome import KILLED, End
from sampan.errors import Unavailable
from sampan.runtime import process

PATIENCE = 5.0
_UNKNOWN = -1
_HURRY = b"\2" + bytes(31)  # helper/supervise.h: struct hello


def await_end(home: str, socket_path: str, pid: int, start: int, patience: float = PATIENCE) -> End:
    """Give the end of a container whose first process `pid`, which started at `start` (clock ticks), is gone.

    Without a record, because the supervisor was killed or the host lost power, the code is KILLED.
    """
    found = outcome.read(home)
    if found is not None:
        return found
    holder = supervisor(socket_path)
    deadline = time.monotonic() + patience
    while _lives(holder):
        found = outcome.read(home)
        if found is not None:
            return found
        # A supervisor that is younger than the process is the one of the next start, which removed the record.
        if time.monotonic() > deadline or _state(holder) == "T" or (process.start_time(holder) or 0) > start:
            return End(_zombie_code(pid), 0, time.time_ns(), holder=holder)
        time.sleep(0.001)
    return outcome.read(home) or End(KILLED, 0, time.time_ns(), lost=True)


def hurry(socket_path: str) -> None:
    """Tell a supervisor that a stop is on its way: from now on the output of the program waits for no reader."""
    if not socket_path or not os.path.exists(socket_path):
        return
    import _socket

    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    client = _socket.socket(_socket.AF_UNIX, kind)
    try:
        client.connect(socket_path)
        client.send(_HURRY)
    except (BlockingIOError, ConnectionRefusedError, FileNotFoundError, BrokenPipeError, ConnectionResetError):
        return  # it is gone or stopped: its program ends without it
    finally:
        client.close()


def require_told(home: str, socket_path: str, name: str) -> None:
    """Raise Unavailable, and name the holder, while a supervisor has still to tell how the container ended."""
    if os.path.exists(os.path.join(home, "exit")):
        return
    holder = supervisor(socket_path)
    deadline = time.monotonic() + PATIENCE
    # One whose start failed has no more to tell, and is about to end.
    while _lives(holder) and _state(holder) != "T" and time.monotonic() < deadline:
        if os.path.exists(os.path.join(home, "exit")):
            return
        time.sleep(0.001)
    if not _lives(holder):
        return
    what = f"process {holder}" if holder > 0 else "a process"
    if _state(holder) == "T":
        raise Unavailable(
            f"cannot start container {name}: its supervisor of before, {what}, is stopped", f"kill -CONT {holder}"
        )
    raise Unavailable(f"cannot start container {name}: its supervisor of before, {what}, has not finished", "try again")


def supervisor(socket_path: str) -> int:
    """Return the pid of the process that listens on an attach socket; 0 when none does, -1 when it cannot be known."""
    if not socket_path or not os.path.exists(socket_path):
        return 0
    import _socket
    import _struct

    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    probe = _socket.socket(_socket.AF_UNIX, kind)
    try:
        probe.connect(socket_path)
        pid: int = _struct.unpack("iII", probe.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))[0]
        return pid or _UNKNOWN
    except BlockingIOError:
        return _UNKNOWN  # it lives, but does not accept
    except (ConnectionRefusedError, FileNotFoundError):
        return 0
    finally:
        probe.close()


def _lives(pid: int) -> bool:
    return pid == _UNKNOWN or _state(pid) not in ("", "Z", "X", "x")


def _state(pid: int) -> str:
    fields = process.stat(pid)
    return fields[0].decode() if fields else ""


def _zombie_code(pid: int) -> int:
    """Return the exit code of a process that nobody has collected yet (proc(5) stat field 52)."""
    fields = process.stat(pid)
    if len(fields) < 50 or fields[0] not in (b"Z", b"X"):
        return KILLED
    status = int(fields[49])
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


class Watch:
    """Hold the exit record of a running container open, so that it can be read when the container removes itself."""

    def __init__(self, home: str) -> None:
        try:
            self.fd = os.open(os.path.join(home, "exit.new"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.fd = -1

    def code(self) -> int | None:
        """Give the exit code once the supervisor has written it."""
        if self.fd < 0:
            return None
        try:
            return outcome.parse(os.pread(self.fd, 256, 0)).code
        except ValueError:
            return None

    def close(self) -> None:
        """Let the file go."""
        if self.fd >= 0:
            os.close(self.fd)
