"""`top`: a container's processes in the columns of ps(1), read from /proc; no ps program is needed for the usual ones.

The words are those of procps: `-ef`, `aux`, `-o pid,user=NAME,args` and their relatives.  Others go to the host's ps,
when there is one, and its lines are picked by their PID column, as Docker does.
"""

from __future__ import annotations

import os

from sampan.engine import members, procinfo
from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.engine.engine import Engine

    Columns = list[tuple[str, str]]  # keyword, heading

FULL = [("user", "UID"), ("pid", "PID"), ("ppid", "PPID"), ("c", "C"), ("stime", "STIME"), ("tty", "TTY")]
FULL += [("time", "TIME"), ("args", "CMD")]
_USER = [("user", "USER"), ("pid", "PID"), ("pcpu", "%CPU"), ("pmem", "%MEM"), ("vsz", "VSZ"), ("rss", "RSS")]
_USER += [("tty", "TTY"), ("stat", "STAT"), ("stime", "START"), ("shorttime", "TIME"), ("args", "COMMAND")]
_PLAIN = [("pid", "PID"), ("tty", "TTY"), ("time", "TIME"), ("comm", "CMD")]
_BSD = [("pid", "PID"), ("tty", "TTY"), ("stat", "STAT"), ("shorttime", "TIME"), ("args", "COMMAND")]
_PROGRAMS = ("/usr/bin/ps", "/bin/ps")


def top(engine: Engine, name: str, words: Sequence[str] = ()) -> dict[str, Any]:
    """Give Docker's {"Titles": […], "Processes": [[…], …]}; Conflict when the container does not run."""
    record = engine.containers.get(name)
    pids = members.pids(record)
    columns = parse(words)
    if columns is None:
        titles, rows = _by_program(list(words), set(pids))
    else:
        titles = [heading for _, heading in columns]
        host = procinfo.Host()
        found = [info for pid in pids if (info := procinfo.look(pid)) is not None]
        rows = [[procinfo.text(host, info, keyword) for keyword, _ in columns] for info in found]
    engine.events.container("top", record)
    return {"Titles": titles, "Processes": rows}


def parse(words: Sequence[str]) -> Columns | None:
    """Give the columns that ps's words ask for; None when only ps itself would know."""
    columns: Columns = []
    chosen: Columns = FULL if not words else _PLAIN
    rest = list(words)
    while rest:
        word = rest.pop(0)
        letters = word.lstrip("-")
        bsd = not word.startswith("-")
        if word.startswith("--"):
            if not word.startswith("--format"):
                return None
            columns += _listed(word.partition("=")[2] or (rest.pop(0) if rest else ""))
            continue
        flags, asks, value = letters.partition("o")
        if asks:
            columns += _listed(value or (rest.pop(0) if rest else ""))
        if not flags and not asks or set(flags) - set("axuw" if bsd else "eAfw"):
            return None
        if "f" in flags:
            chosen = FULL
        elif bsd and flags:
            chosen = _USER if "u" in flags else _BSD
    return columns or chosen


def _listed(text: str) -> Columns:
    """Read `pid,user=NAME,args`; a heading given with = takes the rest of the word, as in ps(1)."""
    found: Columns = []
    while text:
        word = text.replace(" ", ",").partition(",")[0]
        keyword, equals, heading = word.partition("=")
        if equals:
            heading, text = text.partition("=")[2], ""
        else:
            text = text.replace(" ", ",").partition(",")[2]
        if not keyword:
            continue
        if keyword not in procinfo.HEADINGS:
            known = ", ".join(sorted(procinfo.HEADINGS))
            raise InvalidArgument(f"cannot show column {keyword!r}", f"columns are {known}")
        found.append((keyword, heading if equals else procinfo.HEADINGS[keyword]))
    if not found:
        raise InvalidArgument("-o needs columns", "for example -o pid,user,args")
    return found


def _by_program(words: list[str], pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """Let the host's ps show all processes, and pick ours."""
    import subprocess

    program = next((path for path in _PROGRAMS if os.access(path, os.X_OK)), "")
    if not program:
        raise NotSupported(
            f"cannot show {' '.join(words)}: this needs the host's ps program",
            "without it there are -ef, aux and -o COLUMN,…",
        )
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, errors="backslashreplace", check=False, env={"LC_ALL": "C"}
    )
    if done.returncode:
        said = " ".join(done.stderr.split("\n")[:1]) or f"exit code {done.returncode}"
        raise InvalidArgument(f"cannot show {' '.join(words)}: ps says {said}")
    lines = done.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument(f"cannot show {' '.join(words)}: ps gives no PID column to know ours by")
    place = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return titles, [row for row in rows if len(row) > place and row[place].isdigit() and int(row[place]) in pids]
