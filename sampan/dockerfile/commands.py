"""The typed instructions: plain records of what a node says, words unexpanded.

`EXPANDS` names the fields whose words the builder expands before use, as Docker does; a field may be a word, a list of
words, or a list of (name, value) pairs. RUN, CMD, ENTRYPOINT, SHELL, HEALTHCHECK and ONBUILD leave `$x` to the shell.
"""

from __future__ import annotations

from sampan.dockerfile.forms import words
from sampan.dockerfile.heredoc import Heredoc, from_word
from sampan.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.dockerfile.lexer import Node


class Instruction:
    """What all instructions have: their place, their original text, and how to report an error there."""

    __slots__ = ("node",)
    EXPANDS: tuple[str, ...] = ()

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def keyword(self) -> str:
        """The instruction's name in capitals."""
        return self.node.keyword

    @property
    def text(self) -> str:
        """The line as written, continuations joined, without here-documents: for history and progress."""
        return self.node.original

    @property
    def line(self) -> int:
        """The first line in the file."""
        return self.node.start_line

    @property
    def end_line(self) -> int:
        """The last line in the file, here-documents included."""
        return self.node.end_line

    def error(self, message: str, hint: str = "") -> BuildError:
        """Make a BuildError that points at this instruction."""
        return self.node.error(message, hint)

    def locate(self, error: BuildError) -> BuildError:
        """Return the same error with this instruction's place, unless it has one."""
        return error if error.line else self.node.error(error.message, error.hint)


class From(Instruction):
    """FROM: begin a stage; alias is lower-case, "" if it has none."""

    __slots__ = ("alias", "image", "platform")
    EXPANDS = ("image", "platform")

    def __init__(self, node: Node, image: str, alias: str, platform: str) -> None:
        super().__init__(node)
        self.image = image
        self.alias = alias
        self.platform = platform


class Arg(Instruction):
    """ARG: names with their defaults, None where there is none."""

    __slots__ = ("pairs",)
    EXPANDS = ("pairs",)

    def __init__(self, node: Node, pairs: list[tuple[str, str | None]]) -> None:
        super().__init__(node)
        self.pairs = pairs


class Env(Instruction):
    """ENV: names and values."""

    __slots__ = ("pairs",)
    EXPANDS = ("pairs",)

    def __init__(self, node: Node, pairs: list[tuple[str, str]]) -> None:
        super().__init__(node)
        self.pairs = pairs


class Label(Env):
    """LABEL: keys and values."""

    __slots__ = ()


class Copy(Instruction):
    """COPY: sources without the here-documents, which are files named after their terminator; "" is not given."""

    __slots__ = ("chmod", "chown", "dest", "excludes", "from_", "heredocs", "link", "parents", "sources")
    EXPANDS: tuple[str, ...] = ("sources", "dest", "chown", "chmod", "excludes")

    def __init__(self, node: Node, sources: list[str], dest: str, heredocs: list[Heredoc]) -> None:
        super().__init__(node)
        self.sources = sources
        self.dest = dest
        self.heredocs = heredocs
        self.from_ = ""
        self.chown = ""
        self.chmod = ""
        self.link = False
        self.parents = False
        self.excludes: list[str] = []


class Add(Copy):
    """ADD: a COPY that also fetches and unpacks; `unpack` None leaves the choice to the kind of source."""

    __slots__ = ("checksum", "keep_git_dir", "unpack")
    EXPANDS = (*Copy.EXPANDS, "checksum")

    def __init__(self, node: Node, sources: list[str], dest: str, heredocs: list[Heredoc]) -> None:
        super().__init__(node, sources, dest, heredocs)
        self.checksum = ""
        self.keep_git_dir = False
        self.unpack: bool | None = None


class CommandLine(Instruction):
    """A command: the arguments of the JSON form, or one text for the shell."""

    __slots__ = ("args", "is_shell")

    def __init__(self, node: Node, args: list[str], is_shell: bool) -> None:
        super().__init__(node)
        self.args = args
        self.is_shell = is_shell


