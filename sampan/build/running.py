"""RUN: the command line, environment and rights of a step, and how its failure is told.

Build arguments are in the environment of the step, not in the image; a variable of ENV wins over an argument of the
same name. A step has a loopback interface and no other network, unless the caller of the build allows the host's.
"""

from __future__ import annotations

from sampan.build import keys, progress
from sampan.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.build.execute import Root
    from sampan.build.graph import Stage
    from sampan.build.metadata import State
    from sampan.build.solve import Solver
    from sampan.dockerfile.commands import Run

_OWNERS = {"chown", "install", "adduser", "addgroup", "useradd", "groupadd"}
_FETCHERS = ("apt", "apk", "dnf", "yum", "pip", "npm", "yarn", "curl", "wget", "git", "go", "cargo", "gem", "composer")

_TAIL = 1 << 14  # bytes of a step's output that its error carries

SCRIPT = "/dev/pipes/script"
"""Where a step sees its script: in /dev, which is never part of a layer."""


class Process:
    """Hold what a step starts; `script` is the text of a file that it is given at SCRIPT.

    `limits` are fields of RunOptions; they change nothing of the result, so the cache does not know them.
    """

    __slots__ = ("args", "cwd", "env", "limits", "network", "script", "user")

    def __init__(self, args: list[str], env: list[str], cwd: str, user: str, network: str, script: bytes) -> None:
        self.args = args
        self.env = env
        self.cwd = cwd
        self.user = user
        self.network = network
        self.script = script
        self.limits: dict[str, Any] = {}


def perform(solver: Solver, stage: Stage, state: State, step: Run) -> None:
    """Add the result of a RUN to the state."""
    _refuse_unsupported(step)
    network = _network(step, solver.settings.network)
    arguments = dict(sorted(state.args.items()))
    process = _process(state, step, network, {})
    text = _history(arguments, process.args)
    fields: list[keys.Field] = [process.args, sorted(process.env), process.cwd, process.user, network, process.script]
    proxies = {name: value for name, value in solver.graph.arguments.proxies().items() if name not in state.args}

    def work(root: Root) -> None:
        process = _process(state, step, network, proxies)
        process.limits = solver.settings.limits
        _run(solver, stage, step, root, process)

    solver.layer(stage, state, step, text, ["run", *fields], work)


# What to do until there are mounts.
_WITHOUT = {
    "bind": "COPY what the step needs from the context or a stage, in a stage that the image does not come from",
    "cache": "leave the mount out: the step does the same, and fetches each time what the cache would keep",
    "tmpfs": "leave the mount out, and remove in the same step what it wrote there",
    "secret": "do what needs the secret before the build, and COPY the result",
    "ssh": "fetch what needs the key before the build, and COPY it",
}


def _refuse_unsupported(step: Run) -> None:
    if step.mounts:
        kind = step.mounts[0]["type"]
        raise step.error(f"RUN --mount=type={kind} is not supported yet", _WITHOUT.get(kind, ""))
    if step.security == "insecure":
        raise step.error(
            "RUN --security=insecure is not supported", "a build step never gets more rights than a container"
        )


def _network(step: Run, allowed: str) -> str:
    """Give "host" or "none": a Dockerfile alone may not choose the host's network, its user must agree."""
    wanted = step.network if step.network not in ("", "default") else allowed
    if wanted == "host" and allowed != "host":
        raise step.error(
            "RUN --network=host is not allowed by the caller", "allow it with: sampan build --network host"
        )
    return "host" if wanted == "host" else "none"


def _process(state: State, step: Run, network: str, proxies: dict[str, str]) -> Process:
    script = step.script()
    args = list(step.args)
    if script is not None:
        args = [SCRIPT]
    elif step.is_shell:
        args = [*state.shell(), step.command()]
    env = list(state.config.get("Env") or ())
    known = state.env()
    env += [f"{name}={value}" for name, value in {**proxies, **state.args}.items() if name not in known]
    data = script.text().encode("utf-8", "surrogateescape") if script is not None else b""
    return Process(args, env, state.workdir(), state.config.get("User") or "", network, data)


def _history(arguments: dict[str, str], args: list[str]) -> str:
    words = [f"|{len(arguments)}", *(f"{name}={value}" for name, value in arguments.items())] if arguments else []
    return " ".join(["RUN", *words, *args])


def _run(solver: Solver, stage: Stage, step: Run, root: Root, process: Process) -> None:
    tail = b""

    def output(stream: int, data: bytes) -> None:
        nonlocal tail
        tail = (tail + data)[-_TAIL:]
        solver.tell(progress.OUTPUT, stage, stream=stream, data=data)

    ended = solver.executor.run(root, process, output)
    for text in solver.executor.notes():
        solver.tell(progress.WARNING, stage, text)
    if ended.code or ended.signal:
        error = _failed(step, process, ended.code, ended.signal, ended.oom)
        error.output = tail
        raise error


def _failed(step: Run, process: Process, code: int, signal: int, oom: bool) -> BuildError:
    how = f"exit code: {code}"
    if signal:
        how += f" (signal {signal}{', out of memory' if oom else ''})"
    command = " ".join(process.args)
    hint = "" if code in (126, 127) else _hint(process, command, _single())
    return step.error(
        f'process "{_shortened(command)}" did not complete successfully: {how}',
        hint,
    )


def _single() -> bool:
    from sampan.runtime import idmap

    return idmap.detect().single


def _shortened(command: str) -> str:
    return command if len(command) <= 400 else command[:399] + "…"


def _hint(process: Process, command: str, single: bool) -> str:
    """Say what is likely: a step that fetches lacks the network, one that changes owners lacks the ids."""
    words = command.replace(";", " ").replace("&", " ").replace("(", " ").replace("|", " ").split()
    names = {word.rpartition("/")[2].partition("-")[0] for word in words}
    fetches = not names.isdisjoint(_FETCHERS)
    if fetches and process.network != "host":
        return "build steps have no network by default; if this one needs it: sampan build --network host"
    if single and (fetches or not names.isdisjoint(_OWNERS)):
        return "only one id is mapped, so no owner can be changed: `sampan doctor` shows how to get a range of ids"
    return ""
