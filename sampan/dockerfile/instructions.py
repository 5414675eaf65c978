"""The second pass: a node to a typed instruction, and instructions to stages.

Each reader checks what Docker checks before a build starts, so that no step runs when a later line is wrong. Words
with variables are judged by the builder, after expansion.
"""

from __future__ import annotations

from sampan.dockerfile import values
from sampan.dockerfile.commands import (
    Add,
    Arg,
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from sampan.dockerfile.flags import Flags, read
from sampan.dockerfile.forms import fields, fields_or_json, first_word, json_array, pairs, words
from sampan.dockerfile.heredoc import Heredoc, from_word
from sampan.dockerfile.lexer import Dockerfile, Node
from sampan.dockerfile.located import SPACE, Fault, did_you_mean, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Add",
    "Arg",
    "Cmd",
    "CommandLine",
    "Copy",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "Instruction",
    "Label",
    "Maintainer",
    "Onbuild",
    "Run",
    "Shell",
    "Stage",
    "StopSignal",
    "User",
    "Volume",
    "Workdir",
    "instruction",
    "onbuild",
    "stages",
]

_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")
_STAGE_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_STAGE_REST = _STAGE_LETTERS + "0123456789-_."


class Stage:
    """One FROM and the instructions up to the next; index counts from 0."""

    __slots__ = ("from_", "index", "instructions")

    def __init__(self, from_: From, index: int) -> None:
        self.from_ = from_
        self.index = index
        self.instructions: list[Instruction] = []


def stages(file: Dockerfile) -> tuple[list[Arg], list[Stage]]:
    """Read a whole file; return the ARGs before the first FROM, whose scope is the FROM lines, and the stages."""
    global_args: list[Arg] = []
    found: list[Stage] = []
    for node in file.nodes:
        one = instruction(node)
        if isinstance(one, From):
            found.append(Stage(one, len(found)))
        elif found:
            found[-1].instructions.append(one)
        elif isinstance(one, Arg):
            global_args.append(one)
        else:
            raise node.error(f"{node.keyword} stands before the first FROM", "only ARG may stand before FROM")
    if not found:
        raise file.nodes[-1].error("the file has no FROM", "begin the stage with FROM and the name of an image")
    return global_args, found


def instruction(node: Node) -> Instruction:
    """Read one node; raise a located BuildError where it is not a valid instruction."""
    reader = _READERS.get(node.keyword)
    if reader is None:
        word = first_word(node.original)[0]
        raise node.error(f"unknown instruction: {shown(word)}", did_you_mean(word, _READERS))
    flags = read(node)
    try:
        return reader(node, flags)
    except Fault as error:
        raise node.error(str(error), error.hint) from None
    except ValueError as error:
        raise node.error(str(error)) from None


def onbuild(text: str, file: Dockerfile) -> Instruction:
    """Read an image's ONBUILD trigger; file is what the lexer made of its text."""
    node = file.nodes[0]
    if len(file.nodes) != 1:
        raise node.error(f"the ONBUILD trigger {shown(text)} is not one instruction")
    _check_trigger(node)
    return instruction(node)


def _value(node: Node) -> str:
    """Return the rest of the line, which must not be empty."""
    if not node.value:
        raise ValueError(f"{node.keyword} requires exactly one argument")
    return node.value


def _some(node: Node, found: list[str]) -> list[str]:
    if not found:
        raise ValueError(f"{node.keyword} requires at least one argument")
    return found


def _is_literal(word: str) -> bool:
    """Tell whether a word is what it will be after expansion."""
    return not any(c in word for c in "$'\"\\`")


def _from(node: Node, flags: Flags) -> From:
    found = fields(node.value)
    alias = ""
    if len(found) == 3 and found[1].lower() == "as":
        alias = found[2].lower()
        if alias[0] not in _STAGE_LETTERS or alias.strip(_STAGE_REST):
            raise ValueError(
                f"invalid name for build stage: {shown(found[2])}, name can't start with a number or contain symbols"
            )
    elif len(found) != 1:
        raise ValueError("FROM requires either one or three arguments: FROM image [AS name]")
    return From(node, found[0], alias, flags.text("platform"))


def _arg(node: Node, flags: Flags) -> Arg:
    found: list[tuple[str, str | None]] = []
    for word in _some(node, words(node.value, node.source.escape)):
        name, equals, default = word.partition("=")
        if not name:
            raise ValueError("ARG names can not be blank")
        found.append((name, default if equals else None))
    return Arg(node, found)


def _env(node: Node, flags: Flags) -> Env:
    return Env(node, pairs(node.value, "ENV", node.source.escape))


def _label(node: Node, flags: Flags) -> Label:
    return Label(node, pairs(node.value, "LABEL", node.source.escape))


def _copy(node: Node, flags: Flags) -> Copy:
    copy = Copy(node, *_sources_and_dest(node))
    copy.from_ = flags.text("from")
    if "$" in copy.from_:
        hint = "name the image in a stage of its own (FROM … AS name) and copy from that name"
        raise Fault("variable expansion is not supported for --from", hint)
    copy.parents = flags.bool("parents")
    _copy_flags(copy, flags)
    return copy


def _add(node: Node, flags: Flags) -> Add:
    add = Add(node, *_sources_and_dest(node))
    add.checksum = flags.text("checksum")
    add.keep_git_dir = flags.bool("keep-git-dir")
    if "unpack" in flags.values:
        add.unpack = flags.bool("unpack")
    _copy_flags(add, flags)
    return add