class Run(CommandLine):
    """RUN: a command with its mounts; see `command` and `script` for here-documents."""

    __slots__ = ("heredocs", "mounts", "network", "security")
    EXPANDS = ("mounts",)

    def __init__(self, node: Node, args: list[str], is_shell: bool) -> None:
        super().__init__(node, args, is_shell)
        self.heredocs: list[Heredoc] = node.heredocs
        self.mounts: list[dict[str, Any]] = []
        self.network = ""
        self.security = ""

    def command(self) -> str:
        """Return the text for the shell: a lone here-document is the whole of it, others follow the line."""
        text = self.args[0]
        if self._is_lone():
            return self.heredocs[0].text()
        for document in self.heredocs:
            text += f"\n{document.content}{document.name}"
        return text

    def script(self) -> Heredoc | None:
        """Return a lone here-document that begins with `#!`: Docker runs it as a file instead of by the shell."""
        if self._is_lone() and self.heredocs[0].text().startswith("#!"):
            return self.heredocs[0]
        return None

    def _is_lone(self) -> bool:
        """Tell whether the line is nothing but the announcement of one here-document."""
        if len(self.heredocs) != 1 or not self.is_shell:
            return False
        line = self.args[0]
        return from_word(line) is not None and len(words(line, "\\")) == 1


class Cmd(CommandLine):
    """CMD: the default command."""

    __slots__ = ()


class Entrypoint(CommandLine):
    """ENTRYPOINT: what the command is given to."""

    __slots__ = ()


class Workdir(Instruction):
    """WORKDIR: an absolute path, or one relative to the former."""

    __slots__ = ("path",)
    EXPANDS = ("path",)

    def __init__(self, node: Node, path: str) -> None:
        super().__init__(node)
        self.path = path


class User(Instruction):
    """USER: `user[:group]`, by name or number."""

    __slots__ = ("user",)
    EXPANDS = ("user",)

    def __init__(self, node: Node, user: str) -> None:
        super().__init__(node)
        self.user = user


class Expose(Instruction):
    """EXPOSE: words, each to be expanded with `expand_words` and read with `values.ports`."""

    __slots__ = ("ports",)
    EXPANDS = ("ports",)

    def __init__(self, node: Node, ports: list[str]) -> None:
        super().__init__(node)
        self.ports = ports


class Volume(Instruction):
    """VOLUME: paths that get a volume of their own."""

    __slots__ = ("paths",)
    EXPANDS = ("paths",)

    def __init__(self, node: Node, paths: list[str]) -> None:
        super().__init__(node)
        self.paths = paths


class StopSignal(Instruction):
    """STOPSIGNAL: a name or number; check it with `values.check_signal` once expanded."""

    __slots__ = ("signal",)
    EXPANDS = ("signal",)

    def __init__(self, node: Node, signal: str) -> None:
        super().__init__(node)
        self.signal = signal


class Shell(Instruction):
    """SHELL: the command that shell forms are given to."""

    __slots__ = ("args",)

    def __init__(self, node: Node, args: list[str]) -> None:
        super().__init__(node)
        self.args = args


class Maintainer(Instruction):
    """MAINTAINER (deprecated): the image's author."""

    __slots__ = ("name",)

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node)
        self.name = name


class Healthcheck(Instruction):
    """HEALTHCHECK: type NONE, CMD or CMD-SHELL; test as in the image configuration; times in nanoseconds, 0 default."""

    __slots__ = ("interval", "retries", "start_interval", "start_period", "test", "timeout", "type")

    def __init__(self, node: Node, type_: str, test: list[str]) -> None:
        super().__init__(node)
        self.type = type_
        self.test = test
        self.interval = 0
        self.timeout = 0
        self.start_period = 0
        self.start_interval = 0
        self.retries = 0


class Onbuild(Instruction):
    """ONBUILD: an instruction, as text with its here-documents, for the builds that start from this image."""

    __slots__ = ("instruction",)

    def __init__(self, node: Node, instruction: str) -> None:
        super().__init__(node)
        self.instruction = instruction
