"""The context is closed: nothing outside reaches a layer or a digest, whatever it holds and whoever changes it."""

from __future__ import annotations

import io
import mmap
import os
import pathlib
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from buildsupport import Built, Link, left_over, write_tree

import sampan
from sampan.build import builder
from sampan.build.context import Context, File
from sampan.build.execute import HelperExecutor, Root
from sampan.dockerfile.ignore import Patterns
from sampan.engine import starter
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError

if TYPE_CHECKING:
    from sampan.oci.entry import Source

Build = Callable[..., Built]


def names(context: Context, pattern: str) -> list[str]:
    return [path for _, path in context.sources(pattern)]


def walked(context: Context, path: str = "") -> list[str]:
    return [file.path for file in context.walk(path)]


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").write_text("CANARY")
    (tmp_path / "canary").write_text("CANARY")
    root = tmp_path / "context"
    root.mkdir()
    return root


def test_paths_stay_inside(tree: pathlib.Path) -> None:
    write_tree(tree, {"f": "in", "d/g": "in"})
    with Context.open(str(tree)) as context:
        assert names(context, "../f") == ["f"]
        assert names(context, "/d/../../../d/g") == ["d/g"]
        assert names(context, "../canary") == []
        assert names(context, "../outside") == []
        assert names(context, "/") == [""]
        assert names(context, ".") == [""]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("f", "f"),
        ("/f", "f"),
        ("../../../f", "f"),
        ("d/../f", "f"),
        ("/outside/canary", None),
        ("../outside/canary", None),
        ("/etc/passwd", None),
        ("loop", None),
        ("nothing", None),
    ],
)
def test_named_links_are_followed_inside(tree: pathlib.Path, target: str, found: str | None) -> None:
    write_tree(tree, {"f": "in", "d": None, "link": Link(target), "loop": Link("loop")})
    with Context.open(str(tree)) as context:
        if target == "loop":
            with pytest.raises(InvalidArgument, match="too many symbolic links"):
                context.sources("link")
        else:
            assert names(context, "link") == ([found] if found else [])


def test_links_in_the_middle(tree: pathlib.Path) -> None:
    write_tree(tree, {"real/f": "in", "to": Link("real"), "out": Link("../outside"), "up": Link("..")})
    with Context.open(str(tree)) as context:
        assert names(context, "to/f") == ["real/f"]
        assert names(context, "out/canary") == []
        assert names(context, "up/up/real/f") == ["real/f"]
        assert names(context, "*/f") == ["real/f"], "a wildcard does not enter links"
        assert names(context, "o*") == [], "a match that leads outside is not there"


def test_links_below_a_source_stay_links(tree: pathlib.Path) -> None:
    write_tree(
        tree, {"d/abs": Link("/etc/passwd"), "d/rel": Link("../../outside/canary"), "d/dir": Link("../../outside")}
    )
    with Context.open(str(tree)) as context:
        assert [(file.name, file.kind, file.link) for file in context.walk("d")[1:]] == [
            ("abs", "L", "/etc/passwd"),
            ("dir", "L", "../../outside"),
            ("rel", "L", "../../outside/canary"),
        ]


def test_wildcards(tree: pathlib.Path) -> None:
    write_tree(tree, {"a.txt": "", "b.txt": "", "c.md": "", "d/e.txt": "", "d/[x]": "", "star*": ""})
    with Context.open(str(tree)) as context:
        assert names(context, "*.txt") == ["a.txt", "b.txt"]
        assert names(context, "[!a].txt") == ["a.txt"], "only ^ negates"
        assert names(context, "[^a].txt") == ["b.txt"]
        assert names(context, "?.m?") == ["c.md"]
        assert names(context, "d/*.txt") == ["d/e.txt"]
        assert names(context, "*/*.txt") == ["d/e.txt"]
        assert names(context, "d/[[]x]") == ["d/[x]"]
        with pytest.raises(InvalidArgument):
            context.sources("[a")


def test_ignored_files_are_not_there(tree: pathlib.Path) -> None:
    write_tree(tree, {"a": "", "b": "", "d/x": "", "d/keep/y": "", "e/z": ""})
    with Context.open(str(tree)) as context:
        context.patterns = Patterns(["b", "d", "!d/keep", "e"])
        assert walked(context) == ["", "a", "d", "d/keep", "d/keep/y"]
        assert names(context, "?") == ["a"], "d and e are excluded as such"


