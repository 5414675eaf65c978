"""Works the graph off: for each step its key, then the cache, and only on a miss the executor.

A stage is solved when something needs it. Instructions that change only the configuration cost nothing; the others
(RUN, COPY, ADD, WORKDIR) have a result: one layer, or none when nothing changed. A result is recorded only after its
layer is stored and its snapshot committed, so an interrupted build leaves the store as it was, plus the steps that
were finished.
"""

from __future__ import annotations

import time

from sampan.build import graph as graphs
from sampan.build import keys, metadata, progress
from sampan.build.metadata import State
from sampan.build.progress import Event
from sampan.build.stores import Claim, Gone
from sampan.dockerfile import commands as ins
from sampan.dockerfile.located import shown
from sampan.errors import (
    BuildError,
    Denied,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotSupported,
    SampanError,
    Unavailable,
)
from sampan.oci import image as images
from sampan.oci import platform as platforms
from sampan.oci import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.build.context import Context
    from sampan.build.digests import Digests
    from sampan.build.execute import Executor
    from sampan.build.graph import Graph, Stage
    from sampan.build.progress import Listener
    from sampan.dockerfile.commands import Instruction
    from sampan.store.leases import Lease
    from sampan.store.parts import Store


class Settings:
    """Hold what the caller of a build decides about its steps."""

    __slots__ = ("fetch", "limits", "listener", "network", "no_cache", "no_cache_stages", "platform", "pull")

    def __init__(self, platform: platforms.Platform, listener: Listener) -> None:
        self.platform = platform
        self.listener = listener
        self.no_cache = False
        self.network = ""
        self.fetch: Callable[[str, platforms.Platform, Lease], Any] | None = None
        self.pull = False
        self.no_cache_stages: frozenset[str] = frozenset()
        self.limits: dict[str, Any] = {}


class Result:
    """Hold what a step made: the layer's diff_id ("" when nothing changed) and size, and when."""

    __slots__ = ("created", "diff_id", "size")

    def __init__(self, diff_id: str, size: int, created: str) -> None:
        self.diff_id = diff_id
        self.size = size
        self.created = created


