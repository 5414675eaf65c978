"""`ps`: every filter of Docker's, the fields for --format, sizes, and what it costs."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import sampan
from sampan.engine import matching
from sampan.errors import InvalidArgument, NotFound
from sampan.oci.options import RunOptions


@pytest.fixture(scope="module")
def boxes(engine: sampan.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Make a running container, an exited one with a volume and a bind, and one that never ran."""
    containers, shared = engine.containers, str(tmp_path_factory.mktemp("shared"))
    ids = {}
    running = RunOptions(command=["sleep", "300"], labels={"tier": "web", "a.b": "1"})
    ids["up"] = str(containers.run(running, image="base", name="list_up", detach=True))
    mounts = [("volume", "listvol", "/data", ["rw"]), ("bind", shared, "/shared", ["ro"])]
    writes = RunOptions(
        command=["sh", "-c", "head -c 5000 /dev/zero > /f; ln /f /g; exit 3"], labels={"tier": "job"}, mounts=mounts
    )
    assert containers.run(writes, image="base", name="list_done") == 3
    ids["done"] = containers.get("list_done").id
    ids["new"] = containers.create("base", RunOptions(command=["true"], expose=["8000-8001"]), name="list_new")
    yield ids | {"shared": shared}
    for name in ("up", "done", "new"):
        containers.remove(ids[name], force=True)
    engine.store.volumes.remove("listvol")


def names(engine: sampan.Engine, *words: str, all: bool = True, limit: int = 0) -> list[str]:
    from sampan.cli.each import parse_filters

    rows = engine.containers.ls(all=all, filters=parse_filters([*words, "name=^list_"]), limit=limit)
    return [row["Names"] for row in rows]


def test_newest_first_and_running_only(engine: sampan.Engine, boxes: dict[str, str]) -> None:
    assert names(engine) == ["list_new", "list_done", "list_up"]
    assert names(engine, all=False) == ["list_up"]
    assert names(engine, all=False, limit=2) == ["list_new", "list_done"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status=exited"], ["list_done"]),
        (["status=exited", "status=created"], ["list_new", "list_done"]),
        (["exited=3"], ["list_done"]),
        (["exited=0"], []),
        (["label=tier"], ["list_done", "list_up"]),
        (["label=tier=web"], ["list_up"]),
        (["label=tier=web", "label=a.b=2"], []),
        (["label=tier=web", "label=a.b=1"], ["list_up"]),
        (["before=list_done"], ["list_up"]),
        (["since=list_done"], ["list_new"]),
        (["volume=listvol"], ["list_done"]),
        (["volume=/data"], ["list_done"]),
        (["volume=/nowhere"], []),
        (["network=none"], ["list_new", "list_done", "list_up"]),
        (["network=host"], []),
        (["ancestor=base", "status=running"], ["list_up"]),
        (["ancestor=base:latest", "status=created"], ["list_new"]),
        (["ancestor=nothing"], []),
        (["health=none", "status=running"], ["list_up"]),
        (["health=healthy"], []),
        (["isolation=default", "status=running"], ["list_up"]),
        (["isolation=hyperv"], []),
        (["is-task=true"], []),
        (["is-task=false", "exited=3"], ["list_done"]),
        (["expose=8001"], ["list_new"]),
        (["expose=7999-8000/tcp"], ["list_new"]),
        (["expose=8001/udp"], []),
        (["publish=8001"], []),
    ],
    ids=" ".join,
)
def test_filters(engine: sampan.Engine, boxes: dict[str, str], words: list[str], expected: list[str]) -> None:
    assert names(engine, *words, all=True) == expected


def test_of_the_filters_status_alone_asks_for_what_does_not_run(engine: sampan.Engine, boxes: dict[str, str]) -> None:
    """As dockerd: `exited`, `before` and `since` want -a too."""
    assert names(engine, "status=exited", all=False) == ["list_done"]
    assert names(engine, "exited=3", all=False) == names(engine, "since=list_done", all=False) == []
    assert names(engine, "before=list_new", all=False) == ["list_up"]


def test_id_and_name_are_regular_expressions(engine: sampan.Engine, boxes: dict[str, str]) -> None:
    ls = engine.containers.ls
    assert [row["Names"] for row in ls(all=True, filters={"id": [boxes["up"][:8]]})] == ["list_up"]
    assert [row["Names"] for row in ls(all=True, filters={"name": ["^/list_(up|new)$"]})] == ["list_new", "list_up"]
    assert [row["Names"] for row in ls(all=True, filters={"name": ["st_don"]})] == ["list_done"]
    assert ls(all=True, filters={"name": ["^st_done"]}) == []


