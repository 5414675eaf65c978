"""Shows a build while it runs: plain lines, a live view of a terminal, or JSON.

A renderer is called with each event of the build (sampan.build.progress), and closed at its end. Output of steps is
hostile: control characters are shown, a line that is overwritten by carriage returns shows its last state.
"""

from __future__ import annotations

import os
import sys
import time

from sampan.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from sampan.build.progress import Event

_TAIL = 6
_KEPT = 20
_REFRESH = 0.08  # seconds between two drawings: more is not seen, and costs


def renderer(kind: str, stream: IO[str] | None = None) -> _Renderer:
    """Return the renderer for `--progress` auto, plain, tty, rawjson (or json), quiet (or none)."""
    stream = stream or sys.stderr
    if kind == "auto":
        kind = "tty" if stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb") else "plain"
    kinds = {"plain": Plain, "tty": Live, "json": Json, "rawjson": Json}
    return kinds.get(kind, Quiet)(stream)


class _Step:
    """What is known of one step: its number in the order of appearance, its start, and output without a line end."""

    def __init__(self, index: int, event: Event) -> None:
        self.index = index
        self.title = title(event)
        self.begun = time.monotonic()
        self.rest: dict[int, bytes] = {}
        self.tail: list[str] = []
        self.done = False

    def lines(self, event: Event) -> list[str]:
        """Return the whole lines that this output completes."""
        data = self.rest.get(event.stream, b"") + event.data
        *whole, rest = data.split(b"\n")
        if len(rest) > 65536:
            whole, rest = [*whole, rest], b""
        self.rest[event.stream] = rest
        return [_readable(line) for line in whole]

    def flush(self) -> list[str]:
        """Return what was printed without a line end."""
        lines = [_readable(rest) for rest in self.rest.values() if rest]
        self.rest = {}
        return lines

    def seconds(self) -> float:
        return time.monotonic() - self.begun


def title(event: Event) -> str:
    """Return `[stage 2/5] RUN …` of an event."""
    place = f"{event.number}/{event.total}" if event.total else ""
    words = " ".join(word for word in (event.stage, place) if word)
    text = output.printable(" ".join(event.text.split()))
    return f"[{output.printable(words)}] {text}" if words else text


def _readable(line: bytes) -> str:
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return output.printable(_without_colours(text))


def _without_colours(text: str) -> str:
    """Remove escape sequences of colour (ESC [ … m), which are the ones that tools print in a build."""
    parts = text.split("\x1b[")
    kept = [parts[0]]
    for part in parts[1:]:
        end = 0
        while end < len(part) and part[end] in "0123456789;:":
            end += 1
        kept.append(part[end + 1 :] if part[end : end + 1] in ("m", "K") else "\x1b[" + part)
    return "".join(kept)


class _Renderer:
    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.steps: dict[tuple[str, int], _Step] = {}

    def __call__(self, event: Event) -> None:
        handler = getattr(self, "on_" + event.kind, None)
        if handler is not None:
            handler(event)

    def close(self, failed: bool) -> None:
        """Finish the display."""
        self.stream.flush()

    def _step(self, event: Event) -> _Step:
        key = (event.stage, event.number)
        if key not in self.steps:
            self.steps[key] = _Step(len(self.steps) + 1, event)
        return self.steps[key]

    def _write(self, text: str) -> None:
        self.stream.write(text)


class Plain(_Renderer):
    """Lines in BuildKit's plain form: `#3 [2/5] RUN …`, `#3 0.213 output`, `#3 DONE 0.3s`."""

    def on_step(self, event: Event) -> None:
        step = self._step(event)
        self._write(f"#{step.index} {step.title}\n")
        self.stream.flush()

    def on_cached(self, event: Event) -> None:
        known = (event.stage, event.number) in self.steps
        step = self._step(event)
        self._write(("" if known else f"#{step.index} {step.title}\n") + f"#{step.index} CACHED\n\n")

    def on_output(self, event: Event) -> None:
        step = self._step(event)
        self._lines(step, step.lines(event))

    def on_done(self, event: Event) -> None:
        step = self._step(event)
        self._lines(step, step.flush())
        self._write(f"#{step.index} DONE {step.seconds():.1f}s\n\n")
        self.stream.flush()

    def on_warning(self, event: Event) -> None:
        self._write(f"warning: {output.printable(event.text)}\n")

    def on_pull(self, event: Event) -> None:
        self._write(f"{output.printable(event.text)}\n")
        self.stream.flush()

    def on_image(self, event: Event) -> None:
        self._write(f"image {output.printable(event.text)}\n")

    def on_tagged(self, event: Event) -> None:
        self._write(f"named {output.printable(event.text)}\n")

    def close(self, failed: bool) -> None:
        """Print what steps wrote without a line end."""
        for step in self.steps.values():
            self._lines(step, step.flush())
        self.stream.flush()

    def _lines(self, step: _Step, lines: list[str]) -> None:
        for line in lines:
            self._write(f"#{step.index} {step.seconds():.3f} {line}\n")
        if lines:
            self.stream.flush()


