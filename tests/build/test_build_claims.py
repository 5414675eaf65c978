"""What a build found and needs stays until its end, whatever is removed or pruned meanwhile; later it goes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
from buildsupport import Built, left_over, programs

import sampan
from sampan.build.progress import Event
from sampan.cli.main import main
from sampan.errors import BuildError

Build = Callable[..., Built]
STEPS = "RUN echo 1 >/one\nRUN echo 2 >/two\n"


@pytest.fixture
def engine() -> Iterator[sampan.Engine]:
    """A store of its own: what is pruned here is not that of other tests."""
    with tempfile.TemporaryDirectory(prefix="sampan-claims-") as root:
        engine = sampan.Engine(root)
        engine.bootstrap("host", "base", programs())
        yield engine
        engine.remove_tree(engine.store.paths.snapshots)


class Meanwhile:
    """Run commands on the store when a build tells of something for the first time: another engine's."""

    def __init__(self, engine: sampan.Engine, kind: str, text: str, *commands: list[str]) -> None:
        self.root = engine.store.paths.root
        self.kind, self.text, self.commands = kind, text, commands
        self.step = ""
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.step = event.text if event.kind == "step" else self.step
        if self.commands and event.kind == self.kind and self.text in self.step:
            commands, self.commands = self.commands, ()
            for words in commands:
                assert main(["--root", self.root, *words]) == 0

    def executed(self) -> list[str]:
        """The steps that were executed, in order."""
        steps = [event for event in self.events if event.kind in ("step", "done")]
        return [before.text for before, event in zip(steps, steps[1:], strict=False) if event.kind == "done"]


def whole(engine: sampan.Engine) -> None:
    """The store is sound, and no build has left anything."""
    assert main(["--root", engine.store.paths.root, "system", "check"]) == 0
    assert left_over(engine) == [] and engine.store.db.query("SELECT * FROM leases") == []


PRUNES = [
    pytest.param([["rmi", "base"], ["builder", "prune", "-af"]], id="rmi, builder prune"),
    pytest.param([["system", "prune", "-af", "--volumes"]], id="system prune"),
    pytest.param([["image", "prune", "-af"], ["builder", "prune", "-af"]], id="image prune, builder prune"),
]


@pytest.mark.parametrize("commands", PRUNES)
def test_what_was_found_stays_while_a_step_runs(build: Build, engine: sampan.Engine, commands: list[list[str]]) -> None:
    built = build(f"FROM base\n{STEPS}")
    kept, layers = Meanwhile(engine, "output", "RUN echo begun", *commands), built.image.diff_ids
    # From /one on: the base image and two cached layers are needed by what comes after the pause.
    text = f"FROM base\n{STEPS}RUN echo begun\nRUN cat /one /two >/three\nRUN cat /three && echo end >/end\n"
    after = build(text, context=built.directory, on_event=kept, tags=["made"])
    assert kept.commands == () and kept.executed() == [*text.splitlines()[3:]]
    assert after.image.diff_ids[:3] == layers
    assert after.read("three", 3) == b"1\n2\n"
    whole(engine)


@pytest.mark.parametrize("at", ["RUN echo 1", "RUN echo 2"])
def test_what_is_pruned_before_anything_was_executed_is_made_again(
    build: Build, engine: sampan.Engine, at: str
) -> None:
    built = build(f"FROM base\n{STEPS}")
    meanwhile = Meanwhile(engine, "cached", at, ["rmi", built.id], ["builder", "prune", "-af"])
    text = f"FROM base\n{STEPS}RUN cat /one /two >/three\n"
    after = build(text, context=built.directory, on_event=meanwhile, tags=["made"])
    assert meanwhile.commands == ()
    assert meanwhile.executed() == text.splitlines()[1:], "the steps before were found, and then executed"
    assert after.read("three", 3) == b"1\n2\n"
    whole(engine)


@pytest.mark.parametrize("at", ["RUN echo 1", "RUN echo 2"])
def test_a_base_that_is_removed_before_anything_was_executed_is_told(
    build: Build, engine: sampan.Engine, at: str
) -> None:
    built = build(f"FROM base\n{STEPS}")
    meanwhile = Meanwhile(engine, "cached", at, ["rmi", "base", built.id], ["builder", "prune", "-af"])
    with pytest.raises(BuildError, match=r"cannot use image base: no such image: base"):
        build(f"FROM base\n{STEPS}RUN true\n", context=built.directory, on_event=meanwhile, fetch=None)
    assert meanwhile.commands == ()
    whole(engine)


