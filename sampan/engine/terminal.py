"""The caller's terminal while a container has it: raw mode, window size, and everything put back."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DETACH_KEYS = "ctrl-p,ctrl-q"
_KEYS = 28  # helper/supervise.h: KEYS


def keys(text: str) -> str:
    """Turn Docker's notation ("ctrl-p,ctrl-q", "a", "ctrl-@") into the characters; else InvalidArgument."""
    from sampan.errors import InvalidArgument

    out = []
    for word in text.split(",") if text else []:
        if len(word) == 1 and word.isascii():
            out.append(word)
        elif word.startswith("ctrl-") and len(word) == 6 and "@" <= word[5].upper() <= "_":
            out.append(chr(ord(word[5].upper()) - 64))
        else:
            raise InvalidArgument(f"cannot use detach keys {text}: {word} is not a key", "for example ctrl-p,ctrl-q")
    if len(out) > _KEYS:
        raise InvalidArgument(f"cannot use detach keys {text}: more than {_KEYS} keys")
    return "".join(out)


def size(fd: int) -> tuple[int, int]:
    """Give (rows, columns) of the terminal, or (0, 0) when it is none."""
    try:
        got = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return got.lines, got.columns


class Raw:
    """Hold a terminal in raw mode within a `with` block; do nothing for what is not a terminal.

    For a program that is yet to be started, `hold` comes before the start: the first keys are for it, and it may ask
    for them at once. `whole` comes after it: until then our own warnings are printed as ever.
    """

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self.saved: list[Any] | None = None

    def __enter__(self) -> Raw:
        self.hold(self.fd)
        self.whole()
        return self

    def hold(self, fd: int) -> None:
        """Take keys as they come, none of them echoed or a signal."""
        if os.isatty(fd):
            import termios

            self.fd, self.saved = fd, termios.tcgetattr(fd)
            raw = termios.tcgetattr(fd)
            raw[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
            raw[2] = raw[2] & ~termios.CSIZE | termios.CS8
            raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            termios.tcsetattr(fd, termios.TCSANOW, raw)  # what was typed ahead is kept

    def whole(self) -> None:
        """Leave the output as it comes, too."""
        if self.saved is not None:
            import termios

            raw = termios.tcgetattr(self.fd)
            raw[1] &= ~termios.OPOST
            termios.tcsetattr(self.fd, termios.TCSANOW, raw)

    def __exit__(self, *_: object) -> None:
        if self.saved is not None:
            import termios

            termios.tcsetattr(self.fd, termios.TCSANOW, self.saved)


class Forward:
    """Pass signals on to a container within a `with` block: INT, TERM, HUP, QUIT, USR1, USR2; WINCH for a terminal.

    A third interrupt kills, as with Docker's client.  What comes before the container is there is kept for it.  With
    `passing` false (--sig-proxy=false) signals mean this process, as usual.
    """

    def __init__(self, active: bool = True, passing: bool = True) -> None:
        self.active = active
        self.passing = passing
        self.send: Callable[[int], None] | None = None
        self.resize: Callable[[], None] | None = None
        self.early: list[int] = []
        self.resized = False
        self.saved: dict[int, Any] = {}
        self.count = 0

    def to(self, send: Callable[[int], None], resize: Callable[[], None] | None = None) -> None:
        """Name the receiver; it gets what came early."""
        self.send, self.resize = send, resize
        if self.resized and resize is not None:
            resize()
        while self.early:
            send(self.early.pop(0))

    def _on_signal(self, number: int, _frame: object) -> None:
        import _signal

        if number == _signal.SIGWINCH:
            self.resized = True
            if self.resize is not None:
                self.resize()
            return
        if number in (_signal.SIGINT, _signal.SIGTERM):
            self.count += 1
            if self.count == 2 and os.isatty(
                2
            ):  # a first process without a handler gets none, and nothing would be seen
                os.write(2, b"\nsampan: the program goes on: once more kills it\n")
        number = _signal.SIGKILL if self.count >= 3 else number
        if self.send is None:
            self.early.append(number)
        else:
            self.send(number)

    def __enter__(self) -> Forward:
        import _signal

        numbers = [_signal.SIGWINCH]
        if self.passing:
            numbers += [_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP]
            numbers += [_signal.SIGQUIT, _signal.SIGUSR1, _signal.SIGUSR2]
        if not self.active:
            return self
        try:
            for number in numbers:
                self.saved[number] = _signal.signal(number, self._on_signal)
        except ValueError:
            return self  # not the main thread: the caller's own handlers stay
        return self

    def __exit__(self, *_: object) -> None:
        import _signal

        for number, handler in self.saved.items():
            if handler is not None:
                _signal.signal(number, handler)