def test_an_ignored_directory_that_becomes_a_file_stays_ignored(tree: pathlib.Path) -> None:
    write_tree(tree, {"secret/x": "", "secret/y": ""})

    class Swapping(Context):
        def ignored(self, path: str, is_dir: bool = False) -> bool:
            left_out = super().ignored(path, is_dir)
            if path == "secret" and is_dir:
                (tree / "secret").rename(tree.parent / "away")
                (tree / "secret").write_text("CANARY")
            return left_out

    with Swapping.open(str(tree)) as context:
        context.patterns = Patterns(["secret", "!secret/x"])
        assert walked(context) == [""]


def test_a_path_that_cannot_be_costs_nothing(tree: pathlib.Path) -> None:
    write_tree(tree, {"f": ""})
    with Context.open(str(tree)) as context:
        assert names(context, "f/../" * 800 + "f") == ["f"]
        with pytest.raises(InvalidArgument, match="longer than 4096"):
            context.sources("f/../" * 820 + "f")


def test_special_files(tree: pathlib.Path) -> None:
    os.mkfifo(tree / "fifo")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tree / "socket"))
    with Context.open(str(tree)) as context:
        assert [(file.path, file.kind) for file in context.walk("")] == [("", "D"), ("fifo", "P")]
        with pytest.raises(InvalidArgument, match="socket or device"):
            context.walk("socket")
        found = os.stat(tree / "fifo")
        with pytest.raises(Conflict):
            context.opened(File("fifo", "", "F", found))
    server.close()


def test_deep_trees_end(tree: pathlib.Path) -> None:
    at = os.open(tree, os.O_RDONLY)
    for _ in range(450):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with Context.open(str(tree)) as context, pytest.raises(InvalidArgument, match="nested"):
        context.walk("")


def test_root_may_be_a_link_but_the_files_in_it_may_not_lead_out(tree: pathlib.Path, build: Build) -> None:
    write_tree(tree, {"Dockerfile": Link("../outside/canary"), "ok": "x"})
    entry = tree.parent / "entry"
    entry.symlink_to(tree)
    with Context.open(str(entry)) as context:
        assert walked(context) == ["", "Dockerfile", "ok"]
        with pytest.raises(NotFound):
            context.read("Dockerfile")


def test_a_file_that_changed_is_not_read(tree: pathlib.Path) -> None:
    write_tree(tree, {"f": "first"})
    with Context.open(str(tree)) as context:
        listed = context.walk("f")[0]
        (tree / "f").write_text("of another size: before Linux 6.13 a clock's tick may hide a change of the same")
        with pytest.raises(Conflict, match="changed while it was read"):
            context.opened(listed)


