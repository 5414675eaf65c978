"""Help texts, made from the same tables that the parser reads; imported only when someone asks."""

from __future__ import annotations

from sampan.cli.options import FLAG, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Command, Option


def overview(commands: dict[str, str], groups: list[str]) -> str:
    """Return the text of `sampan help`."""
    lines = ["Usage:  sampan [--debug] [--root DIR] COMMAND", ""]
    lines += ["Build, run and move containers: no daemon, nothing to set up.", "", "Commands:"]
    lines += [f"  {word:11}{summary}" for word, summary in commands.items()]
    lines += ["", "Groups of commands, as `sampan GROUP` lists them:", "  " + ", ".join(groups)]
    lines += ["", "Options before the command:"]
    lines += ["  -D, --debug     Show where an error comes from", "      --root DIR  Keep images and containers in DIR"]
    lines += ["  -v, --version   Show the version", "", "sampan help COMMAND says more about one command."]
    return "\n".join(lines) + "\n"


def group(word: str, aliases: dict[str, str], grouped: dict[str, str]) -> str:
    """Return the help of a management word such as `container`, or an empty string."""
    rows = {alias: f"as sampan {full}" for alias, full in aliases.items()} | grouped
    found = sorted((name.split()[1], text) for name, text in rows.items() if name.startswith(word + " "))
    if not found:
        return ""
    lines = [f"Usage:  sampan {word} COMMAND", "", "Commands:"]
    return "\n".join(lines + [f"  {name:11}{text}" for name, text in found]) + "\n"


def help_text(command: Command) -> str:
    """Return the help of one command."""
    lines = [f"Usage:  {usage(command)}", "", command.summary]
    rows = [_row(option) for option in sorted(command.options, key=lambda o: o.long) if not option.refuse]
    if rows:
        width = min(34, max(len(left) for left, _ in rows)) + 3
        lines += ["", "Options:"] + [f"  {left:{width}}{right}".rstrip() for left, right in rows]
    later = ["--" + option.long for option in command.options if option.refuse]
    if later:
        lines += ["", "Known to Docker, not there yet: " + ", ".join(sorted(later))]
    if command.examples:
        lines += ["", "Examples:"] + ["  " + example for example in command.examples]
    return "\n".join(lines) + "\n"


def _row(option: Option) -> tuple[str, str]:
    left = (f"-{option.short}, " if option.short else "    ") + "--" + option.long
    if option.kind != FLAG:
        left += " " + option.metavar
    right = option.help
    if option.choices:
        right += f" ({', '.join(option.choices)})"
    if option.default not in (None, False, "", ()):
        shown = "true" if option.default is True else option.default
        right += f" (default {shown})"
    return left, right
