"""Events of real containers: what is told, in which order, to whom, and what filters let by."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import until

import sampan
from sampan.engine import stopping
from sampan.errors import InvalidArgument
from sampan.oci.options import RunOptions
from sampan.store import events as record_of

ROOT = Path(__file__).parents[2]


def told(engine: sampan.Engine, since: float, **filters: list[str]) -> list[dict[str, Any]]:
    return list(engine.events(since, filters=filters))


def actions(found: list[dict[str, Any]]) -> list[str]:
    return [event["Action"] for event in found]


def cli(engine: sampan.Engine, *words: str) -> list[str]:
    return [sys.executable, "-m", "sampan", "--root", engine.store.paths.root, *words]


def test_a_run_tells_its_life_in_order(engine: sampan.Engine) -> None:
    since = time.time()
    engine.run("base", ["sh", "-c", "exit 7"], labels={"team": "blue"})
    most = int(time.time() - since) + 1
    found = told(engine, since, type=["container"])
    assert actions(found) == ["create", "attach", "start", "die", "destroy"]
    assert len({event["Actor"]["ID"] for event in found}) == 1
    for event in found:
        attributes = event["Actor"]["Attributes"]
        assert attributes["image"] == event["from"] == "base" and attributes["team"] == "blue" and attributes["name"]
        assert event["status"] == event["Action"] and event["id"] == event["Actor"]["ID"]
        assert event["time"] == event["timeNano"] // 10**9 >= int(since)
    ended = found[3]["Actor"]["Attributes"]
    assert ended["exitCode"] == "7" and 0 <= int(ended["execDuration"]) <= most


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_a_stop_that_kills_says_so(engine: sampan.Engine, timeout: float | None) -> None:
    since = time.time()
    name = str(engine.containers.run(RunOptions(command=["sleep", "30"]), image="base", detach=True))
    engine.containers.stop(name, timeout)
    found = told(engine, since, container=[name[:12]])
    assert actions(found) == ["create", "start", "kill", "kill", "die", "stop"]
    assert [event["Actor"]["Attributes"].get("signal") for event in found[2:4]] == ["15", "9"]
    engine.containers.remove(name)


def test_the_end_is_told_though_nobody_waits(engine: sampan.Engine) -> None:
    since = time.time()
    name = engine.containers.run(RunOptions(command=["sleep", "30"]), image="base", detach=True)
    assert isinstance(name, str)
    engine.containers.kill(name, "TERM")
    engine.containers.kill(name)
    engine.containers.wait(name)
    engine.containers.remove(name)
    found = told(engine, since, container=[name[:12]])
    assert actions(found) == ["create", "start", "kill", "kill", "die", "destroy"]
    assert [event["Actor"]["Attributes"].get("signal") for event in found[2:4]] == ["15", "9"]
    assert found[4]["Actor"]["Attributes"]["exitCode"] == "137"


def test_filters_are_dockers(engine: sampan.Engine) -> None:
    since = time.time()
    emit = engine.events.emit
    emit("container", "start", "abc", {"image": "base:1", "name": "web", "team": "blue"})
    emit("container", "health_status: healthy", "abc", {"image": "base:1", "name": "web"})
    emit("container", "die", "def", {"image": "other", "name": "db", "exitCode": 1})
    emit("image", "tag", "sha256:1", {"name": "base:1"})
    emit("volume", "create", "web-data", {"driver": "local"})
    assert len(told(engine, since)) == 5
    assert actions(told(engine, since, event=["die", "tag"])) == ["die", "tag"]
    assert actions(told(engine, since, event=["health_status"])) == ["health_status: healthy"]
    assert not told(engine, since, event=["health_status: unhealthy"])
    assert actions(told(engine, since, container=["web"])) == ["start", "health_status: healthy"]
    assert actions(told(engine, since, container=["de"], event=["die", "start"])) == ["die"]
    assert actions(told(engine, since, image=["base"])) == ["start", "health_status: healthy", "tag"]
    assert actions(told(engine, since, label=["team=blue"])) == ["start"]
    assert not told(engine, since, label=["team=red"])
    assert (
        actions(told(engine, since, volume=["web-data"])) == ["create"] == actions(told(engine, since, type=["volume"]))
    )
    assert not told(engine, time.time() + 1)
    assert not list(engine.events(since, until=since - 1))
    with pytest.raises(InvalidArgument, match="colour"):
        engine.events(filters={"colour": ["x"]})


def test_half_a_line_is_waited_for_and_nonsense_passed_over(engine: sampan.Engine) -> None:
    since = time.time()
    engine.events.emit("image", "tag", "before", {})
    directory = engine.events.directory
    path = f"{directory}/{record_of.files(directory)[-1]}"
    whole = record_of.line("image", "tag", "whole", {}, time.time_ns())
    with open(path, "ab", buffering=0) as file:
        file.write(b"\n{}\n[1]\nnot json\n" + whole[:30])
        assert [event["Actor"]["ID"] for event in told(engine, since)] == ["before"]
        file.write(whole[30:])
    assert [event["Actor"]["ID"] for event in told(engine, since)] == ["before", "whole"]


def test_following_gives_events_as_they_come(engine: sampan.Engine) -> None:
    found: list[dict[str, Any]] = []
    engine.events.emit("image", "tag", "past", {})

    def follow() -> None:
        for event in engine.events(filters={"type": ["image"]}, follow=True):
            found.append(event)
            if event["Action"] == "last":
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not found and time.monotonic() < deadline:
        engine.events.emit("image", "tag", "new", {})
        time.sleep(0.05)
    engine.events.emit("image", "last", "new", {})
    thread.join(60)
    assert not thread.is_alive()
    assert {event["Actor"]["ID"] for event in found} == {"new"}


def test_the_command_prints_dockers_lines_and_ends_with_ctrl_c(engine: sampan.Engine) -> None:
    since = f"{time.time():.6f}"
    engine.events.emit("container", "die", "c" * 64, {"image": "b", "name": "a\x1b[31m", "exitCode": 3})
    words = cli(engine, "events", "--since", since)
    done = subprocess.run([*words, "--until", "0s"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    stamp, rest = done.stdout.rstrip("\n").split(" ", 1)
    assert rest == f"container die {'c' * 64} (exitCode=3, image=b, name=a\\x1b[31m)"
    assert stamp.endswith("Z") or stamp[-6] in "+-", stamp  # Go: Z where the zone is UTC
    template = [*words, "--until", "0s", "--format", "{{.Type}} {{.ID}} {{.Actor.Attributes.exitCode}} {{.Time}}"]
    done = subprocess.run(template, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"container {'c' * 64} 3 {since[:8]}")
    with subprocess.Popen(
        ["env", "--default-signal=INT", *words, "--format", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None and running.stdout.readline().startswith('{"status":"die"')
        running.send_signal(2)
        assert running.wait(60) == 130


def test_times_are_exact_to_the_nanosecond(engine: sampan.Engine) -> None:
    for number in range(3):
        engine.events.emit("image", "probe", f"i{number}", {})
    times = [event["timeNano"] for event in engine.events(0.0, filters={"event": ["probe"]})]
    assert len(times) == 3 and times == sorted(set(times))
    for place, moment in enumerate(times):
        seconds, fraction = divmod(moment, 10**9)
        stamps = [
            f"{seconds}.{fraction:09d}",
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z",
        ]
        for stamp in stamps:
            words = cli(
                engine, "events", "--since", stamp, "--until", stamp, "-f", "event=probe", "--format", "{{.Actor.ID}}"
            )
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout.split() == [f"i{place}"]
            after = str(seconds) + f".{fraction + 1:09d}" if fraction < 999_999_999 else f"{seconds + 1}.0"
        words = cli(
            engine, "events", "--since", after, "--until", "0s", "-f", "event=probe", "--format", "{{.Actor.ID}}"
        )
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == [f"i{number}" for number in range(place + 1, 3)]


def test_a_time_that_is_none_is_one_clear_line(engine: sampan.Engine) -> None:
    words = cli(engine, "events", "--since", "yesterday")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr.startswith("sampan: cannot read time 'yesterday'\nhint: ")


def test_images_tell_of_names_and_archives(engine: sampan.Engine, tmp_path: Path) -> None:
    since = time.time()
    engine.images.tag("base", "copy:1")
    with open(tmp_path / "a.tar", "wb") as file:
        engine.images.save(["copy:1"], file.fileno())
    engine.images.load(str(tmp_path / "a.tar"))
    engine.images.remove("copy:1")
    found = told(engine, since, type=["image"])
    assert actions(found) == ["tag", "save", "load", "untag"]
    assert {event["Actor"]["ID"] for event in found} == {engine.images.resolve("base").id}
    assert [event["Actor"]["Attributes"]["name"] for event in found if event["Action"] != "save"] == ["copy:1"] * 3


def test_an_exec_tells_of_its_whole_life(engine: sampan.Engine) -> None:
    since = time.time()
    name = str(engine.containers.run(RunOptions(command=["sleep", "300"]), image="base", detach=True))
    assert engine.containers.exec(name, ["sh", "-c", 'exit "5"']) == 5
    engine.containers.exec(name, ["sh", "-c", "exit 6"], detach=True)
    kinds = ["exec_create", "exec_start", "exec_die"]
    until(lambda: len(told(engine, since, event=kinds)) >= 6)
    found = told(engine, since, event=kinds)
    engine.containers.remove(name, force=True)
    words = 'sh -c exit "5"'
    assert actions(found)[:3] == [f"exec_create: {words}", f"exec_start: {words}", "exec_die"]
    ids = [event["Actor"]["Attributes"]["execID"] for event in found]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5]
    assert [event["Actor"]["Attributes"].get("exitCode") for event in found] == [None, None, "5", None, None, "6"]
    assert len(told(engine, since, event=["die"])) == 1


def test_what_a_renamed_container_does_is_told_with_its_new_name(engine: sampan.Engine) -> None:
    since = time.time()
    options = RunOptions(command=["sleep", "300"], labels={"name": "label"})
    container_id = str(engine.containers.run(options, image="base", name="before", detach=True))
    entered = subprocess.Popen(cli(engine, "exec", "-i", "before", "cat"), stdin=subprocess.PIPE)
    try:
        until(lambda: stopping.others(engine.containers.get("before")))
        engine.containers.rename("before", "after")
        entered.communicate(timeout=60)
        engine.containers.kill("after")
        engine.containers.wait("after")
        engine.containers.rename("after", "later")  # it has ended: nothing is left for its supervisor
        engine.containers.start("later")
    finally:
        entered.kill()
        engine.containers.remove(container_id, force=True)
    wanted = ["start", "rename", "exec_die", "die"]
    found = [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in told(engine, since, event=wanted)]
    assert found[:4] == [("start", "before"), ("rename", "after"), ("exec_die", "after"), ("die", "after")]
    assert found[4:] == [("rename", "later"), ("start", "later"), ("die", "later")]


def test_volumes_are_mounted_before_and_unmounted_after(engine: sampan.Engine) -> None:
    since = time.time()
    options = RunOptions(command=["true"], mounts=[("volume", "told", "/v", ["ro"])])
    name = str(engine.containers.run(options, image="base", detach=True))
    engine.containers.wait(name)
    engine.containers.remove(name)
    engine.store.volumes.remove("told")
    found = told(engine, since, event=["create", "mount", "start", "die", "unmount"])
    kinds = [(event["Type"], event["Action"]) for event in found]
    assert kinds == [
        *(("volume", "create"), ("container", "create"), ("volume", "mount"), ("container", "start")),
        *(("container", "die"), ("volume", "unmount")),
    ]
    mount = found[2]["Actor"]
    assert mount["ID"] == "told" and mount["Attributes"]["container"] == name
    assert mount["Attributes"]["destination"] == "/v" and mount["Attributes"]["read/write"] == "false"


def test_what_is_no_text_harms_no_command(engine: sampan.Engine) -> None:
    since = time.time()
    name = str(engine.containers.run(RunOptions(command=["sleep", "300"]), image="base", detach=True))
    assert engine.containers.exec(name, ["sh", "-c", ":", '\udcff\n"\x01']) == 0
    found = told(engine, since, event=["exec_create"])
    assert len(found) == 1 and found[0]["Action"].startswith("exec_create: sh -c : ")
    engine.containers.remove(name, force=True)