def test_a_build_that_finds_all_names_its_image_again_when_it_was_removed(build: Build, engine: sampan.Engine) -> None:
    built = build(f"FROM base\n{STEPS}", tags=["made"])
    meanwhile = Meanwhile(engine, "cached", "RUN echo 2", ["rmi", "made"])
    again = build(f"FROM base\n{STEPS}", context=built.directory, on_event=meanwhile, tags=["again"])
    assert meanwhile.commands == () and meanwhile.executed() == []
    assert again.id == built.id and again.image.references == ["docker.io/library/again:latest"]
    whole(engine)


def test_images_that_later_steps_name_stay(build: Build, engine: sampan.Engine) -> None:
    build("FROM scratch\nCOPY f /from/other\n", {"f": "other"}, tags=["other"])
    build("FROM base\nRUN echo third >/third\n", tags=["third"])
    text = """FROM base AS first
RUN echo begun
COPY --from=other /from/other /other
FROM third
RUN cat /third >/copy
COPY --from=first /other /
"""
    names = [["rmi", "other", "third"], ["builder", "prune", "-af"], ["image", "prune", "-af"]]
    meanwhile = Meanwhile(engine, "output", "RUN echo begun", *names)
    built = build(text, on_event=meanwhile, tags=["made"])
    assert meanwhile.commands == ()
    assert built.read("other") == b"other" and built.read("copy", -2) == b"third\n"
    whole(engine)


def test_a_stage_that_was_built_stays(build: Build, engine: sampan.Engine) -> None:
    text = """FROM base AS first
RUN echo stage >/stage
FROM base
RUN echo begun
COPY --from=first /stage /copy
"""
    meanwhile = Meanwhile(engine, "output", "RUN echo begun", ["system", "prune", "-af"])
    built = build(text, on_event=meanwhile, tags=["made"])
    assert meanwhile.commands == () and built.read("copy") == b"stage\n"
    whole(engine)


def test_a_build_stands_on_what_another_one_made_though_that_is_pruned_between(
    build: Build, engine: sampan.Engine
) -> None:
    """Two builds at once: the second finds the first one's step, and the first one is forgotten then."""
    inner: list[Built] = []
    text = f"FROM base\n{STEPS}RUN echo begun\nRUN cat /one /two >/three\n"

    def listen(event: Event) -> None:
        meanwhile(event)
        if event.kind == "output" and not inner:
            inner.append(build("FROM base\nRUN echo 1 >/one\nRUN echo other >/other\n"))
            for words in (["rmi", "-f", inner[0].id], ["builder", "prune", "-af"], ["image", "prune", "-af"]):
                assert main(["--root", engine.store.paths.root, *words]) == 0

    meanwhile = Meanwhile(engine, "", "")
    outer = build(text, on_event=listen, tags=["outer"])
    assert inner[0].cached == 1 and inner[0].image.diff_ids[1] == outer.image.diff_ids[1]
    assert outer.read("three") == b"1\n2\n"
    whole(engine)


def test_what_a_build_kept_goes_with_the_next_collection(build: Build, engine: sampan.Engine) -> None:
    built = build(f"FROM base\n{STEPS}", tags=["made"])
    meanwhile = Meanwhile(engine, "output", "RUN echo begun", ["rmi", "made"], ["builder", "prune", "-af"])
    after = build("FROM base\nRUN echo 1 >/one\nRUN echo begun\n", context=built.directory, on_event=meanwhile)
    assert meanwhile.commands == ()
    layer = built.image.diff_ids[1]
    assert engine.store.snapshots.find(layer) is not None and layer in after.image.diff_ids
    assert engine.store.snapshots.find(built.image.diff_ids[2]) is None, "the build did not need it"
    assert main(["--root", engine.store.paths.root, "rmi", after.id]) == 0
    assert main(["--root", engine.store.paths.root, "builder", "prune", "-af"]) == 0
    assert engine.store.snapshots.find(layer) is None
    whole(engine)


def test_files_of_the_context_are_read_under_the_claim(build: Build, engine: sampan.Engine) -> None:
    """There may be many: the base image is removed while the first of them is read."""
    commands = [["rmi", "base"], ["builder", "prune", "-af"]]

    def remove(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and commands and isinstance(args[0], (str, bytes)) and os.fsdecode(args[0]) == "first":
            words, commands[:] = commands[:], []
            assert [main(["--root", engine.store.paths.root, *command]) for command in words] == [0, 0]

    sys.addaudithook(remove)
    built = build("FROM base\nCOPY . /c\nRUN cat /c/first >/copy\n", {"first": "content", "second": ""})
    assert not commands and built.read("copy") == b"content"
    whole(engine)
