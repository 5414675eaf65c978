"""`build`: a context and a Dockerfile in, an image id out.

    image_id = builder.build(store, host, ".", tags=["app"], build_args={"VERSION": "1"}, on_event=print_event)

The order: read the Dockerfile and .dockerignore through the context's descriptor, divide into stages, solve the
target, store the image, tag it. Nothing is named before it is stored.
"""

from __future__ import annotations

import os
import sys

from sampan.build import graph as graphs
from sampan.build import progress
from sampan.build.context import Context
from sampan.build.digests import Digests
from sampan.build.progress import Event
from sampan.build.scope import Arguments, platform_arguments
from sampan.build.solve import Settings, Solver
from sampan.dockerfile import ignore, lexer
from sampan.errors import InvalidArgument, NotFound, NotSupported, SampanError
from sampan.oci import platform as platforms
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sampan.build.execute import Executor
    from sampan.build.metadata import State
    from sampan.build.progress import Listener
    from sampan.store.leases import Lease
    from sampan.store.parts import Store

LIMITS = (
    *("memory", "memory_swap", "cpu_period", "cpu_quota", "cpu_shares", "cpus", "cpuset", "cpuset_mems"),
    *("pid", "pids_limit", "shm_size", "ulimits"),
)
_NETWORKS = ("", "default", "none", "host")


def build(
    store: Store,
    host: Any,
    context: str | int,
    *,
    tags: Sequence[str] = (),
    dockerfile: str = "",
    build_args: Mapping[str, str] | None = None,
    target: str = "",
    no_cache: bool = False,
    labels: Mapping[str, str] | None = None,
    platform: str = "",
    network: str = "",
    on_event: Listener | None = None,
    fetch: Callable[[str, platforms.Platform, Lease], Any] | None = None,
    pull: bool = False,
    no_cache_stages: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    starter: Any = None,
) -> str:
    """Build an image and give its id.

    `context` is a directory, or a descriptor ("-" is standard input) that a Dockerfile without a context is read from;
    `dockerfile` is a path (or "-"), by default `Dockerfile` in the context. `network="host"` gives RUN steps the host's
    network. `fetch(name, platform, lease)` gives an image that the store lacks, with `pull` one that it has too,
    held by the lease.
    Steps of `no_cache_stages` are executed again; `limits` are for RUN, fields of RunOptions (LIMITS).
    Raises BuildError with file, lines and excerpt for what is wrong in the Dockerfile.
    """
    context = 0 if context == "-" else context
    settings = Settings(_platform(platform), on_event or progress.ignore)
    settings.no_cache, settings.network = no_cache, _network(network)
    settings.fetch, settings.pull = fetch, pull
    settings.limits, settings.no_cache_stages = _limits(limits or {}), frozenset(map(str.lower, no_cache_stages))
    for name in tags:
        reference.parse(name)
    arguments = Arguments(dict(build_args or {}), platform_arguments(settings.platform, platforms.host()))
    with _context(context, store.paths.empty) as opened:
        file = lexer.parse(*_dockerfile(opened, context, dockerfile))
        graph = graphs.build(file, arguments, target)
        _check_stages(graph, settings.no_cache_stages)
        opened.patterns = _patterns(opened, dockerfile) or None
        _warn_unused(arguments, settings.listener)
        digests = Digests(store.buildcache, context if isinstance(context, str) else "", not no_cache)
        solver = Solver(graph, store, lambda: executor or _executor(store, host, starter), opened, digests, settings)
        try:
            return solver.under_claim(lambda state: _finish(solver, state, list(tags), dict(labels or {})))
        finally:
            _save(digests, settings.listener)
            solver.close()


def _save(digests: Digests, listener: Listener) -> None:
    """Keep the digests for the next build; on a full disk that one computes them again."""
    try:
        digests.save()
    except SampanError as error:
        listener(Event(progress.WARNING, error.message))


def _executor(store: Store, host: Any, starter: Any) -> Executor:
    from sampan.build.execute import HelperExecutor

    # Who made the host facts also starts processes: engine/starter.py, which this floor may not import.
    return HelperExecutor(store, host, starter or sys.modules[type(host).__module__])


