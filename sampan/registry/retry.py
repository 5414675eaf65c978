"""When to try again, and how long to wait for what is small.

Registries answer 429 with Retry-After in seconds or as a date (RFC 9110, 10.2.3); a wait is never longer than a minute,
whatever they say.  Waits grow, and are spread, so that many clients do not come back at once.
"""

from __future__ import annotations

from sampan.errors import Unavailable
from sampan.registry import message
from sampan.registry.message import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.registry.message import Response

ATTEMPTS = 6
LONGEST = 60.0  # seconds
SOON = 45.0  # seconds
_PACE = 16 << 10  # bytes a second
_NOTICED = 2.0  # seconds: a longer wait is told
_FIRST = 0.3
_WORDS = {429: "429, too many requests", 503: "503, not now"}
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))


def is_passing(status: int) -> bool:
    """Tell whether a status may be another one the next time."""
    return status in _AGAIN


def wait(attempt: int, retry_after: str, spread: float, now: float) -> float:
    """Give how many seconds to wait before the next attempt (0 is the first one that failed).

    `spread` is a random number from 0 to 1, `now` the time in unix seconds.
    """
    grown = min(_FIRST * 2.0**attempt, LONGEST / 4) * (0.5 + spread / 2)
    asked = _seconds(retry_after, now)
    return min(LONGEST, max(grown, asked + grown / 4 if asked else 0.0))


def _seconds(retry_after: str, now: float) -> float:
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(min(int(text[:12]), int(LONGEST)))
    if not text:
        return 0.0
    from email.utils import parsedate_to_datetime

    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(0.0, until - now), LONGEST)


class Patience:
    """Count attempts at one thing, and pause between them; `pause` may raise to give up (Ctrl-C).

    `tell` is given one line before a wait that a user would notice.
    """

    def __init__(
        self, pause: Callable[[float], None], attempts: int = ATTEMPTS, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self._pause = pause
        self._attempts = attempts
        self._tell = tell
        self.failed = 0

    def reset(self) -> None:
        """Start counting anew: there was progress."""
        self.failed = 0

    def again(self, retry_after: str = "", why: str = "") -> bool:
        """Pause and give True, or give False when it was tried often enough; `why` is what went wrong."""
        import random
        import time

        if self.failed + 1 >= self._attempts:
            return False
        seconds = wait(self.failed, retry_after, random.random(), time.time())
        if seconds >= _NOTICED and why:
            number = f"attempt {self.failed + 2} of {self._attempts}"
            self._tell(f"{why}: trying again in {seconds:.0f} s ({number})")
        self._pause(seconds)
        self.failed += 1
        return True

    def after(self, failure: Interrupted) -> None:
        """Pause, or raise the failure when it was tried often enough."""
        if not self.again(failure.retry_after, failure.message):
            raise failure

    def answer(self, response: Response) -> bool:
        """Pause after an answer that may pass, and give True; else False."""
        if not is_passing(response.status):
            return False
        response.close()
        where = message.netloc(message.origin(response.url))
        return self.again(
            response.header("retry-after"), f"{where} answered {_WORDS.get(response.status, response.status)}"
        )


class Haste:
    """See that a document comes soon: within `seconds`, longer only as far as it comes at 16 KiB/s.

    A blob may be large and its line slow, a manifest, a token or a list is small: who lets it drip does not mean well,
    and whoever waits for it sees nothing move.  Unavailable then, not Interrupted: another attempt would take as long.
    """

    def __init__(self, what: str, host: str, now: Callable[[], float], seconds: float = SOON) -> None:
        self._what = what
        self._host = host
        self._now = now
        self._seconds = seconds
        self._begun = now()
        self._size = 0

    def came(self, count: int) -> None:
        """Count bytes that arrived."""
        self._size += count
        passed = self._now() - self._begun
        if passed > self._seconds + self._size / _PACE:
            raise Unavailable(
                f"cannot read {self._what}: {self._host} sends it too slowly, {self._size} bytes in {passed:.0f} s",
                "try again later, or a mirror",
            )
