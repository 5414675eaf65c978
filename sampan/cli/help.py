"""Help texts, made from the same tables that the parser reads; imported only when someone asks."""

from __future__ import annotations

from sampan.cli.misuse import usage
from sampan.cli.options import FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Command, Option


# The overview's groups of commands; a command that none of them names stands under "More".
_COMMANDS = (
    ("Common commands", "run exec ps build pull push images logs stop rm"),
    ("Containers", "create start restart kill pause unpause attach wait rename update cp diff export port"),
    ("What containers do", "inspect top stats events"),
    ("Images", "bootstrap commit history import load rmi save tag"),
    ("Registries", "login logout search"),
)
# Groups of options, for commands with so many that a list of them all is read by nobody.
_MANY = 30
_OPTIONS = (
    (
        "The container",
        "attach cidfile detach detach-keys explain init interactive label label-file annotation name platform pull"
        " quiet restart rm sig-proxy stop-signal stop-timeout tty log-driver log-opt",
    ),
    ("The program", "entrypoint env env-file group-add hostname domainname user workdir ulimit oom-score-adj sysctl"),
    (
        "Files",
        "device mount read-only shm-size storage-opt tmpfs volume volume-driver volumes-from",
    ),
    (
        "Limits",
        "blkio-weight blkio-weight-device cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus"
        " cpuset-mems device-read-bps device-read-iops device-write-bps device-write-iops memory memory-reservation"
        " memory-swap memory-swappiness oom-kill-disable pids-limit",
    ),
    ("Network and names", "add-host dns dns-option dns-search expose network publish publish-all"),
    (
        "Health",
        "health-cmd health-interval health-retries health-start-interval health-start-period health-timeout"
        " no-healthcheck",
    ),
    (
        "Rights and namespaces",
        "cap-add cap-drop cgroupns device-cgroup-rule ipc pid privileged security-opt userns uts",
    ),
)


def overview(commands: dict[str, str], groups: list[str]) -> str:
    """Return the text of `sampan help`."""
    lines = ["Usage:  sampan [--debug] [--root DIR] COMMAND", ""]
    lines += ["Build, run and move containers: no daemon, nothing to set up.", ""]
    left = dict(commands)
    for title, words in (*_COMMANDS, ("More", " ".join(commands))):
        rows = [(word, left.pop(word)) for word in words.split() if word in left]
        if rows:
            lines += [f"{title}:", *[f"  {word:11}{summary}" for word, summary in rows], ""]
    lines += ["Groups of commands, as `sampan GROUP` lists them:", "  " + ", ".join(groups)]
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
    known = {option.long: _row(option) for option in sorted(command.options, key=lambda o: o.long) if not option.refuse}
    if known:
        width = min(34, max(len(left) for left, _ in known.values())) + 3
        groups = _OPTIONS if len(known) > _MANY else ()
        for title, words in (*groups, ("More options" if groups else "Options", " ".join(known))):
            rows = [known.pop(word) for word in sorted(words.split()) if word in known]
            if rows:
                lines += ["", f"{title}:"] + [f"  {left:{width}}{right}".rstrip() for left, right in rows]
    later = ["--" + option.long for option in command.options if option.refuse]
    if later:
        lines += ["", "Known to Docker, refused here:", *_wrapped(sorted(later))]
    if command.examples:
        lines += ["", "Examples:"] + ["  " + example for example in command.examples]
    return "\n".join(lines) + "\n"


def _wrapped(words: list[str]) -> list[str]:
    """Return words in lines of at most 80 columns."""
    lines = ["  "]
    for word in words:
        if len(lines[-1]) + len(word) > 78:
            lines.append("  ")
        lines[-1] += word + ", "
    return [line.rstrip() for line in lines[:-1]] + [lines[-1].removesuffix(", ")]


def _row(option: Option) -> tuple[str, str]:
    left = (f"-{option.short}, " if option.short else "    ") + "--" + option.long
    if option.kind != FLAG:
        left += " " + option.kind
    right = option.help
    if option.choices:
        right += f" ({', '.join(option.choices)})"
    if option.default not in (None, False, "", ()):
        shown = "true" if option.default is True else option.default
        right += f" (default {shown})"
    return left, right
