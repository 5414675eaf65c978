"""How a container ended: the record that its supervisor leaves, and what to think when there is none.

The record is one line, `status oom_kills started finished` (helper/finish.c). It appears moments after the process is
gone, once the cgroup is removed, so a reader waits for it as long as the supervisor lives, which its socket tells.
"""

from __future__ import annotations

import os
import time

PATIENCE = 10.0


def await_record(home: str, socket_path: str) -> tuple[int, int, int]:
    """Give exit code, whether memory ran out, and the time of the end in unix nanoseconds.

    Without a record, because the supervisor was killed or the host lost power, it is 137, as Docker reports such an
    end.
    """
    path = os.path.join(home, "exit")
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(path) and time.monotonic() < deadline and _listens(socket_path):
        time.sleep(0.001)
    try:
        with open(path, "rb") as file:
            return parse(file.read(256))
    except (FileNotFoundError, ValueError):
        return 137, 0, time.time_ns()


def parse(data: bytes) -> tuple[int, int, int]:
    """Read a record's line; ValueError when it is not one."""
    status, kills, _started, ended = data.split()
    number = int(status)
    code = 128 + (number & 0x7F) if number & 0x7F else number >> 8 & 0xFF
    seconds, _, nanos = ended.partition(b".")
    return code, int(int(kills) > 0), int(seconds) * 1_000_000_000 + int(nanos)


def _listens(socket_path: str) -> bool:
    """Say whether a supervisor answers; one that is gone leaves a socket that refuses."""
    if not socket_path or not os.path.exists(socket_path):
        return False
    import _socket

    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.connect(socket_path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    finally:
        probe.close()
    return True
