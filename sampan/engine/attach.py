"""`attach`: watch a running container, and write to it, from now on.

The supervisor is handed our own standard descriptors and serves them itself (docs/decisions/0002); what stays here is
the terminal's mode and size, signals, and the wait for the end.
"""

from __future__ import annotations

import _struct
import os

from sampan.engine import state, terminal
from sampan.errors import InvalidArgument, Unavailable
from sampan.runtime import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine
    from sampan.store.containers import Record

_STDIN = 1  # helper/supervise.h: hello_flags
_KEYS = 28
_HEAD = _struct.Struct("<IIiiQII")


class Client:
    """Hold the connection to a container's supervisor."""

    def __init__(self, path: str, name: str) -> None:
        import _socket

        self.name = name
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self.socket.settimeout(5)
        try:
            self.socket.connect(path)
        except TimeoutError as error:
            raise Unavailable(f"cannot attach to container {name}: its supervisor does not answer") from error
        except OSError as error:
            why = error.strerror or "it has no supervisor"
            raise Unavailable(f"cannot attach to container {name}: {why}") from error

    def hello(self, fds: tuple[int, int, int], keys: str, stdin: bool) -> None:
        """Hand our descriptors over."""
        import _socket

        data = _struct.pack(f"<HH{_KEYS}s", _STDIN if stdin else 0, len(keys), keys.encode("latin-1"))
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _struct.pack("3i", *fds))]
        try:
            self.socket.sendmsg([data], rights)
        except OSError as error:
            raise Unavailable(f"cannot attach to container {self.name}: its supervisor takes no more") from error
        self.socket.settimeout(None)

    def signal(self, number: int) -> None:
        """Ask for a signal to the program."""
        self._send(launch.CONTROL_SIGNAL, number)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size."""
        self._send(launch.CONTROL_RESIZE, rows << 16 | columns)

    def _send(self, kind: int, value: int) -> None:
        try:
            self.socket.send(_struct.pack("<II", kind, value))
        except (BrokenPipeError, ConnectionResetError):
            return  # the end is told by `wait`

    def wait(self) -> launch.Exit | None:
        """Wait for the end; None when the keys detached us.  Unavailable when the supervisor went without a word."""
        data = b""
        while len(data) < _HEAD.size:
            try:
                part = self.socket.recv(_HEAD.size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Unavailable(f"lost container {self.name}: its supervisor is gone or takes no more clients")
            data += part
        kind, _, error, value, extra, _, _ = _HEAD.unpack(data)
        return None if kind == launch.DETACHED else launch.Exit(value, extra > 0, error)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def attach(
    engine: Engine,
    name: str,
    *,
    stdin: bool = True,
    sig_proxy: bool = True,
    detach_keys: str = terminal.DETACH_KEYS,
    fds: tuple[int, int, int] = (0, 1, 2),
) -> int:
    """Attach to a running container; give its exit code, or 0 when the keys detached us."""
    record = engine.containers.get(name)
    keys = terminal.keys(detach_keys)
    state.require(record.status, "attach", record.name)
    tty = record.has_terminal
    wanted = stdin and bool(record.options.get("interactive"))
    if tty and wanted and not os.isatty(fds[0]):
        raise InvalidArgument(
            f"cannot attach to container {record.name}: it has a terminal, and standard input is none",
            "use --no-stdin to watch only",
        )
    with terminal.Forward(True, sig_proxy) as forward:
        client = Client(engine.containers.socket(record.id), record.name)
        try:
            return _watch(engine, record, client, forward, (tty, wanted, keys if tty else "", fds))
        finally:
            client.close()


def _watch(engine: Engine, record: Record, client: Client, forward: terminal.Forward, how: tuple[Any, ...]) -> int:
    tty, stdin, keys, fds = how
    client.hello(fds, keys, stdin)
    engine.events.container("attach", record)
    resize = (lambda: client.resize(*terminal.size(fds[1]))) if tty else None
    forward.to(client.signal, resize)
    if tty and terminal.size(fds[1]) != (0, 0):
        # A size that differs makes the program draw its screen again, as Docker does it.
        rows, columns = terminal.size(fds[1])
        client.resize(rows + 1, columns + 1)
        client.resize(rows, columns)
    try:
        with terminal.Raw(fds[0] if tty and stdin else -1):
            ended = client.wait()
    except Unavailable:
        now = engine.containers.get(record.id)
        if now.status == "exited":
            return now.exit_code
        raise
    return ended.told() if ended else 0
