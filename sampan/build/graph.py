"""From instructions to stages: which stage stands on which, which are needed for the target, and in what order.

Pure. A stage's own words are expanded later, when the configuration of its base is known; only FROM lines are
expanded here, with the global arguments. A name in `--from` means an earlier stage, else an image; a stage can never
refer to a later one, so the order of the file is a valid order of work.
"""

from __future__ import annotations

from sampan.build.scope import Arguments
from sampan.dockerfile import commands as ins
from sampan.dockerfile import instructions
from sampan.dockerfile.expand import expand
from sampan.dockerfile.lexer import Dockerfile
from sampan.dockerfile.located import did_you_mean, shown
from sampan.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.dockerfile.commands import Instruction

SCRATCH = "scratch"
MAX_STAGES = 1000  # each keeps a history and an environment of its own


class Stage:
    """Hold one FROM and the instructions that follow it; `parent` is the stage it stands on, or -1 for an image."""

    __slots__ = ("base", "from_", "index", "name", "needs", "parent", "platform", "steps")

    def __init__(self, index: int, from_: ins.From, base: str, platform: str) -> None:
        self.index = index
        self.from_ = from_
        self.name = from_.alias
        self.base = base
        self.platform = platform
        self.parent = -1
        self.steps: list[Instruction] = []
        self.needs: set[int] = set()

    @property
    def title(self) -> str:
        """Name the stage for progress: its name, or its number."""
        return self.name or f"stage-{self.index}"


class Graph:
    """Hold the stages of a Dockerfile, the target, and the stages that it needs in the order of work."""

    __slots__ = ("_named", "arguments", "file", "order", "stages", "target")

    def __init__(self, file: Dockerfile, arguments: Arguments) -> None:
        self.file = file
        self.arguments = arguments
        self.stages: list[Stage] = []
        self._named: dict[str, list[int]] = {}
        self.target = -1
        self.order: list[int] = []

    def add(self, stage: Stage) -> None:
        """Append a stage."""
        self.stages.append(stage)
        if stage.name:
            self._named.setdefault(stage.name, []).append(stage.index)

    def find(self, name: str, before: int) -> int:
        """Give the number of the last stage of this name or number that stands before `before`, or -1 for none."""
        wanted = name.lower()
        for index in reversed(self._named.get(wanted, ())):
            if index < before:
                return index
        if wanted.isdecimal() and wanted.isascii() and len(wanted) < 6 and int(wanted) < before:
            return int(wanted)
        return -1

    def images(self) -> list[str]:
        """Give the names of the images that the target needs, as far as the file tells: not those of triggers."""
        found = []
        for stage in (self.stages[index] for index in self.order):
            if stage.parent < 0 and stage.base != SCRATCH:
                found.append(stage.base)
            for step in stage.steps:
                if isinstance(step, ins.Copy) and step.from_ and self.find(step.from_, stage.index) < 0:
                    found.append(step.from_)
        return found

    def needed(self, index: int) -> list[int]:
        """Give the stages that a stage needs, in the order of work: itself last."""
        found = set()
        waiting = [index]
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting.extend(self.stages[index].needs)
        return sorted(found)


def build(file: Dockerfile, arguments: Arguments, target: str = "") -> Graph:
    """Read a lexed file's stages and mark what `target` (the last stage by default) needs."""
    graph = Graph(file, arguments)
    global_args, stages = instructions.stages(file)
    for arg in global_args:
        _declare(arguments, arg)
    for found in stages:
        if found.index == MAX_STAGES:
            raise found.from_.error(f"the file has more than {MAX_STAGES} stages")
        graph.add(_stage(graph, found))
    for stage in graph.stages:
        _connect(graph, stage)
    _note_arguments(graph)
    graph.target = _target(graph, target)
    graph.order = graph.needed(graph.target)
    return graph


def _declare(arguments: Arguments, arg: ins.Arg) -> None:
    for name, default in arg.pairs:
        arguments.declare_global(name, default, lambda word, scope: expanded(arg, word, scope))


def _stage(graph: Graph, found: instructions.Stage) -> Stage:
    from_, scope = found.from_, graph.arguments.globals
    image = expanded(from_, from_.image, scope)
    if not image:
        hint = "give the ARG before the first FROM a default, or pass --build-arg"
        raise from_.error(f"the image name {shown(from_.image)} is empty after expansion", hint)
    stage = Stage(found.index, from_, image, expanded(from_, from_.platform, scope))
    stage.steps = found.instructions
    return stage


def _note_arguments(graph: Graph) -> None:
    """Take note of the names that any stage declares: giving one that an unneeded stage uses is no mistake."""
    for stage in graph.stages:
        for step in stage.steps:
            if isinstance(step, ins.Arg):
                graph.arguments.declared.update(name for name, _ in step.pairs)


def _connect(graph: Graph, stage: Stage) -> None:
    """Find the stages that a stage needs."""
    stage.parent = -1 if stage.base == SCRATCH else _by_name(graph, stage)
    if stage.parent >= 0:
        stage.needs.add(stage.parent)
    for step in stage.steps:
        if isinstance(step, ins.Copy) and step.from_:
            source = graph.find(step.from_, stage.index)
            if source >= 0:
                stage.needs.add(source)
            elif step.from_.isdecimal() or step.from_.lower() == stage.name != "":
                _refuse_source(graph, stage, step)


def _by_name(graph: Graph, stage: Stage) -> int:
    """Give the earlier stage that FROM names; unlike --from, FROM takes no number."""
    return -1 if stage.base.isdecimal() else graph.find(stage.base, stage.index)


def _refuse_source(graph: Graph, stage: Stage, step: ins.Copy) -> None:
    hint = f"stages before this one: 0 to {stage.index - 1}" if stage.index else "there is no stage before this one"
    raise step.error(f"--from={step.from_} does not name an earlier stage", hint)


def _target(graph: Graph, name: str) -> int:
    if not name:
        return len(graph.stages) - 1
    found = graph.find(name, len(graph.stages))
    if found >= 0:
        return found
    names = [stage.name for stage in graph.stages if stage.name]
    listed = ", ".join(stage.name or str(stage.index) for stage in graph.stages[:20])
    hint = did_you_mean(name, names) or f"stages of this file: {listed}{', …' if len(graph.stages) > 20 else ''}"
    raise BuildError(f"cannot build target {shown(name)}: {graph.file.name} has no stage of this name", hint)


def expanded(at: Instruction, word: str, scope: dict[str, str]) -> str:
    """Expand one word of an instruction; a located BuildError when it cannot be."""
    try:
        text = expand(word, scope, at.node.source.escape)
    except BuildError as error:
        raise at.locate(error) from None
    if text != word:
        at.node.charge(len(text))
    return text