def test_an_image_built_on_another_descends_from_it(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN touch /child\n")
    engine.build(str(tmp_path), tags=["listchild"])
    engine.containers.create("listchild", RunOptions(command=["true"]), name="list_child")
    try:
        assert "list_child" in names(engine, "ancestor=base")
        assert names(engine, "ancestor=listchild") == ["list_child"]
    finally:
        engine.containers.remove("list_child")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("colour=red", "one of: ancestor"),
        ("status=up", "one of: created"),
        ("health=fine", "one of: healthy"),
        ("exited=x", "not an exit code"),
        ("expose=http", "not a port"),
        ("publish=80-70", "not a range"),
        ("name=[", "not a regular expression"),
        ("is-task=maybe", "one of: true"),
    ],
)
def test_what_is_no_filter_is_refused(engine: sampan.Engine, word: str, message: str) -> None:
    key, _, value = word.partition("=")
    with pytest.raises(InvalidArgument) as caught:
        engine.containers.ls(filters={key: [value]})
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_before_an_unknown_container(engine: sampan.Engine) -> None:
    with pytest.raises(NotFound, match="no-such"):
        engine.containers.ls(filters={"before": ["no-such"]})


def row_of(engine: sampan.Engine, name: str, **settings: Any) -> dict[str, Any]:
    return engine.containers.ls(all=True, filters={"name": [f"^{name}$"]}, **settings)[0]


def test_fields(engine: sampan.Engine, boxes: dict[str, str]) -> None:
    row = row_of(engine, "list_done")
    assert row["State"] == "exited" and row["Status"].startswith("Exited (3) ")
    assert row["MountList"] == ["listvol", boxes["shared"]] or row["MountList"] == [boxes["shared"], "listvol"]
    assert (row["LocalVolumes"], row["Networks"], row["Image"]) == ("1", "none", "base")
    assert row["Command"].startswith("sh -c 'head")


def test_sizes_are_what_was_written_and_the_image(engine: sampan.Engine, boxes: dict[str, str]) -> None:
    """Two names of one file count once."""
    image = engine.images.inspect("base")["Size"]
    done = row_of(engine, "list_done", size=True)
    assert (done["SizeRw"], done["SizeRootFs"]) == (5000, image + 5000)
    assert "SizeRw" not in row_of(engine, "list_done")


def test_sizes_of_what_only_a_mapped_id_may_read(engine: sampan.Engine) -> None:
    script = "mkdir /closed; head -c 700 /dev/zero > /closed/f; chmod 000 /closed"
    engine.containers.run(RunOptions(command=["sh", "-c", script]), image="base", name="list_closed")
    try:
        assert row_of(engine, "list_closed", size=True)["SizeRw"] == 700
    finally:
        engine.containers.remove("list_closed")


def test_the_image_is_shown_by_id_once_its_name_means_another(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nENV A=1\n")
    first = engine.build(str(tmp_path), tags=["listmoved"])
    engine.containers.create("listmoved", RunOptions(command=["true"]), name="list_moved")
    try:
        assert row_of(engine, "list_moved")["Image"] == "listmoved"
        (tmp_path / "Dockerfile").write_text("FROM base\nENV A=2\n")
        engine.build(str(tmp_path), tags=["listmoved"])
        assert row_of(engine, "list_moved")["Image"] == first.removeprefix("sha256:")[:12]
    finally:
        engine.containers.remove("list_moved")


def test_rows_that_cannot_be_shown_are_not_read(engine: sampan.Engine, boxes: dict[str, str]) -> None:
    assert {record.name for record in engine.store.containers.ls(ended=False)} & {"list_new", "list_done"} == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", ["80/tcp"]), ("53/udp", ["53/udp"]), ("80-81/TCP", ["80/tcp", "81/tcp"]), ("65535", ["65535/tcp"])],
)
def test_ports(text: str, expected: list[str]) -> None:
    assert matching.ports(text) == expected


@pytest.mark.parametrize("text", ["", "0", "65536", "80/icmp", "a", "80-", "9-8", "-1", "٣"])
def test_no_ports(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        matching.ports(text)
