"""The words after a command: one table of options per command, its parser and its help text.

Rules, as Docker's own parser has them: `--name value`, `--name=value`, `-abc`, `-eVALUE`, `-e=VALUE`, `--flag=false`;
`--` ends the options. A command that runs a program stops at its first argument: the program's options are its own.
Numbers are converted here: a command receives bytes, seconds and integers. A word that is not understood is an error
with the nearest known word; nothing is ever ignored.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

FLAG, TEXT, LIST, FILTER, INT, NUMBER, BYTES, DURATION, MAP = (
    "flag",
    "string",
    "list",
    "filter",
    "int",
    "decimal",
    "bytes",
    "duration",
    "map",
)


class Option:
    """One option: how it is written, what kind of value it takes, and one line of help.

    `refuse` makes it an option that is known but not there yet: giving it raises NotSupported with that text.
    """

    __slots__ = ("aliases", "choices", "default", "help", "hint", "kind", "long", "refuse", "short")

    def __init__(
        self,
        long: str,
        short: str = "",
        kind: str = TEXT,
        help: str = "",
        *,
        default: Any = None,
        choices: Sequence[str] = (),
        aliases: Sequence[str] = (),
        refuse: str = "",
        hint: str = "",
    ) -> None:
        self.long = long
        self.short = short
        self.kind = kind
        self.help = help
        self.choices = choices
        self.aliases = aliases
        self.refuse = refuse
        self.hint = hint
        self.default = default

    def initial(self) -> Any:
        """Return the value of this option when it is not given."""
        if self.default is not None:
            return self.default
        if self.kind == FLAG:
            return False
        if self.kind in (LIST, FILTER):
            return []
        return {} if self.kind == MAP else "" if self.kind == TEXT else None


class Command:
    """What one command accepts: `arguments` is its usage text, as `IMAGE [COMMAND] [ARG...]`."""

    __slots__ = ("arguments", "examples", "interspersed", "name", "options", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        arguments: str = "",
        options: Iterable[Option] = (),
        *,
        interspersed: bool = True,
        examples: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.summary = summary
        self.arguments = arguments
        self.options = tuple(options)
        self.interspersed = interspersed
        self.examples = examples


class Values:
    """The parsed command line: one attribute per option (`--no-cache` is `.no_cache`), and `.args`, the other words."""

    def __init__(self, values: dict[str, Any], args: list[str], given: set[str]) -> None:
        self.__dict__.update(values)
        self.args = args
        self.given = given

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class HelpAsked(Exception):
    """The words contain --help."""


def parse(argv: Sequence[str], command: Command) -> Values:
    """Parse the words after the command's name; raises InvalidArgument, NotSupported, or HelpAsked."""
    return _Parser(command).run(list(argv))


class _Parser:
    def __init__(self, command: Command) -> None:
        self.command = command
        self.longs: dict[str, Option] = {}
        self.shorts: dict[str, Option] = {}
        for option in command.options:
            self.longs[option.long] = option
            for alias in option.aliases:
                self.longs[alias] = option
            if option.short:
                self.shorts[option.short] = option
        self.values: dict[str, Any] = {field(o.long): o.initial() for o in command.options if not o.refuse}
        self.given: set[str] = set()
        self.rest: list[str] = []

    def run(self, words: list[str]) -> Values:
        args: list[str] = []
        self.rest = words
        while self.rest:
            word = self.rest.pop(0)
            if word == "--":
                args += self.rest
                break
            if word.startswith("--"):
                self._long(word[2:])
            elif word.startswith("-") and len(word) > 1:
                self._cluster(word[1:])
            else:
                args.append(word)
                if not self.command.interspersed:
                    args += self.rest
                    break
        _check_count(self.command, args)
        return Values(self.values, args, self.given)

    def _long(self, text: str) -> None:
        name, equals, value = text.partition("=")
        option = self.longs.get(name)
        if option is None:
            if name == "help":
                raise HelpAsked
            raise _unknown(self.command, "--" + name)
        if option.kind == FLAG and not equals:
            value = "true"
        elif not equals:
            value = self._next("--" + name)
        self._store(option, "--" + name, value)

    def _cluster(self, text: str) -> None:
        while text:
            letter, text = text[0], text[1:]
            option = self.shorts.get(letter)
            if option is None:
                if letter == "h" and not text:
                    raise HelpAsked
                raise _unknown(self.command, "-" + letter)
            if option.kind == FLAG and not text.startswith("="):
                self._store(option, "-" + letter, "true")
                continue
            value = text[1:] if text.startswith("=") else text or self._next("-" + letter)
            self._store(option, "-" + letter, value)
            return

    def _next(self, written: str) -> str:
        if not self.rest:
            from sampan.cli import misuse

            raise misuse.valueless(self.command, written)
        return self.rest.pop(0)

    def _store(self, option: Option, written: str, text: str) -> None:
        if option.refuse:
            raise NotSupported(f"option {written} of {self.command.name}: {option.refuse}", option.hint)
        name = field(option.long)
        try:
            value = _convert(option, text)
        except ValueError as exc:
            raise InvalidArgument(f"option {written} of {self.command.name}: {exc}") from None
        if option.kind in (LIST, FILTER):
            self.values[name] = [*self.values[name], value] if name in self.given else [value]
        elif option.kind == MAP:
            self.values[name] = {**self.values[name], **value}
        else:
            self.values[name] = value
        self.given.add(name)


def field(long: str) -> str:
    """Return the attribute name of an option."""
    return long.replace("-", "_")


def _unknown(command: Command, written: str) -> InvalidArgument:
    from sampan.cli import misuse

    return misuse.unknown(command, written)


def _check_count(command: Command, args: list[str]) -> None:
    words = command.arguments.split()
    least = sum(1 for word in words if not word.startswith("["))
    if len(args) < least or (len(args) > len(words) and "..." not in command.arguments):
        from sampan.cli import misuse

        raise misuse.count(command, args)


def _convert(option: Option, text: str) -> Any:
    if option.choices and text not in option.choices:
        raise ValueError(f"{text!r} is none of {', '.join(option.choices)}")
    if option.kind == MAP:
        key, _, value = text.partition("=")
        if not key:
            raise ValueError(f"{text!r} is not KEY=VALUE")
        return {key: value}
    if option.kind == FILTER and text and "=" not in text:
        raise ValueError(f"{text!r} is not KEY=VALUE")
    if option.kind in (TEXT, LIST, FILTER):
        return text
    if option.kind == FLAG and text == "true":
        return True
    from sampan.cli import quantities

    return quantities.convert(option.kind, text)
