"""One process as /proc tells it, and the columns of ps(1) made from that (proc(5); procps' ps for the forms)."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Keyword of `-o`, and its heading.
HEADINGS = {
    "%cpu": "%CPU",
    "%mem": "%MEM",
    "args": "COMMAND",
    "c": "C",
    "cmd": "CMD",
    "comm": "COMMAND",
    "command": "COMMAND",
    "cputime": "TIME",
    "egid": "EGID",
    "etime": "ELAPSED",
    "etimes": "ELAPSED",
    "euid": "EUID",
    "euser": "EUSER",
    "gid": "GID",
    "group": "GROUP",
    "lstart": "STARTED",
    "ni": "NI",
    "nice": "NI",
    "nlwp": "NLWP",
    "pcpu": "%CPU",
    "pgid": "PGID",
    "pgrp": "PGRP",
    "pid": "PID",
    "pmem": "%MEM",
    "ppid": "PPID",
    "pri": "PRI",
    "rss": "RSS",
    "ruid": "RUID",
    "ruser": "RUSER",
    "s": "S",
    "sess": "SESS",
    "sid": "SID",
    "start_time": "START",
    "stat": "STAT",
    "state": "S",
    "stime": "STIME",
    "time": "TIME",
    "tname": "TTY",
    "tt": "TT",
    "tty": "TT",
    "uid": "UID",
    "user": "USER",
    "vsize": "VSZ",
    "vsz": "VSZ",
}
_DAY = 86400


class Info:
    """What is known of one process: the fields of its stat file from the third on, its ids, its words."""

    __slots__ = ("args", "comm", "fields", "gids", "locked", "pid", "rss", "uids")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.comm = ""
        self.args = ""
        self.fields: list[str] = []
        self.uids = (0, 0)  # real, effective
        self.gids = (0, 0)
        self.locked = False
        self.rss = 0  # KiB; the one in stat is an estimate

    def number(self, field: int) -> int:
        """Give a field of stat by its number in proc(5)."""
        return int(self.fields[field - 3])


class Host:
    """What columns need to know of the host, read once."""

    def __init__(self) -> None:
        self.now = time.time()
        self.ticks = os.sysconf("SC_CLK_TCK")
        self.memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with open("/proc/uptime", encoding="ascii") as file:
            self.uptime = float(file.read().split()[0])
        self._names: dict[tuple[str, int], str] = {}

    def name(self, kind: str, number: int) -> str:
        """Give the host's name of a user or group, or the number; long ones are cut as ps cuts them."""
        if (kind, number) not in self._names:
            self._names[kind, number] = _name(kind, number)
        found = self._names[kind, number]
        return found if len(found) <= 8 else found[:7] + "+"

    def age(self, info: Info) -> float:
        """Give how long a process has been there, in seconds."""
        return max(0.0, self.uptime - info.number(22) / self.ticks)

    def busy(self, info: Info) -> float:
        """Give the processor time of a process in seconds."""
        return (info.number(14) + info.number(15)) / self.ticks

    def share(self, info: Info) -> float:
        """Give the processor time as a share of the process's life, in percent."""
        age = self.age(info)
        return 100 * self.busy(info) / age if age else 0.0