class Live(_Renderer):
    """One line per finished step, and below them the running step with the end of its output, drawn in place."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self.paint = output.colour(stream)
        self.drawn = 0
        self.last = 0.0
        self.current: _Step | None = None

    def on_step(self, event: Event) -> None:
        self.current = self._step(event)
        self._draw(now=True)

    def on_cached(self, event: Event) -> None:
        self._finish(self._step(event), "CACHED")

    def on_output(self, event: Event) -> None:
        step = self._step(event)
        step.tail = (step.tail + step.lines(event))[-_KEPT:]
        self.current = step
        self._draw()

    def on_done(self, event: Event) -> None:
        step = self._step(event)
        self._finish(step, f"{step.seconds():.1f}s")

    def on_warning(self, event: Event) -> None:
        self._line(self.paint("33", f"warning: {output.printable(event.text)}"))

    def on_pull(self, event: Event) -> None:
        self._line(output.printable(event.text))

    def on_image(self, event: Event) -> None:
        self._line(f"image {output.printable(event.text)}")

    def on_tagged(self, event: Event) -> None:
        self._line(f"named {output.printable(event.text)}")

    def close(self, failed: bool) -> None:
        """Leave the end of a failed step's output on the screen."""
        step = self.current
        self._clear()
        if failed and step is not None and not step.done:
            self._write(self.paint("31", "=> " + self._cut(step.title, 3)) + "\n")
            for line in [*step.tail, *step.flush()][-_KEPT:]:
                self._write("   " + line + "\n")
        self.stream.flush()

    def _finish(self, step: _Step, how: str) -> None:
        step.done = True
        self.current = None
        self._line(f"{self.paint('34', '=> ' + self._cut(step.title, len(how) + 5))}  {how}")

    def _line(self, text: str) -> None:
        self._clear()
        self._write(text + "\n")
        self._draw(now=True)

    def _draw(self, now: bool = False) -> None:
        step = self.current
        if step is None or (not now and time.monotonic() - self.last < _REFRESH):
            self.stream.flush()
            return
        self._clear()
        lines = [f"=> {self._cut(step.title, 12)}  {step.seconds():.1f}s"]
        lines += ["   " + self._cut(line, 4) for line in step.tail[-_TAIL:]]
        self._write("\n".join(lines) + "\n")
        self.drawn = len(lines)
        self.last = time.monotonic()
        self.stream.flush()

    def _clear(self) -> None:
        if self.drawn:
            # ECMA-48: cursor up, then erase to the end of the screen; up keeps the column, which an echoed ^C moved.
            self._write(f"\r\x1b[{self.drawn}A\x1b[J")
            self.drawn = 0

    def _cut(self, text: str, room: int) -> str:
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError):
            columns = 80
        return output.ellipsis(text.replace("\t", " "), max(10, (columns or 80) - room))


class Json(_Renderer):
    """One JSON object per event, for programs."""

    def __call__(self, event: Event) -> None:
        value = {"kind": event.kind, "stage": event.stage, "step": event.number, "total": event.total}
        value["text"] = event.text
        value["time"] = round(time.time(), 3)
        if event.data:
            value["stream"] = event.stream
            value["data"] = event.data.decode("utf-8", "replace")
        if event.size:
            value["size"] = event.size
        self._write(output.json_text(value) + "\n")
        self.stream.flush()


class Quiet(_Renderer):
    """Warnings only, and what a step that failed had printed last."""

    def on_step(self, event: Event) -> None:
        self.current: _Step | None = self._step(event)

    def on_output(self, event: Event) -> None:
        step = self._step(event)
        step.tail = (step.tail + step.lines(event))[-_KEPT:]

    def on_done(self, event: Event) -> None:
        self.current = None

    on_cached = on_done

    def close(self, failed: bool) -> None:
        """Print the end of a failed step's output: without it the failure says nothing."""
        step = getattr(self, "current", None)
        if failed and step is not None:
            for line in [*step.tail, *step.flush()][-_KEPT:]:
                self._write(line + "\n")
        super().close(failed)

    def on_warning(self, event: Event) -> None:
        self._write(f"sampan: warning: {output.printable(event.text)}\n")
