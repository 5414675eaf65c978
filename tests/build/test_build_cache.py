"""What is executed again and what is found; interrupted, failing and simultaneous builds; what a cached build reads."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from buildsupport import Built, left_over, needs_ids
from waiting import until

import sampan
from sampan.errors import BuildError

Build = Callable[..., Built]
ROOT = pathlib.Path(__file__).parent.parent.parent


def age(directory: str) -> None:
    """Make every file old enough for its stat to be believed; a change of mtime changes ctime, so wait for that too."""
    for place, _, names in os.walk(directory):
        for name in names:
            os.utime(os.path.join(place, name), (1, 1), follow_symlinks=False)
    time.sleep(2.1)


def test_the_same_build_again_is_the_same_image(build: Build) -> None:
    text = 'FROM base\nARG A\nWORKDIR /w\nCOPY f .\nRUN echo $RANDOM >r\nENV X=1\nCMD ["x"]\n'
    first = build(text, {"f": "1"})
    second = build(text, {"f": "1"})
    assert second.id == first.id
    assert second.cached == 3
    assert second.output == ""


@pytest.mark.parametrize(
    ("change", "executed"),
    [
        ({}, 0),
        ({"f": "other"}, 2),
        ({"f": ("1", 0o755)}, 2),
        ({"unrelated": "x"}, 0),
    ],
)
def test_content_and_mode_of_sources_decide(build: Build, change: dict[str, object], executed: int) -> None:
    text = "FROM base\nRUN echo before >/before\nCOPY f /f\nRUN echo after >/after\n"
    build(text, {"f": "1"})
    assert 3 - build(text, {"f": "1", **change}).cached == executed


def test_times_of_sources_do_not_decide(build: Build) -> None:
    first = build("FROM base\nCOPY f /f\n", {"f": "1"})
    os.utime(first.directory + "/f", (5, 5))
    assert build("FROM base\nCOPY f /f\n", context=first.directory).cached == 1


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("LABEL a=1\nRUN echo x >/f\n", "LABEL a=2\nRUN echo x >/f\n", True),
        ("ENV a=1\nRUN echo x >/f\n", "ENV a=2\nRUN echo x >/f\n", False),
        ("ARG b=1\nRUN echo x >/f\n", "ARG b=2\nRUN echo x >/f\n", False),
        pytest.param("USER 1\nRUN echo x >/tmp/f\n", "USER 2\nRUN echo x >/tmp/f\n", False, marks=needs_ids),
        ("RUN echo x >/f\n", "RUN echo x > /f\n", False),
        ("RUN echo x >/f\n", "RUN  echo x >/f\n", True),
        ("COPY f /a\n", "COPY ./f /a\n", True),
        ("COPY f /a\n", "COPY f /a/\n", False),
        ("COPY f /a\n", "COPY --chmod=600 f /a\n", False),
    ],
)
def test_which_words_decide(build: Build, first: str, second: str, found: bool) -> None:
    base = "FROM base\nRUN mkdir -p -m 777 /tmp\n"
    build(base + first, {"f": "1"})
    assert (build(base + second, {"f": "1"}).cached == 2) is found


def test_no_cache_executes_and_replaces(build: Build) -> None:
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid >/f\n"
    first = build(text)
    second = build(text, no_cache=True)
    assert second.cached == 0
    assert second.image.diff_ids != first.image.diff_ids
    assert build(text).image.diff_ids == second.image.diff_ids


def test_a_lost_layer_is_made_again(build: Build, engine: sampan.Engine) -> None:
    text = "FROM base\nRUN echo lost >/lost\nRUN echo next >/next\n"
    first = build(text, tags=["lost"])
    engine.store.snapshots.remove(first.image.diff_ids[1])
    second = build(text)
    assert second.read("lost", 1) == b"lost\n"
    assert engine.store.snapshots.find(second.image.diff_ids[1]) is not None


def test_a_removed_image_comes_back_the_same(build: Build, engine: sampan.Engine) -> None:
    text = "FROM base\nENV CAME=back\nRUN echo 1 >/f\n"
    first = build(text, tags=["back"])
    engine.store.images.remove("back", force=True)
    assert build(text).id == first.id


def test_an_unchanged_build_reads_and_writes_nothing(build: Build, engine: sampan.Engine) -> None:
    text = "FROM base\nCOPY . /c\nRUN echo 1 >/f\n"
    files: dict[str, object] = {f"d{n % 7}/f{n}": str(n) for n in range(50)}
    first = build(text, files, tags=["quiet"])
    age(first.directory)
    build(text, context=first.directory, tags=["quiet"])
    opened: list[str] = []
    writing: list[str] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)):
            name = os.fsdecode(args[0])
            opened.append(name.rpartition("/")[2])
            if isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
                writing.append(name)

    active = True
    sys.addaudithook(lambda event, args: hook(event, args) if active else None)
    version = engine.store.db.one("PRAGMA data_version")
    changes = engine.store.db.open().total_changes
    third = build(text, context=first.directory, tags=["quiet"])
    active = False
    assert third.id == first.id
    assert not {name for name in opened if name in {key.rpartition("/")[2] for key in files}}
    assert [name for name in writing if first.directory not in name] == []
    assert engine.store.db.open().total_changes == changes
    assert engine.store.db.one("PRAGMA data_version") == version


def test_a_changed_file_is_noticed_whatever_its_times_say(build: Build) -> None:
    first = build("FROM base\nCOPY f /f\n", {"f": "old"})
    age(first.directory)
    build("FROM base\nCOPY f /f\n", context=first.directory)
    path = first.directory + "/f"
    with open(path, "w") as file:
        file.write("new")
    os.utime(path, (1, 1))
    assert build("FROM base\nCOPY f /f\n", context=first.directory).read("f") == b"new"


def test_a_failed_step_keeps_the_earlier_ones(build: Build, engine: sampan.Engine) -> None:
    with pytest.raises(BuildError):
        build("FROM base\nRUN echo kept >/kept\nRUN false\n")
    assert left_over(engine) == []
    assert build("FROM base\nRUN echo kept >/kept\nRUN true\n").cached == 1


def test_simultaneous_builds_of_the_same_thing(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nCOPY f /f\nRUN sleep 0.2; echo both >/g\nRUN cat /f /g\n")
    (tmp_path / "f").write_text("f")
    failures: list[BaseException] = []

    def one() -> None:
        try:
            sampan.Engine(engine.store.paths.root).build(str(tmp_path), tags=["same"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert left_over(engine) == []
    assert engine.store.images.resolve("same").diff_ids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build(engine: sampan.Engine, tmp_path: pathlib.Path, number: int) -> None:
    mark = f"sleep 98{os.getpid()}{number}"
    (tmp_path / "Dockerfile").write_text(
        f"FROM base\nRUN echo {number} >/first\nRUN echo part >/part; {mark} & {mark}\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport sampan\n"
        f"engine = sampan.Engine({engine.store.paths.root!r})\n"
        f"engine.build({str(tmp_path)!r}, on_event=lambda event: print(event.text, flush=True))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    until(lambda: len(running(mark)) == 2)
    child.send_signal(number)
    child.communicate(timeout=60)
    until(lambda: running(mark) == [])
    if number == signal.SIGINT:
        assert left_over(engine) == []
    (tmp_path / "Dockerfile").write_text(f"FROM base\nRUN echo {number} >/first\nRUN true {os.getpid()}\n")
    assert Built(engine, str(tmp_path), {}).cached == 1
    assert left_over(engine) == [], "what a killed build left is removed by the next one that makes something"


def running(words: str) -> list[str]:
    """List the processes whose command line holds these words in order."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                text = pathlib.Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text.startswith(words):
                found.append(text)
    return found