def _name(kind: str, number: int) -> str:
    try:
        if kind == "user":
            import pwd

            return pwd.getpwuid(number).pw_name
        import grp

        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def look(pid: int) -> Info | None:
    """Read a process; None when it has ended."""
    info = Info(pid)
    try:
        stat, status, words = (_read(pid, name) for name in ("stat", "status", "cmdline"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is the program's choice, with parentheses in it: only the last one ends it.
    info.comm = stat[stat.index("(") + 1 : stat.rindex(")")]
    info.fields = stat[stat.rindex(")") + 2 :].split()
    info.args = words.rstrip("\0").replace("\0", " ") or f"[{info.comm}]"
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "Uid":
            info.uids = (int(value.split()[0]), int(value.split()[1]))
        elif key == "Gid":
            info.gids = (int(value.split()[0]), int(value.split()[1]))
        elif key == "VmRSS":
            info.rss = int(value.split()[0])
        elif key == "VmLck":
            info.locked = value.split()[0] != "0"
    return info


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().decode("utf-8", "backslashreplace")


def text(host: Host, info: Info, keyword: str) -> str:
    """Give one column of one process."""
    return _COLUMNS[keyword](host, info)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    days, rest = divmod(whole, _DAY)
    shown = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{shown}" if days else shown


def _elapsed(seconds: float) -> str:
    shown = _clock(seconds)
    return shown.removeprefix("00:") if len(shown) == 8 else shown


def _short(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _start(host: Host, info: Info) -> str:
    """Say when it began: the hour of the last day, else the day, else the year."""
    began = time.localtime(host.now - host.age(info))
    if host.age(info) < _DAY and began.tm_yday == time.localtime(host.now).tm_yday:
        return time.strftime("%H:%M", began)
    return time.strftime("%b%d" if began.tm_year == time.localtime(host.now).tm_year else "%Y", began)


def _terminal(info: Info) -> str:
    number = info.number(7)
    major, minor = number >> 8 & 0xFFF, (number & 0xFF) | (number >> 12 & 0xFFF00)
    if not number:
        return "?"
    if 136 <= major < 144:  # Documentation/admin-guide/devices.txt
        return f"pts/{minor + (major - 136) * 256}"
    return f"tty{minor}" if major == 4 and minor < 64 else f"{major},{minor}"


def _state(host: Host, info: Info) -> str:
    """Give the state with ps's marks: priority, locked pages, session leader, threads, foreground."""
    nice = info.number(19)
    marks = "<" if nice < 0 else "N" if nice > 0 else ""
    marks += "L" if info.locked else ""
    marks += "s" if info.number(6) == info.pid else ""
    marks += "l" if info.number(20) > 1 else ""
    return info.fields[0] + marks + ("+" if info.number(8) == info.number(5) else "")


def _percent(value: float) -> str:
    return f"{value:.1f}"


_COLUMNS: dict[str, Callable[[Host, Info], str]] = {
    "args": lambda host, info: info.args,
    "c": lambda host, info: str(min(99, int(host.share(info)))),
    "comm": lambda host, info: info.comm,
    "etime": lambda host, info: _elapsed(host.age(info)),
    "etimes": lambda host, info: str(int(host.age(info))),
    "euid": lambda host, info: str(info.uids[1]),
    "egid": lambda host, info: str(info.gids[1]),
    "group": lambda host, info: host.name("group", info.gids[1]),
    "lstart": lambda host, info: time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(host.now - host.age(info))),
    "ni": lambda host, info: str(info.number(19)),
    "nlwp": lambda host, info: str(info.number(20)),
    "pcpu": lambda host, info: _percent(host.share(info)),
    "pgid": lambda host, info: str(info.number(5)),
    "pid": lambda host, info: str(info.pid),
    "pmem": lambda host, info: _percent(100 * info.rss * 1024 / host.memory),
    "ppid": lambda host, info: str(info.number(4)),
    "pri": lambda host, info: str(39 - info.number(18)),
    "rss": lambda host, info: str(info.rss),
    "ruid": lambda host, info: str(info.uids[0]),
    "ruser": lambda host, info: host.name("user", info.uids[0]),
    "s": lambda host, info: info.fields[0],
    "shorttime": lambda host, info: _short(host.busy(info)),
    "sid": lambda host, info: str(info.number(6)),
    "stat": _state,
    "stime": _start,
    "time": lambda host, info: _clock(host.busy(info)),
    "tty": lambda host, info: _terminal(info),
    "user": lambda host, info: host.name("user", info.uids[1]),
    "vsz": lambda host, info: str(info.number(23) // 1024),
}
_SAME = {"%cpu": "pcpu", "%mem": "pmem", "cmd": "args", "command": "args", "cputime": "time", "euser": "user"}
_SAME |= {"gid": "egid", "uid": "euid", "nice": "ni", "pgrp": "pgid", "sess": "sid", "state": "s", "vsize": "vsz"}
_SAME |= {"start_time": "stime", "tname": "tty", "tt": "tty"}
_COLUMNS.update({name: _COLUMNS[other] for name, other in _SAME.items()})
