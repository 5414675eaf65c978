"""The record of events: lines that never mix, what is cut short, what is old, what cannot be written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from storekit import ROOT

from sampan.store import events


def lines(directory: Path) -> list[bytes]:
    """What was written, in one file or in two: any moment may be the first of another ten minutes."""
    return b"".join((directory / str(number)).read_bytes() for number in events.files(str(directory))).split(b"\n")


def recorded(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines(directory) if line]


def test_an_event_is_one_line_of_dockers_words(tmp_path: Path) -> None:
    before = time.time_ns()
    assert events.emit(f"{tmp_path}/e", "image", "tag", "sha256:1", {"name": "a:1", "n": 7})
    (found,) = recorded(tmp_path / "e")
    assert before <= int(str(found.pop("timeNano"))) <= time.time_ns()
    assert found == {
        "Type": "image", "Action": "tag", "Actor": {"ID": "sha256:1", "Attributes": {"name": "a:1", "n": "7"}}
    }  # fmt: skip


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\nfrom sampan.store import events\n"
        "for i in range(200): assert events.emit(sys.argv[2], 'container', 'x' * 3000, str(i), {'me': sys.argv[3]})"
    )
    words = [sys.executable, "-c", code, str(ROOT), str(tmp_path / "e")]
    running = [subprocess.Popen([*words, str(number)]) for number in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    found = recorded(tmp_path / "e")
    assert len(found) == 800
    for me in range(4):
        mine = [event["Actor"]["ID"] for event in found if event["Actor"]["Attributes"]["me"] == str(me)]  # type: ignore[index]
        assert mine == [str(number) for number in range(200)]


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    directory = str(tmp_path / "e")
    events.emit(directory, "image", "tag", "1", {})
    (number,) = events.files(directory)
    with open(f"{directory}/{number}", "ab") as file:
        file.write(b'\n{"Type":"image","Act')
    events.emit(directory, "image", "tag", "2", {})
    good = [line for line in lines(tmp_path / "e") if line.endswith(b"}")]
    assert [json.loads(line)["Actor"]["ID"] for line in good] == ["1", "2"]


def test_what_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("not a directory")
    assert not events.emit(f"{tmp_path}/e", "image", "tag", "1", {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        assert not events.emit(f"{tmp_path}/f", "image", "tag", "1", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_old_files_go_when_a_new_one_begins(tmp_path: Path) -> None:
    now = int(time.time()) // events.SPAN
    day = 86_400 // events.SPAN
    for number in (now - day - 3, now - day, now - 1, now + day + 3):
        (tmp_path / str(number)).write_text("x")
    (tmp_path / "other").write_text("x")
    events.collect(str(tmp_path), (now + 1) * events.SPAN - 1)
    assert [number - now for number in events.files(str(tmp_path))] == [-day, -1]
    (tmp_path / str(now - day - 3)).write_text("x")
    assert events.emit(str(tmp_path), "image", "tag", "1", {})
    *kept, new = (number - now for number in events.files(str(tmp_path)))
    assert kept in ([-day, -1], [-1]) and new in (0, 1)  # ten minutes may have ended meanwhile
    assert (tmp_path / "other").exists()


def test_too_many_bytes_go_oldest_first(tmp_path: Path) -> None:
    now = int(time.time()) // events.SPAN
    for number in range(now - 4, now):
        with open(tmp_path / str(number), "wb") as file:
            file.truncate(events.MOST // 3)
    freed = events.collect(str(tmp_path), now * events.SPAN)
    assert events.files(str(tmp_path)) == [now - 3, now - 2, now - 1] and freed == events.MOST // 3


def test_the_present_file_has_a_limit(tmp_path: Path) -> None:
    events.emit(str(tmp_path), "image", "tag", "1", {})
    (number,) = events.files(str(tmp_path))
    os.truncate(tmp_path / str(number), events.MOST + 1)
    assert not events.emit(str(tmp_path), "image", "tag", "2", {}) or len(events.files(str(tmp_path))) == 2