class Solver:
    """Solve the stages of one graph."""

    def __init__(
        self,
        graph: Graph,
        store: Store,
        make_executor: Callable[[], Executor],
        context: Context,
        digests: Digests,
        settings: Settings,
    ) -> None:
        self.graph = graph
        self.store = store
        self._make_executor = make_executor
        self._executor: Executor | None = None
        self.context = context
        self.digests = digests
        self.settings = settings
        self.claim = Claim(store, [] if settings.pull else graph.images())
        digests.before = self.claim.lease
        self._states: dict[int, State] = {}
        self._images: dict[str, State] = {}
        self._place = (0, 0)

    @property
    def executor(self) -> Executor:
        """The executor, made when it is first asked for: a build that finds all its steps never loads it.

        What it looks into has to stay: the claim is made firm before.
        """
        self.claim.lease()
        if self._executor is None:
            self._executor = self._make_executor()
        return self._executor

    def close(self) -> None:
        """Give back what the steps took: helpers and the lease."""
        if self._executor is not None:
            self._executor.close()
        self.claim.release()

    def under_claim(self, finish: Callable[[State], str]) -> str:
        """Solve the target and give what `finish` makes of it; once more where a collector took what was found."""
        try:
            return finish(self.solve(self.graph.target))
        except Gone:
            self._states.clear()
            self._images.clear()
            return finish(self.solve(self.graph.target))

    def solve(self, index: int) -> State:
        """Give the state at the end of a stage, solving what it needs first."""
        if index not in self._states:
            for needed in self.graph.needed(index):
                if needed not in self._states:
                    self._states[needed] = self._stage(self.graph.stages[needed])
        return self._states[index]

    def _stage(self, stage: Stage) -> State:
        state = self._begin(stage)
        steps = self._triggers(stage, state) + stage.steps
        total = 1 + sum(not metadata.is_free(step) for step in steps)
        self._place = (1, total)
        self.tell(progress.STEP, stage, stage.from_.text)
        self.tell(progress.CACHED, stage)
        number = 1
        for step in steps:
            if not metadata.is_free(step):
                number += 1
                self._place = (number, total)
                self.tell(progress.STEP, stage, step.text)
            self._step(stage, state, step)
        state.settle()
        return state

    def tell(
        self, kind: str, stage: Stage, text: str = "", *, size: int = 0, data: bytes = b"", stream: int = 0
    ) -> None:
        """Tell the listener something about the step that is being worked on."""
        number, total = self._place
        event = Event(kind, text, stage=stage.title, number=number, total=total, size=size, data=data, stream=stream)
        self.settings.listener(event)

    def _begin(self, stage: Stage) -> State:
        if stage.platform:
            self._check_platform(stage)
        if stage.parent >= 0:
            return self.solve(stage.parent).copy()
        if stage.base == graphs.SCRATCH:
            state = metadata.scratch()
            state.platform = self.settings.platform.descriptor()
            return state
        return self.image(stage.base, stage.from_).copy()

    def _check_platform(self, stage: Stage) -> None:
        try:
            wanted = platforms.parse(stage.platform)
        except InvalidArgument as error:
            raise stage.from_.error(error.message, error.hint) from None
        if not platforms.matches(platforms.host(), wanted):
            raise stage.from_.error(
                f"cannot build for platform {wanted}: this host is {platforms.host()}",
                "sampan builds for the platform that it runs on",
            )

    def image(self, name: str, at: Instruction) -> State:
        """Give the state that an image of the store stands for; a located BuildError when there is none."""
        if name not in self._images:
            try:
                found = self._resolve(name)
            except NotFound as error:
                hint = error.hint or "load, pull or bootstrap it first"
                raise at.error(f"cannot use image {shown(name)}: {error.message}", hint) from error
            except SampanError as error:
                raise located(at, error) from error
            if not found.config:
                raise at.error(f"cannot use image {shown(name)}: it is an artifact, not an image with a file system")
            self._images[name] = state_of(found)
        return self._images[name]

    def _resolve(self, name: str) -> Any:
        fetch = self.settings.fetch
        if not self.settings.pull or fetch is None:
            try:
                return self.claim.image(name)
            except NotFound:
                if fetch is None:
                    raise
        return fetch(name, self.settings.platform, self.claim.lease())

    def _triggers(self, stage: Stage, state: State) -> list[Instruction]:
        """Take the ONBUILD triggers of a base image: they run before the stage's own instructions, and only here."""
        texts = state.config.pop("OnBuild", None) if stage.parent < 0 else None
        if not texts:
            return []
        from sampan.dockerfile import lexer
        from sampan.dockerfile.instructions import onbuild

        name = f"ONBUILD of {stage.base}"
        return [onbuild(text, lexer.parse(text.encode("utf-8", "surrogateescape"), name)) for text in texts]

    def _step(self, stage: Stage, state: State, step: Instruction) -> None:
        try:
            self._dispatch(stage, state, step)
        except BuildError as error:
            raise self._placed(stage, step.locate(error)) from error
        except SampanError as error:
            found = located(step, error)
            raise (self._placed(stage, found) if isinstance(found, BuildError) else found) from error

    def _placed(self, stage: Stage, error: BuildError) -> BuildError:
        error.step, error.stage = self._place[0], stage.title
        return error

    def _dispatch(self, stage: Stage, state: State, step: Instruction) -> None:
        if isinstance(step, ins.Arg):
            self._arg(state, step)
        elif isinstance(step, ins.Run):
            from sampan.build import running

            running.perform(self, stage, state, step)
        elif isinstance(step, ins.Copy):
            from sampan.build import copystep

            copystep.perform(self, stage, state, step)
        elif isinstance(step, ins.Workdir):
            self._workdir(stage, state, step)
        else:
            self._metadata(state, step)

    def _metadata(self, state: State, step: Instruction) -> None:
        scope = state.scope()
        try:
            text = metadata.apply(state, step, lambda word: graphs.expanded(step, word, scope))
        except ValueError as error:
            raise step.error(str(error)) from None
        state.row(text, "", True)

    def _arg(self, state: State, step: ins.Arg) -> None:
        scope = state.scope()
        shown_pairs = []
        for name, default in step.pairs:
            value = None if default is None else graphs.expanded(step, default, scope)
            value = self.graph.arguments.value(name, value)
            shown_pairs.append(name if value is None else f"{name}={value}")
            if value is not None:
                state.args[name] = value
        state.row("ARG " + " ".join(shown_pairs), "", True)

    def _workdir(self, stage: Stage, state: State, step: ins.Workdir) -> None:
        path = state.workdir(graphs.expanded(step, step.path, state.scope()))
        state.config["WorkingDir"] = path
        text = f"WORKDIR {path}"
        if path == "/":
            state.row(text, "", True)
            self.tell(progress.CACHED, stage)
            return
        self.layer(stage, state, step, text, ["workdir", path], lambda root: self.executor.apply(root, path, ()))

    def layer(
        self,
        stage: Stage,
        state: State,
        step: Instruction,
        text: str,
        fields: list[keys.Field],
        work: Callable[[Any], None],
        second_key: Callable[[], str] | None = None,
    ) -> None:
        """Add a step's result to the state: from the cache, or by calling `work` on a writable root."""
        key = keys.key(str(fields[0]), images.chain_id(state.diff_ids), *fields[1:])
        known = self._known if not self._is_anew(stage) else lambda key: None
        result = known(key)
        other = ""
        if result is None and second_key is not None:
            other = second_key()
            result = known(other)
            if result is not None:
                self._remember(key, result)
        if result is not None:
            self.tell(progress.CACHED, stage)
        else:
            result = self._execute(state, work)
            for name in (key, other):
                if name:
                    self._remember(name, result)
            self.tell(progress.DONE, stage, size=result.size)
        if result.diff_id:
            state.diff_ids.append(result.diff_id)
            state.sizes[result.diff_id] = result.size
        state.row(text, result.created, not result.diff_id)

    def _is_anew(self, stage: Stage) -> bool:
        """Tell whether a stage is to be executed again, whatever the cache has."""
        names = self.settings.no_cache_stages
        return self.settings.no_cache or stage.name.lower() in names or str(stage.index) in names

    def _known(self, key: str) -> Result | None:
        found = self.store.buildcache.get(key)
        if found is None:
            return None
        result = Result(found["diff_id"], found["size"], found["created"])
        return result if not result.diff_id or self.claim.layer(result.diff_id) else None

    def _remember(self, key: str, result: Result) -> None:
        value = {"diff_id": result.diff_id, "size": result.size, "created": result.created}
        self.store.buildcache.put(key, value, [result.diff_id] if result.diff_id else [])

    def _execute(self, state: State, work: Callable[[Any], None]) -> Result:
        from sampan.build import commit

        diff_id, size = commit.execute(self.store, self.claim, self.executor, state.diff_ids, work)
        return Result(diff_id, size, timestamp.format(time.time_ns() // 1_000_000_000 * 1_000_000_000))


def located(step: Instruction, error: SampanError) -> SampanError:
    """Give an error the place of the step that met it; what is not the Dockerfile's fault keeps its kind."""
    made = step.error(error.message, error.hint)
    if isinstance(error, (NotSupported, Unavailable, IntegrityError, Denied)):
        error.message = made.message
        error.args = (made.message,)
        return error
    return made


def state_of(found: Any) -> State:
    """Give the state that an image stands for."""
    state = State()
    document = found.config
    state.config = dict(document.get("config") or {})
    env = list(state.config.get("Env") or ())
    if not any(entry.startswith("PATH=") for entry in env):  # as Docker: `ENV PATH=/opt/bin:$PATH` stands on it
        state.config["Env"] = [f"PATH={metadata.DEFAULT_PATH}", *env]
    state.author = document.get("author") or ""
    state.platform = {
        key: document[key] for key in ("architecture", "os", "variant", "os.version") if document.get(key)
    }
    state.diff_ids = list(found.diff_ids)
    state.history = list(document.get("history") or [])
    state.manifest = found.manifest_digest
    return state
