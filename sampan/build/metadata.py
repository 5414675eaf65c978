"""Instructions that change only the image's configuration, and the state of a stage between instructions.

Pure. A `State` is what the next instruction sees: configuration, arguments, layers, history. Each instruction leaves
one row of history. Rules are those of Docker's builder (Dockerfile reference; image-spec config.md for the
configuration's keys).
"""

from __future__ import annotations

from sampan.dockerfile import commands as ins
from sampan.dockerfile import values
from sampan.dockerfile.expand import expand_words
from sampan.errors import InvalidArgument
from sampan.oci import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.dockerfile.commands import Instruction

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ["/bin/sh", "-c"]
MAX_HISTORY = 4 << 20  # characters: an image's configuration is larger still, and no more of it is read (oci/image.py)
MAX_PORTS = 1 << 18  # in one EXPOSE: all that there are, of every kind, fit in


class State:
    """Hold a stage between two instructions; `manifest` is the base image's, `sizes` are those of the layers above."""

    __slots__ = (
        "_places",
        "_said",
        "_variables",
        "args",
        "author",
        "cmd_set",
        "config",
        "diff_ids",
        "history",
        "manifest",
        "platform",
        "sizes",
    )

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.args: dict[str, str] = {}
        self.author = ""
        self.platform: dict[str, str] = {}
        self.diff_ids: list[str] = []
        self.sizes: dict[str, int] = {}
        self.manifest = ""
        self.history: list[dict[str, Any]] = []
        self.cmd_set = False
        self._said = 0
        self._variables: dict[str, str] = {}
        self._places: dict[str, int] | None = None

    def copy(self) -> State:
        """Give the state in which a stage begins that stands on this one."""
        new = State()
        new.config = {key: _copied(value) for key, value in self.config.items()}
        new.args = dict(self.args)
        new.author = self.author
        new.platform = dict(self.platform)
        new.diff_ids = list(self.diff_ids)
        new.sizes = dict(self.sizes)
        new.manifest = self.manifest
        new.history = list(self.history)
        new._said = self._said
        return new

    def settle(self) -> None:
        """Forget what `env` keeps for the next instruction, when there is none: others may stand on the state."""
        self._variables, self._places = {}, None

    def env(self) -> dict[str, str]:
        """Give the environment of the configuration, not to be changed; entries without `=` are left out."""
        if self._places is None:
            self._index()
        return self._variables

    def _index(self) -> dict[str, int]:
        """Note where each variable stands, so that thousands of ENV lines cost no more than they must."""
        entries = list(self.config.get("Env") or ())
        if entries:
            self.config["Env"] = entries
        self._places, self._variables = {}, {}
        for place, entry in enumerate(entries):
            name, equals, value = entry.partition("=")
            if equals and name:
                self._places[name], self._variables[name] = place, value
        return self._places

    def set_env(self, name: str, value: str) -> None:
        """Set one variable of the configuration in its place, or at the end."""
        if not name:
            raise ValueError("the name of a variable is empty")
        places = self._index() if self._places is None else self._places
        entries = self.config.setdefault("Env", [])
        if name in places:
            entries[places[name]] = f"{name}={value}"
        else:
            places[name] = len(entries)
            entries.append(f"{name}={value}")
        self._variables[name] = value

    def scope(self) -> dict[str, str]:
        """Give what words are expanded with: arguments, and the environment over them."""
        return {**self.args, **self.env()}

    def shell(self) -> list[str]:
        """Give the words that the shell form of an instruction is run by."""
        return list(self.config.get("Shell") or DEFAULT_SHELL)

    def workdir(self, path: str = "") -> str:
        """Join a path to the working directory, and clean it as text: the kernel resolves it inside the root."""
        current = self.config.get("WorkingDir") or "/"
        return clean(path if path.startswith("/") else f"{current}/{path}")

    def row(self, created_by: str, created: str, empty: bool) -> None:
        """Add one row of history; InvalidArgument when the rows of a build become too long."""
        self._said += len(created_by)
        if self._said > MAX_HISTORY:
            raise InvalidArgument(f"the image's history up to here is longer than {MAX_HISTORY} characters")
        row: dict[str, Any] = {"created": created, "created_by": created_by}
        if self.author:
            row["author"] = self.author
        if empty:
            row["empty_layer"] = True
        self.history.append(row)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, list) else value


