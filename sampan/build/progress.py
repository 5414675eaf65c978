"""What a build tells while it runs: one small event per thing that happened.

Pure. The build calls `on_event(Event)`; whoever renders (command line, library, API) decides how. Text from a
Dockerfile or a step is passed on as it is: the renderer makes it fit for a terminal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Listener = Callable[["Event"], None]

STEP = "step"
"""A step begins: `stage`, `number` of `total`, `text` is the instruction."""
CACHED = "cached"
"""The step's result was found; nothing is executed."""
OUTPUT = "output"
"""A RUN wrote `data` to stream 1 or 2 (`stream`)."""
DONE = "done"
"""The step was executed; `size` is that of its layer in bytes."""
WARNING = "warning"
"""`text` tells what the user should know; the build goes on."""
PULL = "pull"
"""Something happened while a base image is pulled; `text` says what."""
IMAGE = "image"
"""The image is stored; `text` is its id."""
TAGGED = "tagged"
"""`text` is the full reference that now names the image."""


class Event:
    """Hold one thing that happened."""

    __slots__ = ("data", "kind", "number", "size", "stage", "stream", "text", "total")

    def __init__(
        self,
        kind: str,
        text: str = "",
        *,
        stage: str = "",
        number: int = 0,
        total: int = 0,
        data: bytes = b"",
        stream: int = 0,
        size: int = 0,
    ) -> None:
        self.kind = kind
        self.text = text
        self.stage = stage
        self.number = number
        self.total = total
        self.data = data
        self.stream = stream
        self.size = size


def ignore(event: Event) -> None:
    """Listen to nothing."""