@pytest.mark.parametrize("kind", ["COPY", "ADD"])
def test_what_a_key_says_is_what_is_copied(engine: sampan.Engine, kind: str) -> None:
    """A file that another process writes through a mapping between its two readings, with the same stat."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        tree, mapping = pathlib.Path(directory), mapped(directory, kind)
        (tree / "Dockerfile").write_text(f"FROM base\n{kind} f.tar /f\n")
        before = os.stat(tree / "f.tar")

        class Meanwhile(HelperExecutor):
            def apply(self, root: Root, base: str, source: Source) -> None:
                at = mapping.find(b"trusted")
                if at >= 0:
                    mapping[at : at + 7] = b"hostile"
                assert os.stat(tree / "f.tar").st_ctime_ns == before.st_ctime_ns, "control: a stat does not tell"
                super().apply(root, base, source)

        executor = Meanwhile(engine.store, engine.host, starter)
        with pytest.raises(SampanError, match="changed while it was read"):
            builder.build(engine.store, engine.host, directory, executor=executor)
        assert left_over(engine) == []
        built = Built(engine, directory, {})
        assert built.cached == 0, "what was remembered of the file is forgotten"
        assert b"hostile" in built.read("f" if kind == "COPY" else "f/name")
        mapping.close()


def test_without_the_cache_a_stat_is_not_believed(engine: sampan.Engine) -> None:
    if not os.path.ismount("/dev/shm"):
        pytest.skip("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        mapping = mapped(directory, "COPY")
        (pathlib.Path(directory) / "Dockerfile").write_text("FROM base\nCOPY f.tar /f\n")
        time.sleep(2.1)  # a younger file's stat is believed nowhere (store/buildcache.py)
        assert b"trusted" in Built(engine, directory, {}).read("f")
        mapping[:7] = b"hostile"
        assert b"trusted" in Built(engine, directory, {}).read("f"), "control: the cache believes it"
        assert b"hostile" in Built(engine, directory, {"no_cache": True}).read("f")
        assert b"hostile" in Built(engine, directory, {}).read("f")
        mapping.close()


def mapped(directory: str, kind: str) -> mmap.mmap:
    """Make a file or an archive that is old enough for its stat to be believed, and written to already."""
    content = b"trusted" + os.urandom(8).hex().encode()
    with open(f"{directory}/f.tar", "wb+") as file:
        if kind == "ADD":
            with tarfile.open(fileobj=file, mode="w") as tar:
                member = tarfile.TarInfo("name")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        else:
            file.write(content)
        file.flush()
        mapping = mmap.mmap(file.fileno(), 0)
        mapping[:1] = mapping[:1]  # the first write to a page still shows in the stat
        return mapping


def test_a_file_that_changes_while_it_is_read(tree: pathlib.Path) -> None:
    (tree / "f").write_bytes(bytes(3 << 20))
    with Context.open(str(tree)) as context:
        listed = context.walk("f")[0]
        with context.opened(listed) as reader, pytest.raises(Conflict):
            for _ in reader.chunks():
                (tree / "f").write_bytes(b"short")


@pytest.mark.parametrize("swap", ["file", "directory"])
def test_a_swap_never_leads_outside(tree: pathlib.Path, swap: str) -> None:
    """An attacker exchanges a file or its directory for a link as fast as it can; a naive reader does fall for it."""
    write_tree(tree, {"d/canary": "inside"})
    victim, real = (tree / "d/canary", tree / "d/real") if swap == "file" else (tree / "d", tree / "real")
    outside = tree.parent / ("canary" if swap == "file" else "outside")
    real.write_text("inside") if swap == "file" else write_tree(tree, {"real/canary": "inside"})
    stop = threading.Event()

    def attack() -> None:
        spare = tree.parent / "spare"
        while not stop.is_set():
            for target in (outside, real):
                spare.symlink_to(target)
                if swap == "directory" and victim.is_dir() and not victim.is_symlink():
                    os.rename(victim, tree.parent / "moved")
                os.replace(spare, victim)

    thread = threading.Thread(target=attack)
    thread.start()
    naive = seen = 0
    try:
        with Context.open(str(tree)) as context:
            for turn in range(150_000):
                if turn >= 1500 and naive:  # on a busy machine the attacker may not have had its turn before
                    break
                try:
                    naive += (tree / "d/canary").read_text() == "CANARY"
                except OSError:
                    continue
                try:
                    for _, path in context.sources("d/canary"):
                        for file in context.walk(path):
                            if file.kind == "F":
                                with context.opened(file) as reader:
                                    seen += b"CANARY" in b"".join(reader.chunks())
                except (SampanError, OSError):
                    continue
    finally:
        stop.set()
        thread.join()
    assert naive > 0, "the control proves that the attack works"
    assert seen == 0


def test_no_canary_in_any_layer(tree: pathlib.Path, build: Build) -> None:
    write_tree(tree, {"l": Link("../canary"), "d/l": Link("../../canary"), "o": Link("../outside"), "ok": "x"})
    os.link(tree / "ok", tree / "hard")
    built = build("FROM scratch\nCOPY . /all/\nCOPY ../ok /x\nCOPY /ok /y\n", context=str(tree))
    for diff_id in built.image.diff_ids:
        data = pathlib.Path(built.engine.store.content.path(diff_id)).read_bytes()
        assert b"CANARY" not in data
    for source in ("l", "o/canary", "../canary", "d/l", "/../canary"):
        with pytest.raises(SampanError, match="no such file"):
            build(f"FROM scratch\nCOPY {source} /x\n", context=str(tree))


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("link", "link is a symbolic link to nothing in the context"),
        ("../canary", "nothing above the context can be copied"),
        ("okk", "did you mean ok?"),
        ("elsewhere", "sources are paths below the build context"),
    ],
)
def test_a_missing_source_says_why_it_is_missing(build: Build, source: str, hint: str) -> None:
    with pytest.raises(SampanError, match="the build context has no such file") as caught:
        build(f"FROM scratch\nCOPY {source} /\n", {"link": Link("../canary"), "ok": "x"})
    assert hint in caught.value.hint


def test_a_directory_is_no_dockerfile(tree: pathlib.Path, engine: sampan.Engine) -> None:
    write_tree(tree, {"Dockerfile/f": "x"})
    with pytest.raises(InvalidArgument, match="cannot read Dockerfile of the build context: it is a directory"):
        engine.build(str(tree))
