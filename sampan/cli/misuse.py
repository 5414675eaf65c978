"""What is said of words that a command does not understand; imported only then."""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.nearest import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Command


def unknown(command: Command, written: str) -> InvalidArgument:
    """Give the error for an option that the command does not have."""
    names = [name for option in command.options for name in (option.long, *option.aliases)]
    guess = nearest(written[2:], [*names, "help"]) if written.startswith("--") else ""
    hint = f"did you mean --{guess}?" if guess else _see_help(command)
    return InvalidArgument(f"unknown option {written} of {command.name}", hint)


def valueless(command: Command, written: str) -> InvalidArgument:
    """Give the error for an option without its value."""
    return InvalidArgument(f"option {written} of {command.name} needs a value", _see_help(command))


def count(command: Command, args: list[str]) -> InvalidArgument:
    """Give the error for too few or too many arguments."""
    words = command.arguments.split()
    least = sum(1 for word in words if not word.startswith("["))
    unlimited = "..." in command.arguments
    if len(args) < least:
        text = f"{command.name} needs {'at least ' if unlimited or least < len(words) else ''}{_count(least)}"
    else:
        text = f"{command.name} takes {'at most ' + _count(len(words)) if words else 'no arguments'}, not {len(args)}"
    return InvalidArgument(text, f"usage: {usage(command)}", exit_code=1)


def _see_help(command: Command) -> str:
    return f"sampan {command.name} --help lists the options"


def _count(number: int) -> str:
    return f"{number} argument" if number == 1 else f"{number} arguments"


def usage(command: Command) -> str:
    """Return the usage line of a command."""
    words = ["sampan", command.name, "[OPTIONS]" if command.options else "", command.arguments]
    return " ".join(word for word in words if word)