def test_a_step_that_leaves_daemons_ends_them(build: Build) -> None:
    mark = f"sleep 97{os.getpid()}"
    built = build(f"FROM base\nRUN (setsid {mark} >/dev/null 2>&1 &) ; (nohup {mark} &) ; echo done >/f\n")
    assert built.read("f") == b"done\n"
    assert running(mark) == []


def test_a_cached_build_loads_nothing_heavy(build: Build, engine: sampan.Engine) -> None:
    first = build("FROM base\nWORKDIR /w\nCOPY f .\nRUN echo 1 >g\nENV A=1\nUSER 1\nCMD x\n", {"f": "1"})
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom sampan.engine.engine import Engine\n"
        f"assert Engine({engine.store.paths.root!r}).build({first.directory!r}) == {first.id!r}\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    heavy = "re json typing dataclasses enum pathlib subprocess contextlib functools collections shutil hashlib sqlite3"
    assert not loaded & {*heavy.split(), "tarfile", "tempfile", "threading", "datetime", "select", "_hashlib"}
    ours = "execute process stagecopy archives"
    assert not loaded & {f"sampan.build.{name}" for name in ours.split()}


def test_layers_of_every_stage_outlive_the_boot(build: Build) -> None:
    def of_this_boot() -> set[str]:
        rows = build("FROM base\n").engine.store.db.query("SELECT diff_id FROM snapshots WHERE boot_id != ''")
        return {row[0] for row in rows}

    before = of_this_boot()  # of builds that failed
    build(
        "FROM base AS tools\nCOPY one /only-in-the-other-stage\nFROM base\nCOPY --from=tools /bin/sh /copied\n",
        {"one": os.urandom(20)},
    )
    assert of_this_boot() == before