def clean(path: str) -> str:
    """Give an absolute path without `.`, `..` and repeated slashes, as Go's path.Clean does."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part and part != ".":
            parts.append(part)
    return "/" + "/".join(parts)


def scratch() -> State:
    """Give the empty state: BuildKit, too, begins with a PATH and the root as working directory."""
    state = State()
    state.config = {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"}
    return state


def words(args: list[str]) -> str:
    """Show an exec form in history."""
    return "[" + " ".join(jsontext.dumps(word).decode() for word in args) + "]"


def apply(state: State, step: Instruction, expand: Callable[[str], str]) -> str:
    """Change the configuration as `step` says; give the text for history. ValueError tells what is wrong."""
    handler = _HANDLERS[type(step)]
    text: str = handler(state, step, expand)
    return text


def is_free(step: Instruction) -> bool:
    """Say whether an instruction needs no work on files, so that progress need not count it."""
    return type(step) in _HANDLERS or isinstance(step, ins.Arg)


def changes_metadata_only(step: Instruction) -> bool:
    """Say whether `apply` is all that an instruction needs."""
    return type(step) in _HANDLERS


def _env(state: State, step: ins.Env, expand: Callable[[str], str]) -> str:
    pairs = [(expand(name), expand(value)) for name, value in step.pairs]
    for name, value in pairs:
        state.set_env(name, value)
    return "ENV " + " ".join(f"{name}={value}" for name, value in pairs)


def _label(state: State, step: ins.Label, expand: Callable[[str], str]) -> str:
    pairs = [(expand(name), expand(value)) for name, value in step.pairs]
    state.config["Labels"] = {**(state.config.get("Labels") or {}), **dict(pairs)}
    return "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)


def _expose(state: State, step: ins.Expose, expand: Callable[[str], str]) -> str:
    ports: list[str] = []
    scope = state.scope()
    for word in step.ports:
        parts = expand_words(word, scope, step.node.source.escape)
        step.node.charge(sum(map(len, parts)))
        for part in parts:
            ports += values.ports(part)
            if len(ports) > MAX_PORTS:
                raise ValueError(f"more than {MAX_PORTS} ports are named")
    state.config["ExposedPorts"] = {**(state.config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
    return "EXPOSE " + " ".join(ports)


def _volume(state: State, step: ins.Volume, expand: Callable[[str], str]) -> str:
    paths = [expand(word) for word in step.paths]
    if not all(path.strip() for path in paths):
        raise ValueError("a path of VOLUME is empty")
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{path: {} for path in paths}}
    return f"VOLUME [{' '.join(paths)}]"


def _user(state: State, step: ins.User, expand: Callable[[str], str]) -> str:
    state.config["User"] = expand(step.user)
    return f"USER {state.config['User']}"


def _stop_signal(state: State, step: ins.StopSignal, expand: Callable[[str], str]) -> str:
    signal = expand(step.signal)
    values.check_signal(signal)
    state.config["StopSignal"] = signal
    return f"STOPSIGNAL {signal}"


def _shell(state: State, step: ins.Shell, expand: Callable[[str], str]) -> str:
    state.config["Shell"] = list(step.args)
    return f"SHELL [{' '.join(step.args)}]"


def _cmd(state: State, step: ins.Cmd, expand: Callable[[str], str]) -> str:
    state.config["Cmd"] = _command(state, step)
    state.cmd_set = True
    return "CMD " + words(state.config["Cmd"])


def _entrypoint(state: State, step: ins.Entrypoint, expand: Callable[[str], str]) -> str:
    state.config["Entrypoint"] = _command(state, step)
    if not state.cmd_set:
        # Dockerfile reference, "CMD and ENTRYPOINT": the base image's CMD was meant for the base's entry point.
        state.config.pop("Cmd", None)
    return "ENTRYPOINT " + words(state.config["Entrypoint"])


def _command(state: State, step: ins.Cmd | ins.Entrypoint) -> list[str]:
    return [*state.shell(), *step.args] if step.is_shell else list(step.args)


def _maintainer(state: State, step: ins.Maintainer, expand: Callable[[str], str]) -> str:
    state.author = step.name
    return f"MAINTAINER {step.name}"


def _healthcheck(state: State, step: ins.Healthcheck, expand: Callable[[str], str]) -> str:
    check: dict[str, Any] = {"Test": list(step.test)}
    numbers = (
        ("Interval", step.interval),
        ("Timeout", step.timeout),
        ("StartPeriod", step.start_period),
        ("StartInterval", step.start_interval),
        ("Retries", step.retries),
    )
    check.update({key: value for key, value in numbers if value})
    state.config["Healthcheck"] = check
    return str(step.text)


def _onbuild(state: State, step: ins.Onbuild, expand: Callable[[str], str]) -> str:
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or ()), step.instruction]
    return f"ONBUILD {step.instruction}"


_HANDLERS: dict[type, Any] = {
    ins.Env: _env,
    ins.Label: _label,
    ins.Expose: _expose,
    ins.Volume: _volume,
    ins.User: _user,
    ins.StopSignal: _stop_signal,
    ins.Shell: _shell,
    ins.Cmd: _cmd,
    ins.Entrypoint: _entrypoint,
    ins.Maintainer: _maintainer,
    ins.Healthcheck: _healthcheck,
    ins.Onbuild: _onbuild,
}
