"""The command: finds the module of a command word, imports that one only, and turns every outcome into an exit code.

Rules: this is the one place that prints an error (`sampan: …`, `hint: …`) and the one place that ends the process.
No error shows a traceback unless --debug asks for it. Exit codes as Docker's: 125 for options that are wrong and for
what `run` cannot do (its module says EXIT_OURS), 1 for what other commands cannot, 130 interrupted, else what the
command returns.
"""

from __future__ import annotations

import _signal
import os
import sys

from sampan import bundle
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# What `sampan help` lists, in this order; the module is sampan/cli/<word>.py (import_, as the word is Python's).
COMMANDS = {
    "run": "Start a program in a new container",
    "exec": "Run a program in a running container",
    "ps": "List containers",
    "build": "Build an image from a Dockerfile",
    "bootstrap": "Make a base image from files of this host",
    "images": "List images",
    "pull": "Get images from a registry",
    "push": "Send images to a registry",
    "login": "Log in to a registry",
    "logout": "Forget the login of a registry",
    "search": "Look for images in a registry",
    "logs": "Show what a container printed",
    "events": "Show what happens to containers, images and volumes",
    "inspect": "Show everything about containers, images and volumes, as JSON",
    "create": "Create a container without starting it",
    "start": "Start created or stopped containers",
    "stop": "Stop running containers",
    "restart": "Stop containers and start them again",
    "kill": "Send a signal to containers",
    "top": "Show the processes of a container",
    "stats": "Show what containers use of the host",
    "port": "List the published ports of a container",
    "pause": "Stop all processes of containers where they stand",
    "unpause": "Let paused containers go on",
    "attach": "Show the output of a running container, and write to it",
    "wait": "Wait until containers end, and print their exit codes",
    "rename": "Give a container another name",
    "update": "Change limits and restart policies of containers",
    "rm": "Remove containers",
    "tag": "Give an image another name",
    "rmi": "Remove images",
    "history": "Show how an image was made",
    "save": "Write images to a tar archive",
    "load": "Read images from a tar archive",
    "import": "Make an image from a tar archive of a file system",
    "cp": "Copy files between a container and the host",
    "diff": "List what a container changed of its image",
    "commit": "Make an image of what a container has become",
    "export": "Write a container's file system as a tar archive",
    "info": "Show the store and the host",
    "doctor": "Say what this host can and cannot do",
    "completion": "Print the completion script of a shell",
    "version": "Show the version",
}


class _Globals:
    """The options before the command word."""

    __slots__ = ("debug", "root", "words")

    def __init__(self, argv: list[str]) -> None:
        self.debug = False
        self.root: str | None = None
        self.words = list(argv)
        while self.words and self.words[0].startswith("-"):
            self._take(self.words.pop(0))

    def _take(self, word: str) -> None:
        if word in ("--debug", "-D"):
            self.debug = True
        elif word == "--root" and self.words:
            self.root = self.words.pop(0)
        elif word.startswith("--root="):
            self.root = word[len("--root=") :]
        elif word in ("--help", "-h"):
            self.words = ["help"]
        elif word in ("--version", "-v"):
            self.words = ["version", "--short"]
        else:
            raise InvalidArgument(f"unknown option {word} before the command", "sampan help lists commands and options")
        if self.root == "":
            raise InvalidArgument("option --root needs a directory")


def main(argv: list[str]) -> int:
    """Run one command line (without the program's name) and return the exit code; prints errors itself."""
    debug = "--debug" in argv[:3] or "-D" in argv[:3]
    ours = [125]
    try:
        code = _dispatch(argv, ours)
        flush()
        return code
    except BaseException as exc:
        try:
            from sampan.cli.failure import report
        except ImportError:
            sys.stderr.write("sampan: sampan was removed while this command ran\n")
            return ours[0]
        return report(exc, debug, ours[0])


def flush() -> None:
    """Let what was printed to standard output appear now."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        from sampan.cli.failure import unwritten

        raise unwritten(exc) from exc


def entry() -> None:
    """Run the command line of this process and end it.

    The interpreter's own shutdown is skipped: the store is safe against kill -9, so nothing waits for it. Cyclic
    garbage is looked for rarely: a command that ends at once has none worth finding (2 ms of a run).
    """
    import gc

    gc.set_threshold(20_000)
    _open_streams()
    if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:  # bin/sampan
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 125
    bundle.refresh()
    os._exit(code & 0xFF)


def _open_streams() -> None:
    """Have all three streams, also where the caller closed them."""
    bundle.open_streams()
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _dispatch(argv: list[str], ours: list[int]) -> int:
    asked = _Globals(argv)
    word, rest = split_command(asked.words)
    if not word:
        from sampan.cli import groups

        return groups.explain(asked.words)
    module = load_command(word)
    from sampan.cli import options

    try:
        values = options.parse(rest, module.OPTIONS)
    except options.HelpAsked:
        from sampan.cli import groups

        return groups.explain(["help", *word.split()])
    ours[0] = getattr(module, "EXIT_OURS", 1)
    code: int = module.run(_engine(asked.root, module), values)
    return code


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """Split a command's word, or its two, from the rest; "" when there is no such command."""
    if words and words[0] in COMMANDS:
        return words[0], words[1:]
    from sampan.cli import groups

    return groups.split(words)


def load_command(word: str) -> ModuleType:
    """Import the module of one command, of one word or two."""
    name = "sampan.cli." + ("import_" if word == "import" else word.replace("-", "_").replace(" ", "_"))
    __import__(name)
    return sys.modules[name]


def _engine(root: str | None, module: ModuleType) -> Any:
    if getattr(module, "NEEDS_ENGINE", True):
        from sampan.engine.engine import Engine

        return Engine(root)
    return None