def _copy_flags(copy: Copy, flags: Flags) -> None:
    copy.chown = flags.text("chown")
    copy.chmod = flags.text("chmod")
    copy.link = flags.bool("link")
    copy.excludes = flags.texts("exclude")


def _sources_and_dest(node: Node) -> tuple[list[str], str, list[Heredoc]]:
    found = fields_or_json(node.value)
    if len(found) < 2:
        raise ValueError(f"{node.keyword} requires at least two arguments: the sources and the destination")
    *given, dest = found
    names = {document.name: document for document in node.heredocs}
    if names and from_word(dest):
        raise ValueError(f"{node.keyword} cannot have a heredoc as its destination")
    sources: list[str] = []
    documents: list[Heredoc] = []
    for source in given:
        announced = from_word(source) if names else None
        if announced is None or announced.name not in names:
            sources.append(source)
        else:
            documents.append(names[announced.name])
    return sources, dest, documents


def _command(node: Node) -> tuple[list[str], bool]:
    array = json_array(node.value)
    return ([node.value], True) if array is None else (array, False)


def _run(node: Node, flags: Flags) -> Run:
    args, is_shell = _command(node)
    if not args or not args[0]:
        raise ValueError("RUN requires at least one argument")
    run = Run(node, args, is_shell)
    mounts = flags.texts("mount")
    if mounts:
        from sampan.dockerfile.mounts import parse_mount

        run.mounts = [parse_mount(text) for text in mounts]
    run.network = flags.text("network")
    run.security = flags.text("security")
    for name, value, allowed in (("network", run.network, _NETWORKS), ("security", run.security, _SECURITY)):
        if name in flags.values and value not in allowed:
            raise ValueError(f"unsupported value of --{name}: {shown(value)} is not one of {', '.join(allowed)}")
    return run


def _cmd(node: Node, flags: Flags) -> Cmd:
    return Cmd(node, *_command(node))


def _entrypoint(node: Node, flags: Flags) -> Entrypoint:
    return Entrypoint(node, *_command(node))


def _workdir(node: Node, flags: Flags) -> Workdir:
    return Workdir(node, _value(node))


def _user(node: Node, flags: Flags) -> User:
    return User(node, _value(node))


def _maintainer(node: Node, flags: Flags) -> Maintainer:
    return Maintainer(node, _value(node))


def _stopsignal(node: Node, flags: Flags) -> StopSignal:
    if _is_literal(_value(node)):
        values.check_signal(node.value)
    return StopSignal(node, node.value)


def _expose(node: Node, flags: Flags) -> Expose:
    found = _some(node, fields(node.value))
    for word in found:
        if _is_literal(word):
            values.port_range(word)
    return Expose(node, found)


def _volume(node: Node, flags: Flags) -> Volume:
    found = [path.strip(SPACE) for path in _some(node, fields_or_json(node.value))]
    if "" in found:
        raise ValueError("VOLUME specified can not be an empty string")
    return Volume(node, found)


def _shell(node: Node, flags: Flags) -> Shell:
    array = json_array(node.value)
    if array is None:
        raise Fault("SHELL requires the arguments to be in JSON form", 'for example SHELL ["/bin/bash", "-c"]')
    return Shell(node, _some(node, array))


def _healthcheck(node: Node, flags: Flags) -> Healthcheck:
    word, rest = first_word(node.value)
    kind = word.upper()
    if not kind:
        raise ValueError("HEALTHCHECK requires at least one argument")
    if kind == "NONE":
        if rest:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(node, "NONE", ["NONE"])
    if kind != "CMD":
        raise Fault(f"unknown type {shown(word)} in HEALTHCHECK", "write HEALTHCHECK CMD … or HEALTHCHECK NONE")
    array = json_array(rest)
    command = [rest] if array is None and rest else array
    if not command:
        raise ValueError("missing command after HEALTHCHECK CMD")
    kind = "CMD-SHELL" if array is None else "CMD"
    return _timed(Healthcheck(node, kind, [kind, *command]), flags)


def _timed(check: Healthcheck, flags: Flags) -> Healthcheck:
    def read_interval(name: str) -> int:
        text = flags.text(name)
        return values.interval(text, name) if text else 0

    check.interval = read_interval("interval")
    check.timeout = read_interval("timeout")
    check.start_period = read_interval("start-period")
    check.start_interval = read_interval("start-interval")
    retries = flags.text("retries")
    if retries:
        try:
            check.retries = values.natural(retries, most=0x7FFFFFFF)
        except ValueError as error:
            raise ValueError(f"--retries: {error}") from None
    return check


def _onbuild(node: Node, flags: Flags) -> Onbuild:
    _some(node, [node.value] if node.value else [])
    inner = node.inner()
    _check_trigger(inner)
    instruction(inner)  # a wrong trigger is reported here, not in the builds that start from this image
    text = node.value
    for document in node.heredocs:
        text += f"\n{document.content}{document.name}"
    return Onbuild(node, text)


def _check_trigger(node: Node) -> None:
    if node.keyword == "ONBUILD":
        raise node.error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if node.keyword in ("FROM", "MAINTAINER"):
        raise node.error(f"{node.keyword} isn't allowed as an ONBUILD trigger")


_READERS: dict[str, Callable[[Node, Flags], Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
