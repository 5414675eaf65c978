"""Which ids an ordinary user's containers have: ranges of /etc/subuid and /etc/subgid, else the user's own id alone.

Lines are those of /proc/PID/uid_map (user_namespaces(7)): inside, outside, count. Only newuidmap and newgidmap, which
are privileged, may write more than one; they are looked for in fixed directories, because PATH is the caller's. Root's
containers use no user namespace and need no map; but a root without CAP_SYS_ADMIN (rights.py) is an ordinary user.
"""

from __future__ import annotations

import os
import stat

from sampan import rights

_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin")
_ENOUGH = 65536  # up to nobody and nogroup, as images expect
_MOST = (1 << 32) - 1  # 2^32 - 1 means "no change" to the kernel and is no id
_MOST_LINES = 340  # user_namespaces(7), Linux 4.15

Range = tuple[int, int]


class IdMap:
    """The maps to write, with whom: `single` says that only the caller's own id is there, `notes` say why."""

    __slots__ = ("gid_lines", "newgidmap", "newuidmap", "notes", "single", "uid_lines")

    def __init__(
        self, uid_lines: list[str], gid_lines: list[str], newuidmap: str, newgidmap: str, notes: list[str]
    ) -> None:
        self.uid_lines = uid_lines
        self.gid_lines = gid_lines
        self.newuidmap = newuidmap
        self.newgidmap = newgidmap
        self.single = bool(uid_lines) and [line.split()[2] for line in uid_lines] == ["1"]
        self.notes = notes


def parse_ranges(text: str, user: str, uid: int) -> list[Range]:
    """Return the (first id, count) ranges that subuid(5) or subgid(5) gives a user, by name or by number."""
    found: list[Range] = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (user, str(uid)) or line.startswith("#"):
            continue
        if not (fields[1].isascii() and fields[1].isdigit() and fields[2].isascii() and fields[2].isdigit()):
            continue
        first, count = int(fields[1]), int(fields[2])
        if count > 0 and first > 0 and first + count <= _MOST:
            found.append((first, count))
    return found[: _MOST_LINES - 1]


def free_range(text: str) -> int:
    """Return where a new range may begin, above all that subuid(5) and subgid(5) give away: no two users share ids."""
    first = 100000
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and all(field.isascii() and field.isdigit() for field in fields[1:]):
            first = max(first, int(fields[1]) + int(fields[2]))
    return first


def lines(own: int, ranges: list[Range]) -> list[str]:
    """Return the map that makes the caller's own id root's and lays the ranges after it, without gaps."""
    found = [f"0 {own} 1"]
    inside = 1
    for first, count in ranges:
        found.append(f"{inside} {first} {count}")
        inside += count
    return found


def same(text: str) -> list[str]:
    """Return the map that gives a namespace the very ids of its parent, whose map (/proc/PID/uid_map) this is.

    To write it takes CAP_SETUID or CAP_SETGID, and CAP_SETFCAP because root's id is in it (Linux 5.12).
    """
    found = [(int(first), int(count)) for first, _, count in (line.split() for line in text.splitlines())]
    return [f"{first} {first} {count}" for first, count in found[:_MOST_LINES]]


def find_tool(name: str, directories: tuple[str, ...] = _DIRECTORIES) -> tuple[str, str]:
    """Return the path of a privileged program, or "" and why it is of no use."""
    for directory in directories:
        path = f"{directory}/{name}"
        try:
            state = os.stat(path)
        except OSError:
            continue
        if not os.access(path, os.X_OK):
            return "", f"{path} is not executable"
        if state.st_uid == 0 and state.st_mode & stat.S_ISUID or _has_file_capability(path):
            return path, ""
        return "", f"{path} is neither setuid root nor has file capabilities"
    return "", f"{name} is not installed"


def _has_file_capability(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:  # none, or a file system without attributes
        return False


def user_name(uid: int) -> str:
    """Return the name of a user's account, or ""."""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def detect(etc: str = "/etc", directories: tuple[str, ...] = _DIRECTORIES) -> IdMap:
    """Return the maps for containers of the calling user."""
    uid, gid = os.geteuid(), os.getegid()
    if not rights.rootless():
        return IdMap([], [], "", "", [])
    if uid == 0 and rights.holds(rights.CAP_SETUID, rights.CAP_SETGID, rights.CAP_SETFCAP):
        return IdMap(same(_read("/proc/self/uid_map")), same(_read("/proc/self/gid_map")), "", "", [])
    user = user_name(uid)
    uids = parse_ranges(_read(f"{etc}/subuid"), user, uid)
    gids = parse_ranges(_read(f"{etc}/subgid"), user, uid)
    newuidmap, no_newuidmap = find_tool("newuidmap", directories)
    newgidmap, no_newgidmap = find_tool("newgidmap", directories)
    reasons = [] if rights.may_gain() else ["this process may gain no privileges, so newuidmap cannot help it"]
    reasons += [reason for reason in (no_newuidmap, no_newgidmap) if reason]
    reasons += [] if user else [f"user {uid} has no entry in {etc}/passwd, without which newuidmap does nothing"]
    reasons += [
        f"{etc}/{name} has no range for {user or uid}"
        for name, found in (("subuid", uids), ("subgid", gids))
        if not found
    ]
    if reasons:
        note = "only your own id is mapped: files of other users in images become yours, and USER must be root"
        return IdMap([f"0 {uid} 1"], [f"0 {gid} 1"], "", "", [f"{note} ({reasons[0]})"])
    return IdMap(lines(uid, uids), lines(gid, gids), newuidmap, newgidmap, _short(uids, gids))


def _short(uids: list[Range], gids: list[Range]) -> list[str]:
    """Return a note where a range is too small for usual images."""
    notes = []
    for name, ranges in (("subuid", uids), ("subgid", gids)):
        total = sum([count for _, count in ranges])
        if total < _ENOUGH:
            notes.append(f"/etc/{name} gives only {total} ids: images with ids above that cannot be unpacked")
    return notes
