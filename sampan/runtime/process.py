"""A process, known by pid, start time and boot: so that no other is ever taken for it.

Pids are reused; a start time (clock ticks since boot, proc(5) stat field 22) tells two holders of one pid apart, and a
boot id tells boots apart. Signals go through a pidfd that is opened first and checked then: from there on it can only
mean that process.
"""

from __future__ import annotations

import os

from sampan.errors import Denied, InvalidArgument, NotFound, Unavailable

# signal(7), x86 and ARM; C libraries keep 32 and 33 for themselves, so RTMIN is 34 for programs.
_SIGNALS = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
        "TERM",
    ),
    *("STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO"),
    *("PWR", "SYS"),
)
_NUMBERS = {name: number for number, name in enumerate(_SIGNALS, 1)} | {"IOT": 6, "CLD": 17, "POLL": 29}
_RTMIN, _RTMAX = 34, 64


def signal_number(text: str) -> int:
    """Return the number of `TERM`, `sigterm`, `15`, `RTMIN+3` or `RTMAX-1`."""
    name = text.strip().upper().removeprefix("SIG")
    number = _NUMBERS.get(name, 0)
    if name.isascii() and name.isdigit() and len(name) < 4:
        number = int(name)
    elif name[:5] in ("RTMIN", "RTMAX"):
        number = _real_time(name)
    if not 1 <= number <= _RTMAX:
        from sampan.nearest import did_you_mean

        hint = did_you_mean(name, _NUMBERS) or "use a name such as TERM or SIGKILL, or a number from 1 to 64"
        raise InvalidArgument(f"unknown signal {text[:60]!r}", hint)
    return number


def _real_time(name: str) -> int:
    base, rest = (_RTMIN if name[:5] == "RTMIN" else _RTMAX), name[5:]
    if not rest:
        return base
    digits = rest[1:]
    if rest[0] not in "+-" or not (digits.isascii() and digits.isdigit()) or len(digits) > 2:
        return 0
    number = base + int(digits) * (1 if rest[0] == "+" else -1)
    return number if _RTMIN <= number <= _RTMAX else 0


def signal_name(number: int) -> str:
    """Return the name of a signal as `SIGTERM`."""
    if 1 <= number <= len(_SIGNALS):
        return f"SIG{_SIGNALS[number - 1]}"
    return f"SIGRTMIN+{number - _RTMIN}" if number > _RTMIN else f"SIG{number}"


_boot_id = ""


def boot_id() -> str:
    """Return the id that the kernel made at this boot; read once, as no process outlives it."""
    global _boot_id
    if not _boot_id:
        _boot_id = read("/proc/sys/kernel/random/boot_id").strip().decode("ascii")
    return _boot_id


def read(path: str) -> bytes:
    """Read a small file at once; a file object would cost more than the reading, and `ps` looks at every process."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def parse_stat(data: bytes) -> list[bytes]:
    """Return the fields of /proc/PID/stat (proc(5)) from the third on: state, parent, …, start time at index 19.

    The name between the parentheses is the program's choice, with spaces and parentheses: only the last `)` ends it.
    """
    return data[data.rindex(b")") + 2 :].split()


def stat(pid: int) -> list[bytes]:
    """Return what `parse_stat` finds of a process; [] if there is no such process."""
    if pid <= 0:
        return []
    try:
        return parse_stat(read(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is no such process."""
    fields = stat(pid)
    return int(fields[19]) if fields else None


def started(pid: int) -> int:
    """Return when a process that was started just now did, in clock ticks since boot; if it is gone already, now.

    So whoever began it is older than that, and whoever begins another one later is not.
    """
    found = start_time(pid)
    if found is None:
        import time

        found = time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 10**9
    return found


def alive(pid: int, start: int, boot: str) -> bool:
    """Say whether this very process runs; one that has died but is not yet collected does not."""
    fields = stat(pid)
    return bool(fields) and int(fields[19]) == start and fields[0] not in b"ZXx" and boot == boot_id()


def open_pidfd(pid: int, start: int, boot: str) -> int:
    """Return a pidfd of this very process; NotFound if it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OverflowError) as error:
        raise NotFound(f"process {pid} is gone") from error
    except OSError as error:
        raise Unavailable(f"cannot open a pidfd of process {pid}: {error.strerror}") from error
    if alive(pid, start, boot):  # checked after opening: the descriptor cannot come to mean another process
        return fd
    os.close(fd)
    raise NotFound(f"process {pid} is gone")


def send(pid: int, start: int, boot: str, number: int) -> None:
    """Send a signal to this very process; NotFound if it is gone, Denied if it is another user's."""
    from _signal import pidfd_send_signal

    fd = open_pidfd(pid, start, boot)
    try:
        pidfd_send_signal(fd, number)
    except ProcessLookupError as error:
        raise NotFound(f"process {pid} is gone") from error
    except PermissionError as error:
        raise Denied(f"cannot send {signal_name(number)} to process {pid}: {error.strerror}") from error
    finally:
        os.close(fd)


def wait(pid: int, start: int, boot: str, timeout: float | None = None) -> bool:
    """Wait until this very process is gone; False if it still runs after `timeout` seconds."""
    from select import POLLIN, poll

    try:
        fd = open_pidfd(pid, start, boot)
    except NotFound:
        return True
    try:
        poller = poll()
        poller.register(fd, POLLIN)
        return bool(poller.poll(None if timeout is None else max(0, int(timeout * 1000))))
    finally:
        os.close(fd)
