"""How a container ended: the record that its supervisor leaves, and what to do when there is none.

The record is one line, `status oom_kills started finished` (helper/finish.c), with four words more where a restart is
due (engine/restarting.py). It is all that `ps` and `rm` need of an end; `supervisors.py` is asked where it is missing.
"""

from __future__ import annotations

from sampan.engine.alone import Alone, gone
from sampan.errors import NotFound, SampanError
from sampan.runtime import cgroup, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

KILLED = 137  # as Docker reports an end that nobody saw


class End:
    """Hold how it ended: exit code, whether memory ran out, when (unix ns).

    `waiter`: pid, start time, count and pause (ms) of who waits to start it again, or nothing; `lost`: no supervisor
    told, so what it would have removed is still there; `holder`: the supervisor that lives but has not told yet, 0 if
    there is none.
    """

    __slots__ = ("code", "finished", "holder", "lost", "oom", "waiter")

    def __init__(
        self, code: int, oom: int, finished: int, *, waiter: tuple[int, ...] = (), lost: bool = False, holder: int = 0
    ) -> None:
        self.code = code
        self.oom = oom
        self.finished = finished
        self.waiter = waiter
        self.lost = lost
        self.holder = holder

    def is_awaited(self, boot: str) -> bool:
        """Say whether somebody still waits to start it again."""
        return len(self.waiter) == 4 and process.alive(self.waiter[0], self.waiter[1], boot)


def parse(data: bytes) -> End:
    """Read a record's line; ValueError when it is not one."""
    status, kills, _started, ended, *waiter = data.split()
    number = int(status)
    code = 128 + (number & 0x7F) if number & 0x7F else number >> 8 & 0xFF
    seconds, _, nanos = ended.partition(b".")
    words = tuple(int(word) for word in waiter[:4])
    return End(code, int(int(kills) > 0), int(seconds) * 1_000_000_000 + int(nanos), waiter=words)


def read(home: str) -> End | None:
    """Give the record of a container's end; None when there is none (yet).

    Where a removal was begun and not finished it lies in the directory's new name.
    """
    for directory in (home, gone(home)):
        try:
            return parse(process.read(f"{directory}/exit"))
        except (FileNotFoundError, ValueError):
            continue
    return None


def ended(engine: Engine, record: Record) -> tuple[dict[str, Any], bool]:
    """Give the state of a container whose first process is gone; the flag says that it is final."""
    home = engine.store.paths.container(record.id)
    end = read(home)
    if end is None:
        from sampan.engine import supervisors

        end = supervisors.await_end(home, engine.containers.socket(record.id), record.pid, record.pid_start)
    if end.code == KILLED and not end.oom:  # a group that `update` made is not the supervisor's to look at
        end.oom = int(cgroup.oom_kills(cgroup.named(record.id)) > 0)
    cleared = not end.lost or _clear(engine, record)
    if end.lost and record.status == "restarting":  # whoever started it again was killed: it never ran
        end.code, end.oom, end.finished = record.exit_code, record.oom, record.finished
    due = end.is_awaited(record.boot_id)
    status = "restarting" if due else "exited"
    state = {"status": status, "exit_code": end.code, "finished": end.finished, "pid": 0, "oom": end.oom}
    return state, cleared and not (end.holder or due)


def _clear(engine: Engine, record: Record) -> bool:
    """Remove what the supervisor of an ended container would have removed, had it lived; say whether that is settled.

    Where a power cut took the supervisor it may have taken the container's directory, which nobody has synced then.
    While another holds the lock it is not: he may have begun to start it again, and what is there is new.
    """
    try:
        with Alone(engine.store.paths.container(record.id), restore=True, wait=False):
            if engine.store.containers.get(record.id).pid == record.pid:
                placement = cgroup.named(record.id)
                cgroup.kill(placement)
                cgroup.remove(placement)
    except BlockingIOError:
        return False
    except NotFound:
        return True
    except (SampanError, OSError) as error:
        engine.warn([f"container {record.name}: {error}"])
    return True
