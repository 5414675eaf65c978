"""Shows parts of images on their way: a bar for each on a terminal, a line for each change elsewhere, or JSON.

A display is called with events from several threads (sampan.transfer.events), and closed at the end.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock

from sampan.cli import output
from sampan.errors import SampanError
from sampan.transfer import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

    from sampan.transfer.events import Event

_REFRESH = 0.1  # seconds
_BAR = 30  # columns
_WORDS = {
    events.BEGIN: "Pulling fs layer",
    events.WAITING: "Waiting",
    events.EXISTS: "Already exists",
    events.DONE: "Pull complete",
    events.MOUNTED: "Mounted",
    events.RETRY: "Retrying",
    events.SKIPPED: "Skipped",
    events.MOVING: "Downloading",
}
PUSH_WORDS = {
    **_WORDS,
    events.BEGIN: "Preparing",
    events.EXISTS: "Layer already exists",
    events.DONE: "Pushed",
    events.MOVING: "Pushing",
}
COPY_WORDS = {**_WORDS, events.BEGIN: "Preparing", events.DONE: "Copied", events.MOVING: "Copying"}


def display(kind: str, *, words: dict[str, str] | None = None, stream: IO[str] | None = None) -> Display:
    """Return the display for `--progress` auto, plain, tty, rawjson (or json), quiet (or none)."""
    stream = stream or sys.stderr
    if kind == "auto":
        kind = "tty" if stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb") else "plain"
    kinds = {"plain": Plain, "tty": Bars, "json": Json, "rawjson": Json}
    return kinds.get(kind, Display)(stream, words or _WORDS)


class Display:
    """Show nothing but what went wrong at a mirror."""

    def __init__(self, stream: IO[str], words: dict[str, str]) -> None:
        self.stream = stream
        self.words = words
        self.moving = words[events.MOVING]
        self._lock = allocate_lock()
        self._states: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            try:
                self.show(event)
            except OSError:
                # Nobody reads it any more: that is no reason to stop.
                self.show = lambda event: None  # type: ignore[method-assign]

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        with self._lock:
            self.close()

    def show(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Finish."""

    def _changed(self, event: Event) -> bool:
        """Tell whether a part came into another state."""
        before = self._states.get(event.part)
        self._states[event.part] = event.kind
        return before != event.kind

    def _text(self, event: Event) -> str:
        word = self.words.get(event.kind, self.moving)
        return f"{word} {output.printable(event.text)}" if event.text else word


class Plain(Display):
    """A line whenever a part comes into another state."""

    def show(self, event: Event) -> None:
        """Write the line."""
        if event.kind == events.TEXT:
            self.stream.write(output.printable(event.text) + "\n")
        elif event.kind != events.MOVING and self._changed(event):
            self.stream.write(f"{event.part}: {self._text(event)}\n")
        else:
            return
        self.stream.flush()


class Bars(Display):
    """One line for each part, redrawn in place."""

    def __init__(self, stream: IO[str], words: dict[str, str]) -> None:
        super().__init__(stream, words)
        self._lines: dict[str, Event] = {}
        self._drawn = 0
        self._last = 0.0

    def show(self, event: Event) -> None:
        """Redraw, not more often than is seen."""
        if event.kind == events.TEXT:
            self._clear()
            self.stream.write(output.printable(event.text) + "\n")
            self._draw()
            return
        self._lines[event.part] = event
        if self._changed(event) or time.monotonic() - self._last > _REFRESH:
            self._clear()
            self._draw()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._clear()
        self._draw()

    def _clear(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")  # ECMA-48: cursor up, then erase to the end of the screen
            self._drawn = 0

    def _draw(self) -> None:
        columns, rows = _size(self.stream)
        shown = list(self._lines.items())[-max(1, rows - 2) :]
        for part, event in shown:
            self.stream.write(output.ellipsis(f"{part}: {self._line(event)}", max(10, columns - 1)) + "\n")
        self._drawn = len(shown)
        self._last = time.monotonic()
        self.stream.flush()

    def _line(self, event: Event) -> str:
        if event.kind != events.MOVING:
            return self._text(event)
        numbers = output.human_size(event.current)
        if event.total <= 0:
            return f"{self.moving}  {numbers}"
        full = min(_BAR, _BAR * event.current // event.total)
        bar = "=" * full + (">" if full < _BAR else "") + " " * (_BAR - full - 1)
        return f"{self.moving} [{bar}] {numbers}/{output.human_size(event.total)}"


class Json(Display):
    """One JSON object for each change, for programs; moving parts ten times a second."""

    def __init__(self, stream: IO[str], words: dict[str, str]) -> None:
        super().__init__(stream, words)
        self._said: dict[str, float] = {}

    def show(self, event: Event) -> None:
        """Write the object."""
        now = time.monotonic()
        if event.kind in (events.MOVING, events.WAITING):
            if now - self._said.get(event.part, 0.0) < _REFRESH:
                return
            self._said[event.part] = now
        value: dict[str, object] = {"status": event.text if event.kind == events.TEXT else self._text(event)}
        if event.part:
            value["id"] = event.part
        if event.total > 0:
            value["progressDetail"] = {"current": event.current, "total": event.total}
        self._write(value)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        """Say what went wrong as Docker's stream does (moby, pkg/jsonmessage), for those who read objects only."""
        if isinstance(value, SampanError):
            detail = {"message": value.message, **({"hint": value.hint} if value.hint else {})}
            with self._lock:
                try:
                    self._write({"errorDetail": detail, "error": value.message})
                except OSError:
                    return  # nobody reads it: the error itself is told by the command

    def _write(self, value: dict[str, object]) -> None:
        self.stream.write(output.json_text(value) + "\n")
        self.stream.flush()


def _size(stream: IO[str]) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
