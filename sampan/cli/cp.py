"""sampan cp: copy files between a container and the host."""

from __future__ import annotations

import os
import sys

from sampan.cli.options import FLAG, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "cp",
    "Copy files between a container and the host; `-` is a tar on standard input or output.",
    "SOURCE DESTINATION",
    (
        Option("archive", "a", FLAG, "Keep owners, by number"),
        Option("follow-link", "L", FLAG, "Copy what a symbolic link as source leads to"),
        Option("quiet", "q", FLAG, "Do not say what was copied; the default where no terminal is"),
    ),
    examples=(
        "sampan cp app:/etc/app.conf .",
        "sampan cp site/. web:/srv",
        "sampan cp app:/var/log - | tar -t",
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Copy, and return 0."""
    source, destination = values.args
    source_name, source_path = split(source)
    name, path = split(destination)
    if not (source_path and path):
        raise InvalidArgument(f"cannot copy: the {'destination' if source_path else 'source'} is empty")
    if source_name and name:
        raise InvalidArgument("cannot copy between containers", "copy to the host first, or through `-`")
    if not (source_name or name):
        raise InvalidArgument("cannot copy: neither side is in a container", "write one side as CONTAINER:PATH")
    if source_name:
        _out(engine, values, source_name, source_path, path)
    else:
        _in(engine, values, name, source_path, path)
    return 0


def split(word: str) -> tuple[str, str]:
    """Split CONTAINER:PATH; the name of a container is empty for a path of the host (`./a:b` is one)."""
    name, colon, path = word.partition(":")
    if not colon or word.startswith(("/", ".")):
        return "", word
    return name, path


def _out(engine: Engine, values: Values, name: str, path: str, destination: str) -> None:
    containers, follow = engine.containers, values.follow_link
    if destination == "-":
        from sampan.cli.files import Output
        from sampan.transfer.output import write_all

        archive = Output("", "an archive")
        archive.instead = "name a place on the host"
        with archive as fd:
            containers.read_archive(name, path, lambda data: write_all(fd, data), follow_link=follow)
        return
    size = containers.copy_out(name, path, destination, follow_link=follow, archive=values.archive)
    _tell(values, size, destination)


def _in(engine: Engine, values: Values, name: str, source: str, path: str) -> None:
    containers = engine.containers
    if source == "-":
        from sampan.cli.files import open_input

        fd = open_input("", "an archive")
        containers.write_archive(name, path, lambda count: os.read(fd, count), archive=values.archive)
        return
    size = containers.copy_in(name, source, path, follow_link=values.follow_link, archive=values.archive)
    _tell(values, size, f"{name}:{path}")


def _tell(values: Values, size: int, where: str) -> None:
    if values.quiet or ("quiet" not in values.given and not os.isatty(1)):
        return
    from sampan.cli import output

    sys.stderr.write(output.printable(f"Successfully copied {output.human_size(size)} to {where}") + "\n")
