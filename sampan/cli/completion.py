"""sampan completion: print the completion script of a shell, or, for that script, the names that there are."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

SHELLS = ("bash", "zsh", "fish")
KINDS = ("containers", "running", "stopped", "images", "volumes", "everything")
OPTIONS = Command(
    "completion",
    "Print the script that completes sampan's words in a shell: bash, zsh or fish.",
    "[SHELL]",
    (Option("names", help="Print names instead, one a line", choices=KINDS),),
    examples=(
        "sampan completion bash > ~/.local/share/bash-completion/completions/sampan",
        "sampan completion zsh > ~/.zfunc/_sampan        # with fpath=(~/.zfunc $fpath) before compinit",
        "sampan completion fish > ~/.config/fish/completions/sampan.fish",
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Print it."""
    if values.names:
        from sampan.engine import completing

        output.write("".join(name + "\n" for name in completing.names(engine, values.names)))
        return 0
    from sampan.errors import InvalidArgument

    if not values.args or values.args[0] not in SHELLS:
        raise InvalidArgument("completion needs the name of a shell", "one of: " + ", ".join(SHELLS))
    from sampan.cli import completion_tables

    output.write(completion_tables.script(values.args[0]))
    return 0
