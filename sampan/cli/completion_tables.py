"""What can follow what on a command line, as tables for the scripts of the shells; made from the parser's own.

Everything that is known beforehand stands in the script, so that completing a command or an option starts nothing;
only names of containers, images and volumes are asked for (`sampan completion --names KIND`).

A value's kind: `flag` (none), `none` (nothing is known), `file`, `dir`, `command`, one of completion.KINDS, `mount`
(volumes and directories), `words:a b c`, or `keys:a= b=` (words that want more behind them).
"""

from __future__ import annotations

from sampan.cli import main
from sampan.cli.groups import ALIASES, GROUPED
from sampan.cli.options import FLAG
from sampan.oci.capabilities import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Command, Option

_SIGNALS = "HUP INT QUIT KILL USR1 USR2 TERM CONT STOP WINCH"
_CAPABILITIES = " ".join(["ALL", *sorted([name.removeprefix("CAP_") for name in NUMBERS])])
_LIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
_VALUES = {
    "attach": "words:stdin stdout stderr",
    "cap-add": "words:" + _CAPABILITIES,
    "cap-drop": "words:" + _CAPABILITIES,
    "cidfile": "file",
    "device": "file",
    "env-file": "file",
    "file": "file",
    "format": "words:json table",
    "iidfile": "file",
    "input": "file",
    "label-file": "file",
    "log-driver": "words:json-file local none",
    "metadata-file": "file",
    "mount": "keys:type=bind, type=volume, type=tmpfs,",
    "network": "words:none host",
    "pid": "words:private host",
    "output": "file",
    "platform": "words:linux/amd64 linux/arm64 linux/arm/v7 linux/riscv64",
    "restart": "words:no on-failure always unless-stopped",
    "security-opt": "words:no-new-privileges seccomp=unconfined apparmor=unconfined systempaths=unconfined",
    "signal": "words:" + _SIGNALS,
    "stop-signal": "words:" + _SIGNALS,
    "ulimit": "keys:" + " ".join(f"{name}=" for name in _LIMITS.split()),
    "volume": "mount",
    "volumes-from": "containers",
}
_FILTERS = {
    "ps": "ancestor before exited expose health id is-task isolation label name network publish since status volume",
    "images": "before dangling label reference since",
    "volume ls": "dangling driver label name",
    "events": "container event image label type volume",
}
_WORDS = {
    "CONTAINER": "containers",
    "IMAGE": "images",
    "SOURCE_IMAGE": "images",
    "TARGET_IMAGE": "images",
    "REPOSITORY": "images",
    "NAME": "everything",
    "VOLUME": "volumes",
    "FILE": "file",
    "PATH": "dir",
    "SOURCE": "place",
    "DESTINATION": "place",
    "COMMAND": "command",
    "SHELL": "words:bash zsh fish",
    "host": "words:host debian:bookworm",
}
# Commands that have nothing to do with a container in another state.
_STATES = {
    **dict.fromkeys(("attach", "exec", "kill", "pause", "stats", "stop", "top", "unpause", "wait"), "running"),
    "start": "stopped",
}


class Row:
    """One option: its written forms (`-e`, `--env`), the kind of its value, and its help."""

    __slots__ = ("help", "kind", "long", "short")

    def __init__(self, option: Option, kind: str) -> None:
        self.long = "--" + option.long
        self.short = "-" + option.short if option.short else ""
        self.kind = kind
        self.help = option.help

    def forms(self) -> list[str]:
        """Return how it can be written."""
        return [self.short, self.long] if self.short else [self.long]


class Line:
    """One command: its words, what they stand for, its options, and the kinds of its arguments.

    The last kind is repeated if `repeats`; `stops` says that after the first argument the options are a program's own.
    """

    __slots__ = ("arguments", "help", "repeats", "rows", "stops", "words")

    def __init__(self, words: str, summary: str, command: Command) -> None:
        self.words = words
        self.help = summary
        self.rows = [Row(option, _kind(words, option)) for option in command.options if not option.refuse]
        texts = command.arguments.split()
        self.repeats = any("..." in text for text in texts)
        self.arguments = [_argument(words, text) for text in texts if "..." not in text]
        self.stops = not command.interspersed


def lines() -> list[Line]:
    """Return every command, by its own words."""
    both = {**main.COMMANDS, **GROUPED}
    return [Line(words, summary, main.load_command(words).OPTIONS) for words, summary in both.items()]


def aliases() -> dict[str, str]:
    """Return the other words for commands, without the options that some imply."""
    return {alias: " ".join(w for w in full.split() if w[0] != "-") for alias, full in ALIASES.items()}


def groups() -> dict[str, list[str]]:
    """Return the words that follow each first word of two."""
    found: dict[str, list[str]] = {}
    for text in sorted({*GROUPED, *ALIASES}):
        group, _, word = text.partition(" ")
        found.setdefault(group, []).append(word)
    return found


def _kind(words: str, option: Option) -> str:
    if option.kind == FLAG:
        return "flag"
    if option.choices:
        return "words:" + " ".join(option.choices)
    if option.long == "filter":
        return "keys:" + " ".join(f"{key}=" for key in _FILTERS.get(words, "label until").split())
    if words == "build" and option.long in ("output", "network"):
        return "none" if option.long == "output" else "words:none host"
    return _VALUES.get(option.long, "none")


def _argument(words: str, text: str) -> str:
    name = text.strip("[]").split("|")[0].split("[")[0].split(":")[0]
    kind = _WORDS.get(name, "none")
    if words == "start" or (kind == "containers" and words in _STATES):
        return _STATES[words]
    return kind


def script(shell: str) -> str:
    """Return the script of a shell."""
    from sampan.cli import completion_bash, completion_fish, completion_zsh

    makers = {"bash": completion_bash.script, "zsh": completion_zsh.script, "fish": completion_fish.script}
    return makers[shell](lines(), aliases(), groups())
