"""What happens to the parts of an image on their way, for whoever shows it.

begin     a part was found; `total` bytes        waiting   another process is getting it
moving    `current` of `total` bytes moved       exists    it is there already
done      it is there                            mounted   the registry took it from another repository (`text`)
retry     the connection broke (`text`)          text      something to say about the image as a whole
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Listen = Callable[["Event"], None]

BEGIN, WAITING, MOVING, EXISTS, DONE, MOUNTED, RETRY, TEXT, SKIPPED = (
    "begin",
    "waiting",
    "moving",
    "exists",
    "done",
    "mounted",
    "retry",
    "text",
    "skipped",
)


class Event:
    """One thing that happened: `part` is the short digest of what it is about, or ""."""

    __slots__ = ("current", "kind", "part", "text", "total")

    def __init__(self, kind: str, part: str = "", current: int = 0, total: int = 0, text: str = "") -> None:
        self.kind = kind
        self.part = part
        self.current = current
        self.total = total
        self.text = text


def ignore(event: Event) -> None:
    """Listen to nothing."""
