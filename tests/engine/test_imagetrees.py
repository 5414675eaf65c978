"""Images beside each other: the tree of bases, shared layers, and what differs between two of them."""

from __future__ import annotations

import json
import pathlib

import pytest

import sampan
from sampan.cli.main import main
from sampan.engine import imagetrees
from sampan.oci.options import RunOptions


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> sampan.Engine:
    place = tmp_path_factory.mktemp("trees")
    place.chmod(0o711)
    for parent in place.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o711)
    engine = sampan.Engine(str(place / "store"))
    engine.bootstrap("host", "base", ["sh", "rm", "mkdir", "chmod"])
    build(engine, place, "one", "FROM base\nRUN echo same > /same; echo 1 > /number; mkdir /d; echo x > /d/gone")
    build(engine, place, "two", "FROM one\nRUN echo 22 > /number; rm -r /d; chmod 600 /same; echo n > /new")
    build(engine, place, "side", "FROM base\nLABEL a=b\nRUN echo > /side")
    build(engine, place, "bare", "FROM scratch\nCOPY f /f")
    return engine


def build(engine: sampan.Engine, place: pathlib.Path, name: str, text: str) -> None:
    (place / "f").write_text("f")
    (place / "Dockerfile").write_text(text + "\n")
    engine.build(str(place), tags=[name])


def test_the_tree_has_each_image_under_the_one_it_stands_on(own: sampan.Engine) -> None:
    def names(node: imagetrees.Node) -> object:
        return node.names[0].partition(":")[0], [names(child) for child in node.children]

    assert [names(node) for node in imagetrees.tree(own)] == [
        ("bare", []),
        ("base", [("one", [("two", [])]), ("side", [])]),
    ]
    base = imagetrees.tree(own)[1]
    assert base.own == base.image.size
    assert 0 < base.children[0].own < 100


def test_layers_tell_who_shares_them(own: sampan.Engine) -> None:
    rows = imagetrees.layers(own, "one")
    assert [row["SharedWith"] for row in rows] == [["base:latest", "side:latest", "two:latest"], ["two:latest"]]
    assert "echo same" in str(rows[1]["CreatedBy"])


def test_diff_of_two_images(own: sampan.Engine) -> None:
    found = [(one.kind, one.path, one.before, one.after) for one in imagetrees.diff(own, "one", "two")]
    assert found == [
        ("D", "/d", 0, 0),
        ("D", "/d/gone", 2, 0),
        ("A", "/new", 0, 2),
        ("C", "/number", 2, 3),
        ("C", "/same", 5, 5),
    ]
    assert list(imagetrees.diff(own, "one", "one")) == []
    back = {(one.kind, one.path) for one in imagetrees.diff(own, "two", "one")}
    assert ("A", "/d/gone") in back and ("D", "/new") in back


def test_an_image_without_layers_differs_by_all_that_the_other_has(own: sampan.Engine, tmp_path: pathlib.Path) -> None:
    for name in ("void", "void2"):
        build(own, tmp_path, name, f"FROM scratch\nLABEL name={name}")
    assert list(imagetrees.diff(own, "void", "void2")) == []
    assert [(one.kind, one.path) for one in imagetrees.diff(own, "void", "bare")] == [("A", "/f")]
    assert [(one.kind, one.path) for one in imagetrees.diff(own, "bare", "void")] == [("D", "/f")]
    container_id = own.containers.create("void", RunOptions(command=["/x"]))
    assert list(own.containers.diff(container_id)) == []
    own.containers.remove(container_id)
    for name in ("void", "void2"):
        own.images.remove(name)


def test_the_commands(own: sampan.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", own.store.paths.root]
    assert main([*root, "image", "tree"]) == 0
    shown = capsys.readouterr().out
    assert "├── one:latest" in shown and "│   └── two:latest" in shown
    assert main([*root, "image", "tree", "two"]) == 0
    assert "SHARED WITH" in capsys.readouterr().out
    assert main([*root, "image", "diff", "one", "two"]) == 0
    assert "C /same  (its mode differs)" in capsys.readouterr().out
    assert main([*root, "image", "diff", "--json", "one", "two"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 5
    assert main([*root, "image", "diff", "one"]) == 1
    assert main([*root, "image", "diff", "one", "nothing"]) == 1
