"""What the prune commands share: their options, the question before, and what they print after."""

from __future__ import annotations

import sys
import time

from sampan.cli import files, options, output
from sampan.cli.options import FLAG, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.engine.pruning import Pruned, Wanted

FORCE = Option("force", "f", FLAG, "Do not ask")
FILTER = Option("filter", "", options.FILTER, "Only what matches until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]")


def wanted(words: Iterable[str]) -> Wanted:
    """Read the --filter words; InvalidArgument for one that there is not."""
    from sampan.engine.pruning import Wanted

    before, labels, without = 0.0, [], []
    for word in filter(None, words):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key == "label!" or (key == "label" and not equals):
            without.append(value)
        elif key == "label":
            labels.append(value)
        elif key == "until" and value:
            from sampan.cli.moments import moment

            before = moment(value, time.time())
        else:
            raise InvalidArgument(f"cannot prune by filter {word!r}", "until=TIME, label=NAME or label!=NAME")
    return Wanted(before, labels, without)


def agreed(force: bool, what: Iterable[str]) -> bool:
    """Say what will be removed, and ask on the terminal; no answer means no."""
    if force:
        return True
    files.standard_input("the answer")
    sys.stderr.write("WARNING! This will remove:\n" + "".join(f"  - {text}\n" for text in what))
    sys.stderr.write("\nAre you sure you want to continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show(done: Pruned) -> int:
    """Print what is gone, as Docker does; give the exit code."""
    for title, names in (("Containers", done.containers), ("Volumes", done.volumes), ("Images", done.images)):
        if names:
            output.write(f"Deleted {title}:\n")
            for name in names:
                output.line(name)
            output.write("\n")
    if done.build_cache:
        output.write(f"Deleted build cache entries: {done.build_cache}\n\n")
    output.write(f"Total reclaimed space: {output.human_size(done.freed)}\n")
    return 0