def _platform(text: str) -> platforms.Platform:
    here = platforms.host()
    if not text:
        return here
    wanted = platforms.parse(text)
    if not platforms.matches(here, wanted):
        raise NotSupported(f"cannot build for platform {wanted}: this host is {here}")
    return wanted


def _network(text: str) -> str:
    if text not in _NETWORKS:
        raise InvalidArgument(f"cannot build with network {text!r}: it is host, none or default")
    return text


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in LIMITS:
            raise InvalidArgument(
                f"cannot build with limit {name!r}: there is no such limit", f"one of: {', '.join(LIMITS)}"
            )
    return dict(given)


def _check_stages(graph: graphs.Graph, names: frozenset[str]) -> None:
    unknown = sorted(name for name in names if graph.find(name, len(graph.stages)) < 0)
    if unknown:
        listed = ", ".join(stage.name or str(stage.index) for stage in graph.stages[:20])
        raise InvalidArgument(
            f"cannot build without the cache of stage {unknown[0]!r}: there is none", f"stages: {listed}"
        )


def _context(context: str | int, empty: str) -> Context:
    if isinstance(context, str):
        return Context.open(context)
    return Context.open(empty)


def _dockerfile(opened: Context, context: str | int, path: str) -> tuple[bytes, str]:
    """Give the text of the Dockerfile and the name that messages use for it."""
    if path == "-":
        return _read_all(0), "Dockerfile"
    if path:
        return _read_outside(path), os.path.basename(path)
    if isinstance(context, int):
        return _read_all(context), "Dockerfile"
    try:
        return opened.read("Dockerfile"), "Dockerfile"
    except NotFound as error:
        from sampan.dockerfile.located import did_you_mean

        hint = did_you_mean("Dockerfile", [n for n in opened.names("") if len(n) < 30]) or "name it with -f"
        raise NotFound(f"cannot build {context}: it has no Dockerfile", hint) from error


def _read_outside(path: str) -> bytes:
    """Read a Dockerfile that the caller named: it need not be in the context."""
    try:
        with open(path, "rb") as file:
            data = file.read(lexer.MAX_SIZE + 1)
    except OSError as error:
        raise NotFound(f"cannot read Dockerfile {path}: {error.strerror}") from error
    return data


def _read_all(fd: int) -> bytes:
    data = b""
    while len(data) <= lexer.MAX_SIZE:
        part = os.read(fd, 1 << 20)
        if not part:
            break
        data += part
    if data[257:262] == b"ustar" or data[:2] == b"\x1f\x8b":
        raise NotSupported("cannot build from an archive on standard input yet", "unpack it and name the directory")
    return data


def _patterns(opened: Context, dockerfile: str) -> ignore.Patterns | None:
    """Read the patterns that thin the context: those beside the Dockerfile win over the context's own."""
    own = (dockerfile or "Dockerfile") + ".dockerignore"
    if dockerfile and os.path.isfile(own):
        return ignore.read(_read_outside(own), os.path.basename(own))
    for name in ((own,) if not dockerfile else ()) + (".dockerignore",):
        try:
            return ignore.read(opened.read(name), name)
        except NotFound:
            continue
    return None


def _warn_unused(arguments: Arguments, listener: Listener) -> None:
    unused = arguments.unused()
    if unused:
        text = f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed"
        listener(Event(progress.WARNING, text))


def _finish(solver: Solver, state: State, tags: list[str], labels: dict[str, str]) -> str:
    from sampan.build import commit

    if labels:
        state = state.copy()
        state.config["Labels"] = {**(state.config.get("Labels") or {}), **labels}
    if solver.claim.made:
        commit.seal(solver.store, solver.claim)
    image_id, names = commit.image(solver.store, solver.claim, state, tags, solver.settings.no_cache)
    solver.settings.listener(Event(progress.IMAGE, image_id))
    for full in names:
        solver.settings.listener(Event(progress.TAGGED, full))
    return image_id
