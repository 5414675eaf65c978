"""Commands of two words, other names of commands, and what is said where help is asked or there is no such command."""

from __future__ import annotations

from sampan.cli import lines
from sampan.cli.main import COMMANDS, load_command
from sampan.errors import InvalidArgument

# `sampan help` names the group only; the module is sampan/cli/<group>_<word>.py.
GROUPED = {
    "builder prune": "Forget the build cache",
    "container prune": "Remove containers that do not run",
    "image copy": "Copy an image between stores, registries, archives and hosts",
    "image diff": "List how the files of two images differ",
    "image tree": "Show which image stands on which",
    "manifest annotate": "Change the platform of a manifest in a list",
    "manifest create": "Make a list of manifests, for several platforms",
    "manifest inspect": "Show what a name means in its registry",
    "manifest referrers": "List what refers to an image in its registry",
    "manifest push": "Send a list to its registry",
    "manifest rm": "Forget lists that are being made here",
    "image prune": "Remove images that nobody uses",
    "system boot": "Start containers as their restart policies ask, after a boot of the host",
    "system check": "Examine the store, and repair it",
    "system dial-stdio": "Serve images to a sampan on another host",
    "system df": "Show how much disk the store takes",
    "system prune": "Remove all that nobody uses",
    "volume create": "Make a volume",
    "volume inspect": "Show everything about volumes, as JSON",
    "volume ls": "List volumes",
    "volume prune": "Remove volumes that no container uses",
    "volume rm": "Remove volumes",
}

# Docker's management words: what they stand for, options included.
ALIASES = {
    "builder build": "build",
    "buildx build": "build",
    "container commit": "commit",
    "container attach": "attach",
    "container cp": "cp",
    "buildx prune": "builder prune",
    "container create": "create",
    "container diff": "diff",
    "container exec": "exec",
    "container export": "export",
    "container inspect": "inspect --type=container",
    "container kill": "kill",
    "container list": "ps",
    "container logs": "logs",
    "container ls": "ps",
    "container port": "port",
    "container pause": "pause",
    "container ps": "ps",
    "container remove": "rm",
    "container rename": "rename",
    "container restart": "restart",
    "container rm": "rm",
    "container run": "run",
    "container start": "start",
    "container stats": "stats",
    "container stop": "stop",
    "container top": "top",
    "container update": "update",
    "container unpause": "unpause",
    "container wait": "wait",
    "image build": "build",
    "image history": "history",
    "image import": "import",
    "image inspect": "inspect --type=image",
    "image list": "images",
    "image load": "load",
    "image pull": "pull",
    "image push": "push",
    "image ls": "images",
    "image remove": "rmi",
    "image rm": "rmi",
    "image save": "save",
    "image tag": "tag",
    "system events": "events",
    "system info": "info",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}


def split(words: list[str]) -> tuple[str, list[str]]:
    """Split a command of two words, or what another name stands for, from the rest; "" when there is none."""
    words = _expand(words)
    if words and words[0] in COMMANDS:
        return words[0], words[1:]
    two = " ".join(words[:2])
    return (two, words[2:]) if two in GROUPED else ("", words)


def _expand(words: list[str]) -> list[str]:
    full = ALIASES.get(" ".join(words[:2])) if len(words) > 1 else None
    return full.split() + words[2:] if full else words


def explain(words: list[str]) -> int:
    """Print the help that is asked for, or the overview where nothing is; InvalidArgument for an unknown command."""
    if len(words) == 2 and words[1] in ("--help", "-h", "help"):
        words = ["help", words[0]]
    if words and words[0] != "help":
        raise _unknown(words)
    from sampan.cli import help

    words = _expand(words[1:])
    if not words:
        lines.write(help.overview(COMMANDS, sorted({name.split()[0] for name in (*ALIASES, *GROUPED)})))
        return 0
    word = split(words)[0]
    if word:
        lines.write(help.help_text(load_command(word).OPTIONS))
        return 0
    group = help.group(words[0], ALIASES, GROUPED)
    if not group:
        raise _unknown(words)
    lines.write(group)
    return 0


def _unknown(words: list[str]) -> InvalidArgument:
    from sampan.nearest import nearest

    groups = {name.split()[0] for name in (*ALIASES, *GROUPED)}
    if words[0] in groups:
        known = sorted(name for name in (*ALIASES, *GROUPED) if name.startswith(words[0] + " "))
        if len(words) == 1 or words[1].startswith("-"):
            return InvalidArgument(f"command {words[0]} needs another word", "one of: " + ", ".join(known), exit_code=1)
        word = " ".join(words[:2])
    else:
        known = [*COMMANDS, *groups, "help"]
        word = words[0]
    guess = nearest(word, known)
    hint = f"did you mean {guess}?" if guess else "sampan help lists the commands"
    return InvalidArgument(f"there is no command {word!r}", hint, exit_code=1)
