"""Who a process becomes: `USER` and `-u` resolved against the image's own passwd and group files.

Pure.  The files are attacker input (security classes "UID overflow" and "passwd traps"): numbers are bounded to
2^31-1, a number is never looked up as a name's result, malformed lines are passed over, and a NUL ends nothing.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAX_ID = (1 << 31) - 1
_MAX_GROUPS = 1024
_MAX_LINE = 65535
_MAX_FILE = 4 << 20  # helper/cred.c reads no more


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    value = int(text)
    return value if value <= _MAX_ID else None


def _rows(data: bytes, fields: int) -> Iterator[list[str]]:
    """Give the well-formed lines one by one: millions of them take time, not memory."""
    if len(data) >= _MAX_FILE:  # cut off by the helper: half a number must not count as one
        data = data[: data.rfind(b"\n") + 1]
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line, start = data[start : min(end, start + _MAX_LINE + 1)], end + 1
        if len(line) > _MAX_LINE or line.startswith(b"#") or b"\0" in line:
            continue
        row = line.decode("utf-8", "replace").rstrip("\r").split(":")
        if len(row) >= fields and row[0]:
            yield row


def _looks_numeric(text: str) -> bool:
    return text.lstrip("+-").isdigit()


def resolve(user: str, groups_add: list[str], passwd: bytes, group: bytes) -> tuple[int, int, list[int], str]:
    """Give uid, gid, supplementary groups and home directory for "user[:group]"; InvalidArgument when there is no such
    one.
    """
    name, _, group_name = user.partition(":")
    accounts = _rows(passwd, 4)
    uid, gid, home, login = _user(name or "0", accounts)
    if group_name:
        gid = _group(group_name, _rows(group, 3))
    extra = [gid]
    if login and not group_name:
        extra += [g for row in _rows(group, 4) if login in row[3].split(",") and (g := _number(row[2])) is not None]
    extra += [_group(word, _rows(group, 3)) for word in groups_add]
    unique = sorted(set(extra))
    if len(unique) > _MAX_GROUPS:
        raise InvalidArgument(
            f"cannot become user {user}: {len(unique)} supplementary groups, at most {_MAX_GROUPS} are supported"
        )
    return uid, gid, unique, home


def _user(name: str, accounts: Iterable[list[str]]) -> tuple[int, int, str, str]:
    wanted = _number(name)
    if wanted is None and _looks_numeric(name):
        raise InvalidArgument(f"cannot become user {name}: the id is out of range (0 to {_MAX_ID})")
    for row in accounts:
        uid, gid = _number(row[2]), _number(row[3])
        if uid is None or gid is None:
            continue
        if row[0] == name or (wanted is not None and uid == wanted):
            if wanted is not None and uid != wanted:
                continue  # a numeric login name must not redirect a numeric id
            return uid, gid, (row[5] if len(row) > 5 else "") or "/", row[0]
    if wanted is not None:
        return wanted, 0, "/root" if wanted == 0 else "/", ""
    raise InvalidArgument(
        f"cannot become user {name}: no such user in the image's /etc/passwd",
        "use a number, or add the user in the image",
    )


def _group(name: str, table: Iterable[list[str]]) -> int:
    wanted = _number(name)
    if wanted is not None:
        return wanted
    if _looks_numeric(name):
        raise InvalidArgument(f"cannot use group {name}: the id is out of range (0 to {_MAX_ID})")
    for row in table:
        gid = _number(row[2])
        if row[0] == name and gid is not None:
            return gid
    raise InvalidArgument(
        f"cannot use group {name}: no such group in the image's /etc/group",
        "use a number, or add the group in the image",
    )
